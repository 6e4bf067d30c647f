"""What each label of a comparison's folder means, over all calls: ``labels.json``; one row of the table is one method."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gddctl.core.config.load import parse, to_settings
from gddctl.core.config.methods import Combined
from gddctl.core.config.sections import DistillConfig, RunConfig
from gddctl.core.errors import ArtifactError, ConfigError, UsageError
from gddctl.core.files import read_json, write_json
from gddctl.core.section import Section
from gddctl.core.workspace import differing_keys
from gddctl.pipeline.compare.cell_files import ORDER
from gddctl.pipeline.compare.methods import Compared
from gddctl.pipeline.compare.plan import CELLS, cell_folder
from gddctl.pipeline.compare.step_times import Recorded
from gddctl.pipeline.compare.teachers import PlannedTeacher, teacher_identity

LABELS = "labels.json"
Meaning = dict[str, Any]  # {"method": its settings, "teacher": those of a teacher of its own, else None}


def meanings(config: RunConfig, methods: Sequence[Compared], teachers: Mapping[str, PlannedTeacher | None]) -> dict[str, Meaning]:
    """What the labels mean in this call. The common teacher names the folder already and is left out."""
    found = {}
    for each in methods:
        plan = teachers[each.name]
        found[each.name] = {
            "method": to_settings(each.method),
            "teacher": teacher_identity(config, plan.settings) if plan is not None and plan.settings != config.teacher else None,
        }
    return found


def require_same_meanings(out: Path, wanted: Mapping[str, Meaning], recorded: Recorded | None) -> None:
    """Refuse a label that meant something else when its cells were trained or its steps timed; changes nothing.

    Where nothing stands under a label it may mean anything. Cells from before there was a record tell their method themselves.

    Raises:
        UsageError: names the label and the settings that differ.
        ArtifactError: the record, or the order of a cell, is damaged.
    """
    known = _known(out)
    for label, meaning in wanted.items():
        orders = _orders(out, label)
        timed = recorded is not None and label in recorded.methods and recorded.methods[label].error is None
        if not orders and not timed:
            continue
        before = known.get(label)
        if before is None:
            methods = [identity["method"] for identity in orders if isinstance(identity.get("method"), dict)]
            before = {**meaning, "method": methods[0]} if methods else meaning
        _require_equal(out, label, before, meaning)


def record_meanings(out: Path, wanted: Mapping[str, Meaning]) -> None:
    """Keep what the labels of a call mean, beside those of earlier calls."""
    write_json(out / LABELS, {"schema": 1, "labels": {**_known(out), **wanted}})


def settings_in_words(out: Path) -> dict[str, str]:
    """What the folder's labels mean, where the label itself does not say it: the kind, and what is not as published or in its preset.

    Raises:
        ArtifactError: the record is damaged.
    """
    words = {label: _words(meaning.get("method")) for label, meaning in _known(out).items()}
    return {label: said for label, said in words.items() if said != label.removesuffix(":paper")}


def _words(settings: Any) -> str:
    try:
        method = parse(DistillConfig, {"method": settings}).method
    except ConfigError:
        return "settings of another version"  # of gddctl, that knew other keys
    return " + ".join(map(_one_in_words, method.methods if isinstance(method, Combined) else [method]))


def _one_in_words(method: Section) -> str:
    given = method.model_dump()
    preset = given.get("preset", "paper")
    usual = type(method).model_validate({} if preset == "paper" else {"preset": preset}).model_dump()
    changed = [f"{key} {_value(value)}" for key, value in given.items() if value != usual.get(key)]
    return ", ".join([given["kind"] + ("" if preset == "paper" else f":{preset}"), *changed])


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def require_like_others(out: Path, label: str, identity: Mapping[str, Any]) -> None:
    """Refuse a cell that differs in more than seed and iterations from the others under its label, in the teacher's weights say.

    Args:
        out: the comparison's folder.
        label: the cell's.
        identity: of the cell, see ``cell_identity``.

    Raises:
        UsageError: names what differs.
    """
    mine = _without_seed_and_length(identity)
    for other in _orders(out, label):
        _require_equal(out, label, _without_seed_and_length(other), mine)


def _require_equal(out: Path, label: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if before != now:
        raise UsageError(
            f"{label}: in {out} that label was another training, and one row of the table is one method; "
            f"these settings differ: {', '.join(differing_keys(before, now)[:8])}",
            remedy="give the method another label, or choose another --out",
        )


def _without_seed_and_length(identity: Mapping[str, Any]) -> dict[str, Any]:
    train = {key: value for key, value in identity.get("train", {}).items() if key != "iterations"}
    return {**{key: value for key, value in identity.items() if key != "seed"}, "train": train}


def _orders(out: Path, label: str) -> list[dict[str, Any]]:
    """Identities of all cells that were ordered under ``label``."""
    stem = cell_folder(out, label, 0, 0).name.removesuffix("-i0-s0")
    mine = re.compile(rf"{re.escape(stem)}-i\d+-s\d+")
    found = []
    for path in sorted((out / CELLS).glob(f"*/{ORDER}")):
        if mine.fullmatch(path.parent.name) and isinstance(identity := read_json(path).get("identity"), dict):
            found.append(identity)
    return found


def _known(out: Path) -> dict[str, Meaning]:
    path = out / LABELS
    if not path.is_file():
        return {}
    try:
        return dict(read_json(path)["labels"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: not readable ({error!r})", remedy="restore it, or choose another --out") from error
