"""The facts of a model for people: complete where something is known, n/a where not, limits computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gddctl.core.artifact.calibration import CalibrationImage, CalibrationRecord
from gddctl.core.artifact.card import Card, Origin, TeacherRecord, TrainingRecord
from gddctl.core.artifact.info import ModelInfo
from gddctl.core.classes import ClassTable, SegClass
from gddctl.core.config.sections import DataConfig, Limits, NetworkConfig
from gddctl.core.preprocess import PreprocessSpec
from gddctl.core.reports.evaluation import EvalReport
from gddctl.core.reports.latency import LatencyReport, LatencyRow
from gddctl.core.reports.model_card import Section, model_card, preprocessing
from gddctl.core.reports.model_facts import FileFacts, Known
from gddctl.core.reports.model_limits import limits_of
from gddctl.core.reports.parity import ParityReport, Rung

CLASSES = ClassTable(
    classes=(SegClass(name="road", color=(1, 2, 3)), SegClass(name="tree", color=(4, 5, 6)), SegClass(name="bus", color=(7, 8, 9)))
)
SPEC = PreprocessSpec(size=(180, 240))
TRAINING = TrainingRecord(
    iterations=400, best_iteration=300, seconds=90.0, images_seen=3200, seed=7, devices=1, precision="bf16",
    method={"kind": "gdd", "weight": 2.0}, teacher_weights_sha256="e" * 64,
)  # fmt: skip
CARD = Card(
    name="demo", role="student", network=NetworkConfig(), differs_from_paper=("The stem is other.",), parameters=12_345, classes=CLASSES,
    preprocess=SPEC, data=DataConfig(layout="camvid", root=Path("/somewhere/private/camvid")), weights_sha256="a" * 64,
    config_digest="c" * 64, training=TRAINING,
    teacher=TeacherRecord(name="big.pth", source="mmseg", licence="unknown", sha256="b" * 64), licence="MIT",
    gddctl_version="0.1.0",
)  # fmt: skip
SCORE = EvalReport("demo", "a" * 64, "val", 101, "single scale", 0.5, 0.8, 0.6, {"road": 0.9, "tree": 0.1, "bus": None})
INT8 = FileFacts(
    "demo-int8-ort-cpu.logits.onnx", "1" * 64, 12_300_000, "logits", "int8", "ort-cpu", {"conv.int8": 25, "conv.float": 1, "nodes": 0}
)
RUNG = Rung(
    "demo-fp32", "demo-int8", "0" * 64, "1" * 64, "int8", 101, 0.9984, 0.5, 0.499, None, None, None, None, None, None, 0,
    Limits(min_agreement=0.97),
)  # fmt: skip
ROW = LatencyRow(
    "demo-int8", "1" * 64, "onnxruntime-cpu", "logits", "int8", "ort-cpu", 1, (180, 240), 8.5, 9, 9, 10, 8.6, 0.1, 8.2, 200, 50,
    0.2, (8.5,), 0.499,
    {"cpu": "Made-Up CPU"},
)  # fmt: skip
ALL = Known(
    card=CARD, files=(INT8,), scores={"a" * 64: SCORE, "1" * 64: dataclasses.replace(SCORE, miou=0.499)}, parity=ParityReport((RUNG,)),
    latency=LatencyReport((ROW,)),
)  # fmt: skip


def rows(sections: tuple[Section, ...], title: str) -> dict[str, str]:
    return dict(next(section.rows for section in sections if section.title == title))


def test_a_card_tells_everything_that_is_known() -> None:
    card = model_card(ALL)
    assert [section.title for section in card] == [
        "Intended use", "Network", "Preprocessing", "Data", "Training", "Teacher", "Scores", "Files", "Limits: what is not known",
    ]  # fmt: skip
    network = rows(card, "Network")
    assert network["parameters"] == "12,345" and network["differs from the paper"] == "The stem is other."
    assert network["classes"] == "0 road, 1 tree, 2 bus" and "float32 (batch, 3, 180, 240)" in network["input"]
    assert rows(card, "Training")["distillation"] == "kind gdd, weight 2.0"
    assert rows(card, "Teacher") == {
        "name": "big.pth", "source": "a checkpoint of mmseg", "licence": "unknown", "SHA-256 of the weights": "e" * 64,
    }  # fmt: skip
    scores = rows(card, "Scores")
    assert (
        scores["mIoU"] == "50.00 %"
        and scores["protocol"] == "single scale"
        and scores["IoU by class, %"] == "road 90.00, tree 10.00, bus n/a"
    )
    (file,) = rows(card, "Files").values()
    for words in (
        "12.30 MB",
        "mIoU 49.90 %",
        "99.8400 % of pixels as demo-fp32, passed",
        "p50 8.50 ms on onnxruntime-cpu",
        "conv.int8 25",
        "1" * 64,
    ):
        assert words in file, words
    assert "nodes" not in file  # none of that kind
    assert rows(card, "Intended use")["licence"] == "MIT"


def test_a_card_tells_which_of_the_teachers_classes_the_dataset_lacks() -> None:
    assert "classes left out" not in rows(model_card(ALL), "Teacher")
    assert ALL.card is not None and ALL.card.teacher is not None
    teacher = ALL.card.teacher.model_copy(update={"dropped": ("rider", "sky")})
    card = model_card(dataclasses.replace(ALL, card=ALL.card.model_copy(update={"teacher": teacher})))
    assert rows(card, "Teacher")["classes left out"] == "rider, sky"


def test_a_card_does_not_say_where_the_data_lay() -> None:
    words = str(model_card(ALL))
    assert "camvid" in words and "private" not in words


def test_what_nobody_measured_is_na_and_told_as_a_limit() -> None:
    bare = Known(card=CARD, files=(INT8,))
    assert rows(model_card(bare), "Scores") == {"mIoU": "n/a"}
    (file,) = rows(model_card(bare), "Files").values()
    assert "mIoU n/a" in file and "latency n/a" in file
    limits = " ".join(limits_of(bare))
    for words in ("Accuracy was not measured.", "Latency not measured: demo-int8", "Not compared with what it was made from: demo-int8"):
        assert words in limits, words


def test_limits_follow_from_the_numbers() -> None:
    limits = limits_of(ALL)
    assert "Hardly finds (IoU below 20 %): tree." in limits and "Not measured, because no image showed them: bus." in limits
    assert any("by which the best weights were chosen" in line for line in limits)
    assert any("Made-Up CPU" in line for line in limits) and "The licence of the teacher's weights is unknown." in limits
    assert not any("parity limits" in line or "Accuracy was not" in line for line in limits)
    broken = dataclasses.replace(ALL, parity=ParityReport((RUNG, dataclasses.replace(RUNG, agreement=0.9, emulated=True))))
    said = limits_of(broken)
    assert "Does not keep its parity limits: demo-int8-ort-cpu.logits.onnx." in said  # one of two rungs is enough
    assert any("imitates" in line for line in said)
    better = dataclasses.replace(SCORE, split="test", per_class={"road": 0.9, "tree": 0.5, "bus": 0.4})
    assert not any("Hardly" in line or "chosen" in line for line in limits_of(dataclasses.replace(ALL, scores={"a" * 64: better})))


def test_a_card_without_a_score_of_its_own_takes_the_one_it_carries() -> None:
    carried = CARD.model_copy(update={"evaluation": SCORE.to_json()})
    assert Known(card=carried).score == SCORE


def test_of_a_file_alone_what_it_says_of_itself_is_told() -> None:
    info = ModelInfo(
        name="demo", graph="deploy", precision="fp32", target="any", classes=CLASSES, preprocess=SPEC, architecture="pspnet-resnet18-s8",
        output_stride=8, weights_sha256="a" * 64,
    )  # fmt: skip
    file = FileFacts.of_info("demo.onnx", "2" * 64, None, info)
    known = Known(info=info, files=(file,), scores={"2" * 64: SCORE})
    card = model_card(known)
    assert [section.title for section in card] == [
        "Intended use",
        "Network",
        "Preprocessing",
        "Scores",
        "Files",
        "Limits: what is not known",
    ]
    assert rows(card, "Network")["architecture"] == "pspnet-resnet18-s8" and rows(card, "Scores")["mIoU"] == "50.00 %"
    assert "The licence of the weights is unknown." in limits_of(known)


def test_an_imported_network_says_whence_and_claims_no_training() -> None:
    origin = Origin(kind="smp", file="net.pth", sha256="d" * 64, classes=("road",))
    card = model_card(Known(card=CARD.model_copy(update={"origin": origin})))
    assert rows(card, "Network")["imported from"] == f"net.pth (smp), SHA-256 {'d' * 64}"
    assert "Training" not in [section.title for section in card]


def test_calibration_is_told_by_record_or_by_digest() -> None:
    with_digest = dataclasses.replace(INT8, calibration_sha256="9" * 64)
    assert rows(model_card(Known(card=CARD, files=(with_digest,))), "Calibration") == {"record": f"SHA-256 {'9' * 64}"}
    record = CalibrationRecord(
        method="auto", kept="mse", settings={}, seed=3, split="train", chosen_by="classes", preprocess_sha256="", weights_sha256="",
        images=(CalibrationImage("a", "b"),), scored_on=(), ranges={}, observed={},
    )  # fmt: skip
    told = rows(model_card(Known(card=CARD, calibration=record)), "Calibration")
    assert told["images"] == "1 of 'train', chosen by classes, seed 3" and told["method"] == "mse, the best of those that 'auto' compared"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resize": "letterbox", "pad_value": 7}, "padded with 7"),
        ({"resize": "stretch"}, "each side by its own factor"),
        ({"interpolation": "bilinear"}, "bilinear when shrinking"),
        ({"channel_order": "bgr"}, "blue, green, red"),
        ({"mean": (0.25, 0.5, 0.75)}, "minus mean (0.25, 0.5, 0.75)"),
        ({"size": (64, 96)}, "96 x 64"),
    ],
)
def test_preprocessing_follows_the_description(change: dict[str, object], words: str) -> None:
    said = " ".join(value for _, value in preprocessing(SPEC.model_copy(update=change)))
    assert words in said


def test_a_manifest_row_of_any_age_makes_a_file() -> None:
    assert FileFacts.of_row({"file": "a", "sha256": "b"}).bytes is None
    full = FileFacts.of_row(
        {"file": "a", "sha256": "b", "bytes": 3, "graph": "logits", "precision": "int8", "target": "any", "census": None}
    )
    assert full.census == {} and full.graph == "logits"
