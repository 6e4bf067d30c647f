"""Which logits of a teacher's bundle are the dataset's classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gddctl.core.artifact.card import Card, Origin, TeacherRecord, TrainingRecord, as_teacher
from gddctl.core.artifact.teaching import class_order, left_out
from gddctl.core.classes import ClassTable, SegClass
from gddctl.core.config.label_assisted import TeacherKind
from gddctl.core.config.load import load_config, to_settings
from gddctl.core.config.sections import DataConfig, NetworkConfig
from gddctl.core.errors import ArtifactError, ConfigError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.pipeline.settings import Flags, resolve


def table(*names: str) -> ClassTable:
    return ClassTable(classes=tuple(SegClass(name=name, color=(1, 2, 3)) for name in names))


def card(*names: str, kind: TeacherKind = "network") -> Card:
    training = TrainingRecord(iterations=1, best_iteration=1, seconds=0.0, images_seen=1, seed=0, devices=1, precision="fp32")
    return Card(
        name="big", role="teacher", kind=kind, network=NetworkConfig(), parameters=1, classes=table(*names), data=DataConfig(),
        preprocess=PreprocessSpec(size=(48, 64)), weights_sha256="a", config_digest="", training=training, gddctl_version="0",
    )  # fmt: skip


def test_classes_are_found_by_name() -> None:
    teacher = card("Sky", "traffic_light", "road")
    assert class_order(teacher, table("road", "sky", "Traffic Light"), who="t", drop=False) == (2, 0, 1)
    assert class_order(teacher, table("sky", "trafficlight", "ROAD"), who="t", drop=False) is None  # nothing to gather


def test_the_very_same_names_need_no_match() -> None:
    """A dataset may have two classes that differ in case alone; its own teacher knows which is which."""
    assert class_order(card("car", "Car"), table("car", "Car"), who="t", drop=False) is None
    for theirs, ours in ((("car", "Car"), ("Car", "car")), (("car", "sky"), ("car", "Car"))):
        with pytest.raises(ArtifactError, match="the same but for case, spaces and underscores: (car, Car|Car, car)"):
            class_order(card(*theirs), table(*ours), who="t", drop=True)


def test_a_mismatch_lists_both_and_names_the_bundles_own_key() -> None:
    with pytest.raises(ArtifactError) as caught:
        class_order(card("sky", "boat"), table("sky", "car"), who="teacher runs/t", drop=True)
    assert "teacher runs/t knows 2 classes (sky, boat) and the dataset has 2 (sky, car); only in the dataset: car" in str(caught.value)
    assert "classes.yaml" in str(caught.value) and "external" not in str(caught.value)
    with pytest.raises(ArtifactError, match=r"only in the teacher: boat; to leave those out set teacher\.drop_classes: true") as more:
        class_order(card("sky", "boat"), table("sky"), who="t", drop=False)
    assert more.value.exit_code == 5


def test_classes_that_only_the_teacher_has_are_left_out_on_demand() -> None:
    teacher = card("boat", "road", "sky")
    order = class_order(teacher, table("sky", "road"), who="t", drop=True)
    assert order == (2, 1) and left_out(teacher, order) == ("boat",) and left_out(teacher, None) == ()
    assert class_order(card("road", "sky", "boat"), table("road", "sky"), who="t", drop=True) == (0, 1)  # in order, but not all


@pytest.mark.parametrize("kind", ["label_assisted", "smoothed_labels"])
def test_a_teacher_that_reads_ids_needs_the_very_order(kind: TeacherKind) -> None:
    assert class_order(card("road", "sky", kind=kind), table("road", "sky"), who="t", drop=False) is None
    with pytest.raises(ArtifactError, match=rf"t is of kind '{kind}' and reads the ids of labels: .*\(road, sky\).*\(sky, road\)"):
        class_order(card("road", "sky", kind=kind), table("sky", "road"), who="t", drop=True)


def test_the_students_card_says_what_was_left_out_and_else_what_it_always_said() -> None:
    plain = as_teacher(card("sky"))
    assert plain.model_dump() == {"name": "big", "source": "gddctl", "licence": "unknown", "sha256": "a"}
    told = as_teacher(card("sky", "boat"), ("boat",))
    assert json.loads(told.model_dump_json())["dropped"] == ["boat"]
    assert TeacherRecord.model_validate_json(told.model_dump_json()) == told
    origin = Origin(kind="mmseg", file="net.pth", sha256="b", classes=("sea", "sky", "boat"), dropped=("sea",))
    imported = card("sky", "boat").model_copy(update={"origin": origin})
    assert as_teacher(imported, ("boat",)).dropped == ("sea", "boat")


def test_the_key_is_of_a_bundle_and_younger_than_runs_without_it(tmp_path: Path) -> None:
    assert "drop_classes" not in to_settings(load_config(None))["teacher"]
    given = ["teacher.bundle=x", "teacher.drop_classes=true"]
    assert to_settings(load_config(None, given))["teacher"]["drop_classes"] is True
    with pytest.raises(ConfigError, match=r"external\.drop_classes"):
        load_config(None, ["teacher.external={kind: smp, path: x}", "teacher.drop_classes=true"])
    (tmp_path / "c.yaml").write_text("teacher: {bundle: x, drop_classes: true}\n")  # of that teacher, not of the flag's
    assert not resolve(tmp_path / "c.yaml", (), Flags(teacher=tmp_path / "y")).teacher.drop_classes
    assert resolve(tmp_path / "c.yaml", ["teacher.drop_classes=true"], Flags(teacher=tmp_path / "y")).teacher.drop_classes
