"""A teacher that knows the dataset's classes in another order, or more of them, teaches as if it had been trained on the dataset."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from gddctl.core.artifact.card import WEIGHTS_NAME
from gddctl.core.artifact.card_io import read_card
from gddctl.core.classes import ClassTable, SegClass
from gddctl.core.config.load import load_config
from gddctl.core.config.methods import Combined, Cwd, Kd
from gddctl.core.config.sections import DataConfig, NetworkConfig, SyntheticConfig
from gddctl.core.errors import ArtifactError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.open import open_dataset
from gddctl.data.synthetic import write_dataset
from gddctl.distill.job import TrainJob
from gddctl.distill.run import run_job
from gddctl.distill.teacher_cache import FOLDER
from gddctl.distill.teachers import Opened, open_teacher
from gddctl.models.checkpoint import empty_network, load_bundle, save_bundle
from gddctl.models.protocol import Batch
from gddctl.pipeline.judging import evaluate_on, evaluate_teacher_on
from gddctl.pipeline.pictures import draw
from gddctl.pipeline.preflight import look_ahead
from tests.distill.conftest import Heard

MakeJob = Callable[..., TrainJob]

DRAWN = SyntheticConfig(train_images=6, val_images=2, height=48, width=64)
METHOD = Combined(methods=(Cwd(), Kd(), Cwd(place="stage4")))
REPEATS = {"scale": (1.0, 1.0), "color": False, "flip": 0.5}
ROUNDING = 1e-5  # relative, of losses: the same sums of float32, in another order of channels or another layout


@pytest.fixture
def reversed_data(tmp_path: Path) -> DataConfig:
    """The teacher's own pixels, as files whose classes stand in the reverse order."""
    return _files(tmp_path / "reversed", lambda entries: entries[::-1])


@pytest.fixture
def fewer_data(tmp_path: Path) -> DataConfig:
    """The same, without the teacher's first two classes."""
    return _files(tmp_path / "fewer", lambda entries: entries[:1:-1])


def _files(root: Path, chosen: Callable[[list[SegClass]], list[SegClass]]) -> DataConfig:
    write_dataset(root, DRAWN)
    table = list(open_dataset(DataConfig(synthetic=DRAWN), "train").classes.classes)
    kept = chosen(table)
    entries = [{"id": index, "name": item.name, "source": [table.index(item)]} for index, item in enumerate(kept)]
    gone = [{"name": item.name, "ignore": True, "source": [table.index(item)]} for item in table if item not in kept]
    (root / "classes.yaml").write_text(yaml.safe_dump({"classes": [*entries, *gone]}))
    return DataConfig(layout="folder", root=root, preprocess=PreprocessSpec(size=(48, 64)))


def born_to(bundle: Path, data: DataConfig, copy: Path) -> Path:
    """``bundle`` with a classifier of the rows that ``data`` has, in its order: the teacher that was trained on it."""
    foreign, card = load_bundle(bundle)
    table = open_dataset(data, "train").classes
    rows = torch.tensor([card.classes.names.index(name) for name in table.names])
    state = {key: value[rows] if key.startswith("head.classifier.") else value for key, value in foreign.state_dict().items()}
    assert isinstance(card.network, NetworkConfig)
    model = empty_network("network", card.network, len(rows))
    model.load_state_dict(state)
    save_bundle(copy, model, card.model_copy(update={"classes": table}))
    return copy


def terms(job: TrainJob) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (job.out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key.startswith(("cwd", "kd"))} for row in rows if "kd" in row]


def opened(job: TrainJob, classes: ClassTable) -> Opened:
    found = open_teacher(job, classes, torch.device("cpu"))
    assert found is not None
    return found


@pytest.mark.parametrize("dropped", [False, True])
def test_a_student_learns_as_from_a_teacher_of_its_own_classes(
    make_job: MakeJob, teacher_bundle: Path, reversed_data: DataConfig, fewer_data: DataConfig, tmp_path: Path, dropped: bool
) -> None:
    data = fewer_data if dropped else reversed_data
    own = born_to(teacher_bundle, data, tmp_path / "own")
    jobs = []
    for name, teacher in (("foreign", teacher_bundle), ("born", own)):
        fields = {"method": METHOD, "teacher": teacher, "drop_classes": dropped}
        job = make_job(tmp_path / name, role="student", data=data, job=fields, iterations=2, val_every=2, log_every=1)
        heard = Heard()
        run_job(job, heard)
        said = [note for note in heard.said if "are taken by name, in the dataset's order" in note]
        assert len(said) == (name == "foreign")
        assert not said or ("; left out: " in said[0]) == dropped
        jobs.append(job)
    foreign, born = (terms(job) for job in jobs)
    assert len(foreign) == 2 and all(len(row) == 3 for row in foreign)
    assert all(foreign[at][key] == pytest.approx(born[at][key], rel=ROUNDING) for at in range(2) for key in foreign[at])
    record = read_card(jobs[0].bundle).teacher
    assert record is not None and record.dropped == (read_card(teacher_bundle).classes.names[:2] if dropped else ())


def test_without_a_match_the_answers_would_be_other_ones(
    make_job: MakeJob, teacher_bundle: Path, reversed_data: DataConfig, tmp_path: Path
) -> None:
    """The partner: taken as they are, the logits are those of other classes."""
    job = make_job(tmp_path, role="student", data=reversed_data, job={"method": Kd(), "teacher": teacher_bundle})
    table = open_dataset(reversed_data, "train").classes
    batch = Batch(torch.rand(2, 3, 48, 64), torch.zeros(2, 48, 64, dtype=torch.int64))
    own, found = opened(job, read_card(teacher_bundle).classes), opened(job, table)
    assert own.order is None and own.matched == "" and found.order == tuple(reversed(range(len(table))))
    assert torch.equal(found.teacher(batch).logits, own.teacher(batch).logits.flip(1))
    assert not torch.allclose(found.teacher(batch).logits, own.teacher(batch).logits)
    features = found.teacher(batch).features
    assert all(torch.equal(features[name], feature) for name, feature in own.teacher(batch).features.items())


def test_names_that_differ_in_case_alone_change_nothing(make_job: MakeJob, teacher_bundle: Path, tmp_path: Path) -> None:
    model, card = load_bundle(teacher_bundle)
    shouted = ClassTable(classes=tuple(item.model_copy(update={"name": item.name.upper()}) for item in card.classes.classes))
    save_bundle(tmp_path / "loud", model, card.model_copy(update={"classes": shouted}))
    weights = []
    for name, bundle in (("a", teacher_bundle), ("b", tmp_path / "loud")):
        fields = {"method": METHOD, "teacher": bundle}
        job = make_job(tmp_path / name, role="student", job=fields, iterations=2, val_every=2)
        assert opened(job, card.classes).order is None
        weights.append(load_file(run_job(job, Heard()) / WEIGHTS_NAME))
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_kept_answers_are_of_the_datasets_classes(
    make_job: MakeJob, teacher_bundle: Path, reversed_data: DataConfig, fewer_data: DataConfig, tmp_path: Path
) -> None:
    jobs = {}
    for name, cache in (("plain", "none"), ("kept", "exact")):
        fields = {"method": METHOD, "teacher": teacher_bundle, "cache_teacher": cache}
        jobs[name] = make_job(tmp_path / name, role="student", data=reversed_data, job=fields, iterations=12, val_every=12, **REPEATS)
        run_job(jobs[name], Heard())
    plain, kept = (load_file(job.bundle / WEIGHTS_NAME) for job in jobs.values())
    assert all(torch.equal(plain[key], kept[key]) for key in plain)
    # Answers to the same pixels of the same weights, of other classes: a folder of their own.
    job = jobs["kept"].model_copy(update={"data": fewer_data, "drop_classes": True, "role": "baseline"})
    run_job(job, Heard())
    assert len(list((job.out / FOLDER).iterdir())) == 2


def test_other_classes_are_refused_with_both_lists(make_job: MakeJob, teacher_bundle: Path, fewer_data: DataConfig, tmp_path: Path) -> None:
    card = read_card(teacher_bundle)
    job = make_job(tmp_path, role="student", data=fewer_data, job={"method": Kd(), "teacher": teacher_bundle})
    first, second = card.classes.names[:2]
    with pytest.raises(
        ArtifactError, match=rf"knows 11 classes .* the dataset has 9 .*only in the teacher: {first}, {second}; .*teacher\."
    ):
        run_job(job, Heard())
    strange = ClassTable(classes=(*card.classes.classes, SegClass(name="boat", color=(0, 0, 0))))
    with pytest.raises(ArtifactError, match="only in the dataset: boat; only in the teacher: none"):
        open_teacher(job, strange, torch.device("cpu"))


def test_a_run_looks_ahead_by_the_rule_of_each_role(
    teacher_bundle: Path, reversed_data: DataConfig, fewer_data: DataConfig, tmp_path: Path
) -> None:
    def look(data: DataConfig, **more: object) -> None:
        base = {"data": {"layout": "folder", "root": str(data.root), "preprocess": {"size": [48, 64]}}, **more}
        look_ahead(load_config(None, base=base), ("teacher", "baseline", "student"))

    look(reversed_data, teacher={"bundle": str(teacher_bundle)})
    look(fewer_data, teacher={"bundle": str(teacher_bundle), "drop_classes": True})
    with pytest.raises(ArtifactError, match=r"set teacher\.drop_classes: true"):
        look(fewer_data, teacher={"bundle": str(teacher_bundle)})
    with pytest.raises(ArtifactError, match="the same classes in the same order"):  # a student goes on from its own
        look(reversed_data, teacher={"bundle": str(teacher_bundle)}, student={"init": str(teacher_bundle), "encoder": "tu-test_resnet"})


def test_a_run_scores_and_draws_it_on_the_datasets_classes(
    teacher_bundle: Path, reversed_data: DataConfig, fewer_data: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gddctl.runtime.torch_runtime.usable_cores", lambda: 1)  # the cores are shared
    drawn = DataConfig(synthetic=DRAWN, preprocess=PreprocessSpec(size=(48, 64)))
    here, there = evaluate_on(teacher_bundle, drawn, split="val"), evaluate_teacher_on(teacher_bundle, reversed_data, split="val")
    assert there.per_class == here.per_class and list(there.per_class) == list(here.per_class)[::-1] and there.images == here.images
    with pytest.raises(ArtifactError, match="drop_classes"):
        evaluate_teacher_on(teacher_bundle, fewer_data, split="val")
    fewer = evaluate_teacher_on(teacher_bundle, fewer_data, split="val", drop_classes=True)
    assert list(fewer.per_class) == list(there.per_class)[:9]
    born = born_to(teacher_bundle, fewer_data, tmp_path / "own")
    assert fewer.per_class == evaluate_on(born, fewer_data, split="val").per_class
    for name, bundle in (("a", teacher_bundle), ("b", born)):
        draw(tmp_path / name, fewer_data, {"teacher": bundle}, drop_classes=True)
    pictures = [{path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.png")} for name in ("a", "b")]
    assert pictures[0] and pictures[0] == pictures[1]
