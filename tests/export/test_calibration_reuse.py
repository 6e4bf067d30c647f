"""A record is used again only when everything that made it is the same: each thing is changed in turn, and the reuse seen refused."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gddctl.core.artifact.calibration import RULE
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import CalibrationConfig
from gddctl.core.digest import sha256_file
from gddctl.core.preprocess import PreprocessSpec
from gddctl.export.calibration.collect import calibrate_or_reuse
from gddctl.export.calibration.images import Selection, select_images
from gddctl.export.calibration.methods import SETTINGS
from gddctl.export.calibration.reuse import reusable
from gddctl.export.graph_file import load_model, save_model

CONFIG = CalibrationConfig(images=6, seed=0, method="minmax")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What :func:`reusable` is asked with."""

    path: Path
    fp32: Artifact
    config: CalibrationConfig
    selection: Selection
    split: str = "train"
    target: Any = "ort-cpu"

    def again(self, **changes: Any) -> Any:
        asked = dataclasses.replace(self, **changes)
        return reusable(asked.path, asked.fp32, asked.config, asked.selection, split=asked.split, target=asked.target)


@pytest.fixture
def asked(psp: Any, tmp_path: Path) -> Asked:
    psp.record.write(tmp_path / "c.json")
    return Asked(tmp_path / "c.json", psp.fp32, CONFIG, select_images(psp.train, CONFIG))


def info(fp32: Artifact, **changes: Any) -> Artifact:
    return dataclasses.replace(fp32, info=fp32.info.model_copy(update=changes))


def with_image(selection: Selection, **changes: Any) -> Selection:
    return dataclasses.replace(selection, images=(dataclasses.replace(selection.images[0], **changes), *selection.images[1:]))


def test_the_same_is_reused(asked: Asked, psp: Any) -> None:
    assert asked.again() == psp.record
    assert asked.again(target="tensorrt") == psp.record  # one calibration serves every target


CHANGES: dict[str, tuple[str, Callable[[Asked], dict[str, Any]]]] = {
    "method": ("method", lambda a: {"config": a.config.model_copy(update={"method": "mse"})}),
    "seed": ("seed", lambda a: {"config": a.config.model_copy(update={"seed": 1})}),
    "an image's content": ("content of the images changed", lambda a: {"selection": with_image(a.selection, sha256="0" * 64)}),
    "an image's name": ("content of the images changed", lambda a: {"selection": with_image(a.selection, name="other")}),
    "fewer images": (
        "content of the images changed",
        lambda a: {"selection": dataclasses.replace(a.selection, images=a.selection.images[:-1])},
    ),
    "held-out images": ("images to score on", lambda a: {"selection": dataclasses.replace(a.selection, scored_on=())}),
    "how images were chosen": ("choice of images", lambda a: {"selection": dataclasses.replace(a.selection, chosen_by="seed")}),
    "split": ("split", lambda a: {"split": "trainval"}),
    "weights": ("student's weights", lambda a: {"fp32": info(a.fp32, weights_sha256="1" * 64)}),
    "preprocessing": ("preprocessing", lambda a: {"fp32": info(a.fp32, preprocess=PreprocessSpec(size=(64, 96), pad_value=1))}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_noticed(asked: Asked, what: str, caplog: pytest.LogCaptureFixture) -> None:
    said, change = CHANGES[what]
    with caplog.at_level(logging.INFO):
        assert asked.again(**change(asked)) is None
    assert said in caplog.text and "calibrate: again, since" in caplog.text


def test_another_version_of_the_rule_is_noticed(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gddctl.export.calibration.reuse.RULE", RULE + 1)
    assert asked.again() is None


@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_other_settings_of_the_methods_are_noticed(asked: Asked, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gddctl.export.calibration.reuse.SETTINGS", {**SETTINGS, setting: 17.0})
    assert asked.again() is None


def test_other_tensors_are_noticed(asked: Asked, psp: Any, tmp_path: Path) -> None:
    """The same weights exported with a tensor under another name."""
    model = load_model(psp.fp32.path)
    old = model.graph.node[3].output[0]
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = "renamed" if name == old else name
    del model.graph.value_info[:]
    save_model(model, psp.fp32.info, tmp_path / "other.onnx")
    other = dataclasses.replace(psp.fp32, path=tmp_path / "other.onnx", sha256=sha256_file(tmp_path / "other.onnx"))
    assert asked.again(fp32=other) is None


def test_the_first_target_matters_to_auto_alone(asked: Asked, psp: Any) -> None:
    auto = CONFIG.model_copy(update={"method": "auto"})
    dataclasses.replace(psp.record, method="auto", scored_for="ort-cpu").write(asked.path)
    assert asked.again(config=auto) is not None
    assert asked.again(config=auto, target="tensorrt") is None


@pytest.mark.parametrize("content", [None, "", "{}", '{"schema": 1}', "[1]", "{"])
def test_no_record_or_a_broken_one_is_made_again(asked: Asked, content: str | None) -> None:
    asked.path.unlink()
    if content is not None:
        asked.path.write_text(content)
    assert asked.again() is None


def test_a_hand_edited_record_is_made_again(asked: Asked) -> None:
    text = asked.path.read_text()
    asked.path.write_text(text.replace('"seed": 0', '"seed": 3'))
    assert text != asked.path.read_text()
    assert asked.again(config=CONFIG.model_copy(update={"seed": 3})) is None


def test_one_call_calibrates_once(psp: Any, tmp_path: Path) -> None:
    path, shown = tmp_path / "c.json", list[int]()

    def call(seed: int) -> Any:
        config = CONFIG.model_copy(update={"seed": seed})
        return calibrate_or_reuse(path, psp.fp32, psp.train, config, held_out=psp.val, progress=lambda done, of: shown.append(done))

    first = call(0)
    assert first == psp.record and shown == [1, 2, 3, 4, 5, 6]
    assert call(0) == first and len(shown) == 6  # nothing was shown again
    assert call(1) != first and len(shown) == 12
