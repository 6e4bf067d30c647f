"""Presets of GDD: what is set wins, what is not comes from the preset, and the published form reads as it always did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gddctl.core.config.gdd import PRESETS
from gddctl.core.config.load import load_config, merge, parse, to_settings, to_yaml
from gddctl.core.config.methods import Combined, Gdd
from gddctl.core.config.sections import RunConfig
from gddctl.core.errors import ConfigError

FIRST = {  # GDD's settings before it had extensions
    "kind": "gdd",
    "weight": 145.0,
    "temperature": 4.0,
    "noise": "shared",
    "noise_std": 1.0,
    "noise_relative": False,
    "stage": "stage4",
}


def method_of(*overrides: str, text: str | None = None, folder: Path | None = None) -> Gdd:
    path = None
    if text is not None and folder is not None:
        path = folder / "config.yaml"
        path.write_text(text)
    method = load_config(path, overrides).distill.method
    assert isinstance(method, Gdd)
    return method


def test_the_default_is_the_published_form_and_reads_as_it_did_before_there_were_others() -> None:
    assert Gdd() == Gdd(preset="paper") == method_of("distill.method.preset=paper")
    assert to_settings(Gdd()) == to_settings(RunConfig())["distill"]["method"] == FIRST
    assert to_settings(Gdd(weight=2.0)) == {**FIRST, "weight": 2.0}  # and so is the identity of older trainings


@pytest.mark.parametrize("preset", ["fast", "best"])
def test_a_preset_fills_what_is_not_set(preset: str, tmp_path: Path) -> None:
    filled = method_of(f"distill.method.preset={preset}")
    assert {key: getattr(filled, key) for key in PRESETS[preset]} == PRESETS[preset]
    assert filled == Gdd.model_validate({"preset": preset})
    assert filled == method_of(text=f"distill: {{method: {{kind: gdd, preset: {preset}}}}}", folder=tmp_path)


def test_what_is_set_wins_wherever_it_is_set(tmp_path: Path) -> None:
    text = "distill: {method: {kind: gdd, preset: fast, weight: 7.0}}"
    assert method_of(text=text, folder=tmp_path) == Gdd(preset="fast", weight=7.0)
    assert method_of("distill.method.noise=none", text=text, folder=tmp_path) == Gdd(preset="fast", weight=7.0, noise="none")
    assert method_of("distill.method.preset=fast", "distill.method.weight=7.0") == Gdd(preset="fast", weight=7.0)


def test_another_preset_starts_afresh_because_what_the_old_one_filled_in_is_nobodys_wish(tmp_path: Path) -> None:
    resolved = "distill: {method: " + str(to_settings(Gdd(preset="best"))).replace("None", "null") + "}"
    assert method_of(text=resolved, folder=tmp_path) == Gdd(preset="best")
    assert method_of("distill.method.preset=fast", text=resolved, folder=tmp_path) == Gdd(preset="fast")
    assert method_of("distill.method.preset=paper", text=resolved, folder=tmp_path) == Gdd()
    assert merge({"m": {"kind": "gdd", "weight": 145.0}}, {"m": {"preset": "fast"}}) == {"m": {"kind": "gdd", "preset": "fast"}}
    assert merge({"m": {"kind": "gdd", "preset": "fast", "weight": 3.0}}, {"m": {"preset": "fast"}})["m"]["weight"] == 3.0  # the same one


def test_another_preset_keeps_what_somebody_set(tmp_path: Path) -> None:
    text = "distill: {method: {kind: gdd, stage: [stage3, stage4], weight: 5}}"
    own: dict[str, Any] = {"stage": ("stage3", "stage4"), "weight": 5.0}
    assert method_of("distill.method.preset=fast", text=text, folder=tmp_path) == Gdd(preset="fast", **own)
    assert method_of("distill.method.preset=best", "distill.method.preset=fast", text=text, folder=tmp_path) == Gdd(preset="fast", **own)
    resolved = to_yaml(load_config(tmp_path / "config.yaml", ["distill.method.preset=best"]))  # all that best filled in stands in it
    assert method_of("distill.method.preset=paper", text=resolved, folder=tmp_path) == Gdd(**own)
    printed = to_yaml(RunConfig())
    assert "weight: 145.0" in printed
    assert method_of("distill.method.preset=fast", text=printed, folder=tmp_path) == Gdd(preset="fast")
    # A value that only another preset fills in is somebody's.
    assert merge({"m": {"kind": "gdd", "weight": 2.0}}, {"m": {"preset": "best"}})["m"]["weight"] == 2.0


@pytest.mark.parametrize("first", ["quick", "[fast]"])
def test_after_a_preset_that_is_none_comes_one_that_is(first: str) -> None:
    assert method_of(f"distill.method.preset={first}", "distill.method.preset=fast") == Gdd(preset="fast")


def test_the_resolved_settings_show_the_values_and_read_back() -> None:
    config = load_config(None, ["distill.method={kind: gdd, preset: best, weight: 3.5}"])
    text = to_yaml(config)
    assert "weight: 3.5" in text and "logits_weight: 3.0" in text and "target_channels: 256" in text
    assert parse(RunConfig, to_settings(config)) == config
    assert to_settings(Gdd(decay="linear"))["preset"] == "paper"  # no longer the published form: every key shows


def test_presets_stand_in_lists_too() -> None:
    method = load_config(None, ["distill.method=[{kind: gdd, preset: fast, stage: [stage3, stage4]}, {kind: cwd}]"]).distill.method
    assert isinstance(method, Combined)
    assert method.methods[0] == Gdd(preset="fast", stage=("stage3", "stage4"))


def test_stage_is_one_place_or_several() -> None:
    assert method_of("distill.method.stage=stage3").places == ("stage3",)
    assert method_of("distill.method.stage=[stage3, logits]").places == ("stage3", "logits")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("preset=quick", r"distill\.method\.preset: input should be 'paper', 'fast' or 'best', found \"quick\""),
        ("stage=stage9", r"distill\.method\.stage: input should be 'logits', 'stage1', .* found \"stage9\""),
        ("stage=[stage4, stage4]", r"'stage' \['stage4', 'stage4'\] is empty or names a place twice"),
        ("stage=[]", r"'stage' \[\] is empty or names a place twice"),
        ("stages=[stage4]", r"distill\.method\.stages: unknown key; did you mean 'stage'\?"),
        ("warmup=1.0", r"distill\.method\.warmup: input should be less than 1"),
        ("target_channels=0", r"distill\.method\.target_channels: input should be greater than 0"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [f"distill.method.{override}"])
