"""The command that ``gddctl compare`` names as the next one: the same comparison in everything but what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gddctl.commands.compare import OnName, _following
from gddctl.core.config.load import load_config
from gddctl.core.reports.comparison import Arm, Bootstrap, Comparison, MethodRow
from gddctl.pipeline.compare.compare import requested


def following(
    on: OnName, *, seeds: int | None = None, first_seed: int = 0, budget: str | None = None, methods: Sequence[str] = ("cwd",)
) -> str:
    config, sets = Path("tiny.yaml"), ["compare.seeds=3"]
    request = requested(
        load_config(None, sets), methods, seeds=seeds, first_seed=first_seed, budget=budget, on=on.value, out=Path("somewhere")
    )
    scores = tuple((seed, 0.5) for seed in request.seeds)
    rows = tuple(MethodRow(Arm(name, 8), scores, (), None, None, None, None) for name in ("cwd", "none"))
    comparison = Comparison("p", "s", 2, Bootstrap("b", 10, 0), None, None, rows, ())
    found = _following(config, sets, request, comparison, on)
    assert found is not None
    return found


def test_what_was_chosen_is_shown_on_val_with_the_same_seconds_and_seeds() -> None:
    plain = "gddctl compare tiny.yaml --set compare.seeds=3 --methods none,cwd"
    assert following(OnName.heldout) == plain
    assert following(OnName.heldout, seeds=3) == plain
    assert following(OnName.heldout, seeds=7, budget="1234567.5") == f"{plain} --budget 1234567.5 --seeds 7"
    assert following(OnName.heldout, seeds=2, first_seed=4) == f"{plain} --seeds 2 --first-seed 4"


def test_the_method_whose_time_the_budget_is_stays_among_the_compared() -> None:
    assert following(OnName.heldout, budget="cwd").endswith("--methods none,cwd --budget cwd")
    assert following(OnName.heldout, methods=("cwd", "kd"), budget="kd").endswith("--methods none,cwd,kd --budget kd")


def test_one_seed_asks_for_more_in_the_same_folder() -> None:
    words = following(OnName.val, seeds=1, budget="0.4")
    assert "--methods none,cwd --budget 0.4 --seeds 5 --out" in words
