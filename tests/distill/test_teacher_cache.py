"""A teacher's answers kept on disk: the same training without the teacher, refused where no crop comes twice."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gddctl.core.artifact.card import WEIGHTS_NAME
from gddctl.core.config.load import load_config
from gddctl.core.config.methods import Cirkd, Combined, Cwd, Kd, Method, NoMethod
from gddctl.core.config.sections import NetworkConfig, TrainConfig
from gddctl.core.errors import ConfigError, RunFailed
from gddctl.distill.answers import AnswerStore
from gddctl.distill.job import TrainJob
from gddctl.distill.methods.build import build_distiller
from gddctl.distill.methods.places import LOGITS, Asked, take
from gddctl.distill.progress import SilentReporter
from gddctl.distill.run import run_job
from gddctl.distill.teacher_cache import FOLDER, CachedTeacher, require_repeating, with_cache
from gddctl.models.protocol import Batch, Outputs
from gddctl.models.segmenter import build_segmenter
from gddctl.models.teacher import FrozenTeacher
from gddctl.pipeline.preflight import look_ahead

MakeJob = Callable[..., TrainJob]

REPEATS = {"scale": (1.0, 1.0), "color": False, "flip": 0.5}
METHOD = Combined(methods=(Cwd(place="stage4"), Kd()))


class Notes(SilentReporter):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def job_in(make_job: MakeJob, teacher_bundle: Path) -> Callable[..., TrainJob]:
    """A student's job of four epochs on pairs that repeat."""

    def make(out: Path, cache: str, **train: object) -> TrainJob:
        fields = {"method": METHOD, "teacher": teacher_bundle, "cache_teacher": cache}
        settings = {**REPEATS, "iterations": 12, "val_every": 12, "checkpoint_every": 12, **train}
        return make_job(out, role="student", job=fields, **settings)

    return make


def weights(job: TrainJob) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(job.bundle / WEIGHTS_NAME)
    return found


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def deaf(self: FrozenTeacher, batch: Batch) -> Outputs:
    if len(batch.images) == 1:  # the question after the size of an answer
        return answers(self, batch)
    raise AssertionError("the teacher was asked")


answers = FrozenTeacher.__call__


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_training_is_the_same_and_the_teacher_is_not_asked_again(
    job_in: Callable[..., TrainJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    plain, cached, again = (
        job_in(tmp_path / name, cache, precision=precision) for name, cache in (("a", "none"), ("b", "exact"), ("c", "exact"))
    )
    notes = Notes()
    run_job(plain, SilentReporter())
    run_job(cached, notes)
    assert same(weights(plain), weights(cached))
    assert any("logits, stage4" in note and "at most 12 of" in note for note in notes.said)  # six images, each flipped or not
    kept = [path for path in (cached.out / FOLDER).rglob("*") if path.is_file()]
    assert 6 <= len(kept) <= 12
    shutil.copytree(cached.out / FOLDER, again.out / FOLDER)
    with monkeypatch.context() as patch:
        patch.setattr(FrozenTeacher, "__call__", deaf)
        run_job(again, SilentReporter())
    assert same(weights(plain), weights(again))


def test_a_teacher_that_is_asked_would_show(job_in: Callable[..., TrainJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrozenTeacher, "__call__", deaf)
    with pytest.raises(AssertionError, match="was asked"):
        run_job(job_in(tmp_path, "exact"), SilentReporter())


def test_a_loader_process_names_the_images_alike(job_in: Callable[..., TrainJob], tmp_path: Path) -> None:
    names = []
    for workers in (0, 1):
        job = job_in(tmp_path / str(workers), "exact", workers=workers, iterations=3, val_every=3)
        run_job(job, SilentReporter())
        names.append({path.relative_to(job.out) for path in (job.out / FOLDER).rglob("*") if path.is_file()})
    assert names[0] == names[1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_float16_does_not_depend_on_what_was_kept(
    job_in: Callable[..., TrainJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    wanted = {"cold": "float16", "warm": "float16", "exact": "none"}
    cold, warm, exact = (job_in(tmp_path / name, cache, precision=precision, iterations=6) for name, cache in wanted.items())
    for job in (cold, exact):
        run_job(job, SilentReporter())
    shutil.copytree(cold.out / FOLDER, warm.out / FOLDER)
    monkeypatch.setattr(FrozenTeacher, "__call__", deaf)
    run_job(warm, SilentReporter())
    assert same(weights(cold), weights(warm))
    assert precision == "bf16" or not same(weights(cold), weights(exact))  # bfloat16 fits into float16


def test_identities_say_what_changes_a_training(job_in: Callable[..., TrainJob], tmp_path: Path) -> None:
    plain, exact, half = (job_in(tmp_path, cache).identity() for cache in ("none", "exact", "float16"))
    assert plain == exact
    assert half == {**plain, "cache_teacher": "float16"}
    assert {"teacher_precision", "cache_teacher", "cache_limit_gb"} & plain.keys() == set()
    assert {"compile", "track"} & plain["train"].keys() == set()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"scale": (0.5, 2.0)}, r"train\.scale is \[0\.5, 2\.0\], expected \[1, 1\]"),
        ({"crop": (32, 64)}, r"train\.crop is \[32, 64\], expected the whole image, \[48, 64\]"),
        ({"color": True}, r"train\.color is true"),
    ],
)
def test_crops_that_never_repeat_are_refused(
    job_in: Callable[..., TrainJob], tmp_path: Path, setting: dict[str, object], says: str
) -> None:
    job = job_in(tmp_path, "exact", **setting)
    with pytest.raises(ConfigError, match=says) as caught:
        run_job(job, SilentReporter())
    assert "no training crop comes twice" in str(caught.value)
    assert not (tmp_path / FOLDER).exists()


def test_it_is_refused_before_a_teacher_is_trained() -> None:
    config = load_config(None, ["distill.cache_teacher=exact"])
    with pytest.raises(ConfigError, match="no training crop comes twice"):
        look_ahead(config, ("teacher", "baseline", "student"))
    look_ahead(config, ("teacher",))


def test_a_teacher_that_reads_labels_is_refused(job_in: Callable[..., TrainJob], tmp_path: Path) -> None:
    opened = SimpleNamespace(card=SimpleNamespace(kind="label_assisted"))
    job, cpu = job_in(tmp_path, "exact"), torch.device("cpu")
    with pytest.raises(ConfigError, match="of kind 'label_assisted' follow from the labels"):
        with_cache(opened, job, frozenset(), images=1, device=cpu, precision=nullcontext, note=print)  # type: ignore[arg-type]


def test_what_repeats_is_allowed() -> None:
    require_repeating(TrainConfig(scale=(1.0, 1.0), color=False, crop=(48, 64)), (48, 64))


def test_a_cache_above_its_limit_is_refused_with_both_numbers(job_in: Callable[..., TrainJob], tmp_path: Path) -> None:
    job = job_in(tmp_path, "exact").model_copy(update={"cache_limit_gb": 1e-6})
    with pytest.raises(ConfigError, match=r"12 answers of 0\.\d\d MB need 0\.\d\d GB, more than distill\.cache_limit_gb \(1e-06\)"):
        run_job(job, SilentReporter())


def test_what_breaks_a_file_counts_as_not_there(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path)
    key, value = "abcdef", {"logits": torch.arange(6.0).reshape(1, 2, 3)}
    assert store.read(key) is None
    store.write(key, value)
    assert same(store.read(key) or {}, value)
    (path,) = (item for item in tmp_path.rglob("*") if item.is_file())
    whole = path.read_bytes()
    for broken in (b"", whole[:3], whole[:-5], whole[:-1] + bytes([whole[-1] ^ 1]), bytes(len(whole))):
        path.write_bytes(broken)
        assert store.read(key) is None
    store.write(key, value)
    assert path.read_bytes() == whole
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def _write_many(folder: Path) -> None:
    store = AnswerStore(folder)
    for index in range(50):
        store.write(f"key{index}", {"logits": torch.full((1000,), float(index))})


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(tmp_path,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    for index in range(50):
        found = AnswerStore(tmp_path).read(f"key{index}")
        assert found is not None
        assert bool((found["logits"] == index).all())


class Fixed:
    """A teacher with one answer."""

    feature_channels: Mapping[str, int] = {}

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, batch: Batch) -> Outputs:
        maps = torch.full((len(batch.images), 2, 3, 4), self.value).to(memory_format=torch.channels_last)
        return Outputs(logits=maps[:, :1], features={"stage4": maps, "stage3": maps})


def asked(count: int) -> Batch:
    return Batch(torch.zeros(count, 3, 8, 8), torch.zeros(count, 8, 8), keys=[f"key{index}" for index in range(count)])


def test_answers_come_back_as_they_lay_in_memory(tmp_path: Path) -> None:
    teacher = CachedTeacher(Fixed(0.1), AnswerStore(tmp_path), frozenset({"stage4"}), half=False, note=print)  # type: ignore[arg-type]
    first, second = teacher(asked(2)), teacher(asked(2))
    assert (teacher.computed, teacher.remembered) == (2, 2)
    assert list(second.features) == ["stage4"]
    assert second.features["stage4"].stride() == first.features["stage4"].stride()
    assert torch.equal(first.features["stage4"], second.features["stage4"])
    teacher(asked(3))  # one is missing: all three are computed
    assert (teacher.computed, teacher.remembered) == (5, 2)


def test_a_disk_that_fills_up_ends_the_keeping_not_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: AnswerStore, key: str, tensors: Mapping[str, Tensor]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AnswerStore, "write", full)
    notes: list[str] = []
    teacher = CachedTeacher(Fixed(0.1), AnswerStore(tmp_path), frozenset(), half=False, note=notes.append)  # type: ignore[arg-type]
    for _ in range(3):
        teacher(asked(2))
    assert len(notes) == 1
    assert "No space left" in notes[0]


def test_a_value_beyond_float16_is_an_error(tmp_path: Path) -> None:
    teacher = CachedTeacher(Fixed(1e6), AnswerStore(tmp_path), frozenset(), half=True, note=print)  # type: ignore[arg-type]
    with pytest.raises(RunFailed, match="beyond float16"):
        teacher(asked(2))


def kinds() -> list[Method]:
    """Every method of the union as it is by default, its memories small."""
    union, *_ = get_args(Method)
    made: list[Method] = [kind() for kind in get_args(union) if kind not in (NoMethod, Combined, Cirkd)]
    return [*made, Cirkd(pixel_queue=40, region_queue=20, pixel_samples=30, region_samples=15), METHOD]


@pytest.mark.parametrize("method", kinds(), ids=lambda method: method.kind)
def test_a_method_reads_what_it_asked_the_channels_of(method: Method) -> None:
    torch.manual_seed(0)
    student = build_segmenter(NetworkConfig(encoder="tu-test_resnet", output_stride=16), 3, aux=False)
    teacher = FrozenTeacher(build_segmenter(NetworkConfig(encoder="tu-test_resnet", output_stride=32), 3, aux=False))
    own = {**student.feature_channels, LOGITS: 3}
    wanted = Asked({**teacher.feature_channels, LOGITS: 3})
    distiller = build_distiller(method, own, wanted)
    assert distiller is not None
    batch = Batch(torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64)))
    outputs, whole = student(batch.images), teacher(batch)
    read = {place: take(whole, place) for place in wanted.places - {LOGITS}}
    assert 0 < len(wanted.places) < len(own)
    assert all(
        bool(torch.isfinite(term)) for term in distiller(outputs, Outputs(logits=whole.logits, features=read), batch.labels).values()
    )
    for place in read:
        fewer = {name: tensor for name, tensor in read.items() if name != place}
        with pytest.raises(KeyError):
            distiller(outputs, Outputs(logits=whole.logits, features=fewer), batch.labels)


@pytest.mark.slow
def test_two_training_processes_share_a_cache(job_in: Callable[..., TrainJob], tmp_path: Path) -> None:
    plain, cached = (job_in(tmp_path / cache, cache, devices=2, iterations=6, val_every=6) for cache in ("none", "exact"))
    notes = Notes()
    run_job(plain, SilentReporter())
    run_job(cached, notes)
    assert same(weights(plain), weights(cached))
    assert sum("answers" in note for note in notes.said) == 1
    assert any(path.is_file() for path in (cached.out / FOLDER).rglob("*"))
