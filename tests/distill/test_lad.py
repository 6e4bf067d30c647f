"""Label Assisted Distillation as trainings: stage A's loss, stage B's student, resuming, the controls, and the command line."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from gddctl.core.artifact.card import WEIGHTS_NAME
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.label_assisted import NoisingConfig, SmoothingConfig
from gddctl.core.config.load import load_config
from gddctl.core.config.methods import Cwd, Gdd, Kd
from gddctl.core.config.sections import NetworkConfig, RunConfig
from gddctl.core.errors import ConfigError
from gddctl.core.reports.evaluation import EvalReport
from gddctl.distill.dual_path import DualPathStep, agreement
from gddctl.distill.job import TrainJob
from gddctl.distill.losses import channel_kl
from gddctl.distill.progress import SilentReporter
from gddctl.distill.run import run_job
from gddctl.distill.teachers import open_teacher
from gddctl.models.label_assisted import LabelAssistedTeacher, LabelNoising, beside
from gddctl.models.protocol import Outputs
from gddctl.models.segmenter import build_segmenter
from gddctl.pipeline.training import job_of
from tests.distill.conftest import Crash, CrashAt, Heard, graph_of

MakeJob = Callable[..., TrainJob]
CLASSES, TEMPERATURE, CONSISTENCY, AUX = 3, 4.0, 5.0, 0.4  # the published three of stage A
EXACT = 1e-5  # float32 sums against float64 loops
GDDCTL = str(Path(sys.executable).with_name("gddctl"))


class Toy(nn.Module):
    """Four channels to logits at stride 4 and auxiliary ones at stride 8: linear, so that a loss can be followed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.side = nn.Conv2d(4, CLASSES, 4, stride=4), nn.Conv2d(4, CLASSES, 8, stride=8)

    def forward(self, x: Tensor) -> Outputs:
        return Outputs(logits=self.main(x), features={}, aux=self.side(x))


def toy_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, CLASSES, (2, 8, 16), generator=generator)
    y[:, :2] = 255
    return 3 * torch.randn(2, 3, 8, 16, generator=generator), y


def step_of(toy: nn.Module, **options: Any) -> DualPathStep:
    noising = LabelNoising(CLASSES, "random", 0.03, 1.7)
    return DualPathStep(toy, noising, AUX, None, **{"consistency": CONSISTENCY, "temperature": TEMPERATURE, **options})


# Stage A's loss


def slow_cross_entropy(logits: Tensor, y: Tensor) -> float:
    """Mean over labelled pixels of -log softmax, in float64."""
    wide = F.interpolate(logits, y.shape[-2:], mode="bilinear", align_corners=False).double()
    found = [
        math.log(sum(math.exp(wide[n, k, i, j]) for k in range(CLASSES))) - wide[n, int(y[n, i, j]), i, j].item()
        for n in range(y.shape[0])
        for i in range(y.shape[1])
        for j in range(y.shape[2])
        if y[n, i, j] != 255
    ]
    return sum(found) / len(found)


def slow_divergence(a: Tensor, b: Tensor) -> float:
    """``T^2 / (N K) sum KL(softmax over places of b / T || that of a / T)``."""
    total = 0.0
    for n in range(a.shape[0]):
        for k in range(CLASSES):
            rows = [[math.exp(value / TEMPERATURE) for value in x[n, k].flatten().double().tolist()] for x in (a, b)]
            q, p = ([value / sum(row) for value in row] for row in rows)
            total += sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True))
    return TEMPERATURE**2 * total / (a.shape[0] * CLASSES)


def test_stage_a_is_the_equation() -> None:
    torch.manual_seed(1)
    toy, (images, y) = Toy(), toy_batch()
    torch.manual_seed(2)
    terms = step_of(toy)(images, y)
    torch.manual_seed(2)
    noising = LabelNoising(CLASSES, "random", 0.03, 1.7)
    planes = [noising(y), noising(y)]
    with torch.no_grad():
        o1, o2 = (toy(beside(images, plane)) for plane in planes)
    ce = slow_cross_entropy(o1.logits, y) + slow_cross_entropy(o2.logits, y)
    aux = AUX * (slow_cross_entropy(o1.aux, y) + slow_cross_entropy(o2.aux, y))
    agree = CONSISTENCY * (slow_divergence(o1.logits, o2.logits) + slow_divergence(o2.logits, o1.logits))
    assert terms.keys() == {"ce", "aux", "consistency"}
    for name, wanted in {"ce": ce, "aux": aux, "consistency": agree}.items():
        assert terms[name].item() == pytest.approx(wanted, rel=EXACT), name
    assert agree > 0.01  # the two paths do differ, or nothing was compared


def test_agreement_is_zero_for_equal_logits_and_for_nothing_else() -> None:
    a = torch.randn(2, CLASSES, 4, 6)
    assert agreement(a, a, TEMPERATURE).item() == pytest.approx(0, abs=1e-6)
    assert agreement(a, a.flip(-1), TEMPERATURE).item() > 0.01


def test_each_term_gives_gradient_to_its_first_argument_alone() -> None:
    a, b = (torch.randn(2, CLASSES, 4, 6, dtype=torch.float64).requires_grad_() for _ in range(2))
    reached = torch.autograd.grad(channel_kl(a, b, TEMPERATURE), (a, b), allow_unused=True)
    assert [gradient is None for gradient in reached] == [False, True] and reached[0].abs().max() > 0
    found = torch.autograd.grad(agreement(a, b, TEMPERATURE), (a, b))
    for gradient, (x, target) in zip(found, ((a, b), (b, a)), strict=True):
        assert torch.allclose(gradient, torch.autograd.grad(channel_kl(x, target.detach(), TEMPERATURE), x)[0])


def test_agreement_may_leave_out_what_has_no_label() -> None:
    a, b = torch.randn(1, CLASSES, 4, 6), torch.randn(1, CLASSES, 4, 6)
    kept = torch.ones(1, 4, 6, dtype=torch.bool)
    kept[:, 2:] = False
    assert agreement(a, b, TEMPERATURE, kept).item() == pytest.approx(agreement(a[:, :, :2], b[:, :, :2], TEMPERATURE).item(), rel=EXACT)


@pytest.mark.parametrize("options", [{"joint": True}, {"consistency": 0.0}, {"labelled_only": True}], ids=str)
def test_options_of_stage_a(options: dict[str, Any]) -> None:
    torch.manual_seed(1)
    toy, (images, y) = Toy(), toy_batch()
    found = []
    for step in (step_of(toy), step_of(toy, **options)):
        torch.manual_seed(2)
        found.append({name: term.item() for name, term in step(images, y).items()})
    published, other = found
    if "joint" in options:  # without batch norm, one pass of both is two passes
        assert other == pytest.approx(published, rel=EXACT)
    elif "consistency" in options:
        assert other == {name: value for name, value in published.items() if name != "consistency"}
    else:
        assert other["ce"] == published["ce"] and other["consistency"] != published["consistency"]


# Trainings


@pytest.fixture(scope="module")
def teacher_job(make_job: MakeJob) -> Callable[..., TrainJob]:
    def make(out: Path, noising: NoisingConfig | None = None, **train: Any) -> TrainJob:
        fields = {"kind": "label_assisted", "noising": noising or NoisingConfig()}
        return make_job(out, role="teacher", job=fields, **{"iterations": 4, "val_every": 2, **train})

    return make


@pytest.fixture(scope="module")
def assisted(tmp_path_factory: pytest.TempPathFactory, teacher_job: Callable[..., TrainJob]) -> TrainJob:
    """A finished stage A, whose last validation is in the records."""
    job = teacher_job(tmp_path_factory.mktemp("assisted"), log_every=1)
    run_job(job, SilentReporter())
    return job


@pytest.fixture(scope="module")
def smoothed(tmp_path_factory: pytest.TempPathFactory, make_job: MakeJob) -> TrainJob:
    job = make_job(
        tmp_path_factory.mktemp("smoothed"), role="teacher", job={"kind": "smoothed_labels", "smoothing": SmoothingConfig(scale=20.0)}
    )
    run_job(job, SilentReporter())
    return job


def test_stage_a_leaves_its_card_and_names_what_it_scored(assisted: TrainJob, teacher_job: Callable[..., TrainJob], tmp_path: Path) -> None:
    card = read_card(assisted.bundle)
    assert card.kind == "label_assisted" and card.noising is not None
    assert card.noising.scale == pytest.approx(1.735, abs=1e-3)  # in numbers, whatever the next normalisation
    words = " ".join(card.differs_from_paper)
    assert "scaled by 1.74, not 100" in words and "12 even steps" in words and "published" not in words  # no option left the release
    assert card.evaluation is not None
    report = EvalReport.from_json(card.evaluation)
    assert report.condition == "with the label plane" and report.protocol.startswith("with the label plane (privileged")
    assert report.assisted is not None
    assert [score.plane for score in report.assisted.planes] == ["teaching", "training", "zero"]
    assert report.miou == report.assisted.planes[0].miou
    assert all(0 < score.entropy <= math.log(11) + 1e-6 for score in report.assisted.planes)
    rows = [json.loads(line) for line in (assisted.out / "metrics.jsonl").read_text().splitlines()]
    assert all({"ce", "aux", "consistency"} <= row.keys() for row in rows if "grad_norm" in row)
    assert all("miou_zero_plane" in row["val"] for row in rows if "val" in row)
    heard = Heard()
    run_job(teacher_job(tmp_path, iterations=2), heard)
    assert any("makes nothing of the label" in line for line in heard.said)  # after two steps
    assert any("with the label plane" in line and "with a zero plane" in line for line in heard.said)


def test_validation_in_training_is_what_the_bundle_is_judged_by(assisted: TrainJob) -> None:
    """Both see the same planes: each image's follow from its index."""
    card = read_card(assisted.bundle)
    rows = [json.loads(line) for line in (assisted.out / "metrics.jsonl").read_text().splitlines()]
    best = next(row["val"] for row in rows if "val" in row and row["step"] == card.training.best_iteration)
    assert card.evaluation is not None
    report = EvalReport.from_json(card.evaluation)
    assert report.miou == pytest.approx(best["miou"], abs=1e-9)
    assert report.assisted is not None
    blind = report.assisted.of("zero")
    assert blind is not None and blind.miou == pytest.approx(best["miou_zero_plane"], abs=1e-9)


@pytest.mark.parametrize("method", [Cwd(labelled_only=True), Gdd(weight=1.0)], ids=lambda method: method.kind)
def test_a_student_under_it_is_the_plain_student(make_job: MakeJob, assisted: TrainJob, tmp_path: Path, method: Any) -> None:
    fields = {"method": method, "teacher": assisted.bundle}
    job = make_job(tmp_path, role="student", job=fields, iterations=2, val_every=2, log_every=1)
    run_job(job, SilentReporter())
    card = read_card(job.bundle)
    assert (card.kind, card.noising, card.training.teacher_kind) == ("network", None, "label_assisted")
    assert card.training.teacher_noising == read_card(assisted.bundle).noising
    found, plain = load_file(job.bundle / WEIGHTS_NAME), build_segmenter(job.network, len(card.classes), aux=False).state_dict()
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in plain.items()}


def test_it_exports_to_the_plain_students_graph(make_job: MakeJob, assisted: TrainJob, tmp_path: Path) -> None:
    bundles = []
    for name, fields in {"plain": {}, "lad": {"method": Cwd(), "teacher": assisted.bundle}}.items():
        job = make_job(tmp_path / name, role="student", job=fields, iterations=1, val_every=1)
        bundles.append(run_job(job, SilentReporter()))
    plain, lad = (graph_of(bundle, tmp_path / f"{bundle.parent.name}.onnx") for bundle in bundles)
    assert lad == plain
    assert "dim_value: 3" in lad[2][0] and not {node[0] for node in lad[0]} & {"RandomNormal", "RandomNormalLike", "RandomUniform"}


@pytest.mark.slow
def test_another_network_has_another_graph(make_job: MakeJob, tmp_path: Path) -> None:
    """Partner of the test above: the comparison can fail."""
    graphs = []
    for stride in (16, 32):
        job = make_job(tmp_path / f"{stride}", job={"network": NetworkConfig(encoder="tu-test_resnet", output_stride=stride)}, iterations=1)
        graphs.append(graph_of(run_job(job, SilentReporter()), tmp_path / f"{stride}.onnx"))
    assert graphs[0] != graphs[1]


@pytest.mark.parametrize("stage", ["a", "b"])
def test_stopped_and_started_again_it_ends_the_same(
    make_job: MakeJob, teacher_job: Callable[..., TrainJob], assisted: TrainJob, tmp_path: Path, stage: str
) -> None:
    def job(out: Path, seed: int = 0) -> TrainJob:
        if stage == "a":
            return teacher_job(out, iterations=6, checkpoint_every=2, ema=0.9).model_copy(update={"seed": seed})
        noising = NoisingConfig(codes="random")  # the more that is drawn
        fields = {"method": Kd(), "teacher": assisted.bundle, "noising": noising, "seed": seed}
        return make_job(out, role="student", job=fields, checkpoint_every=2)

    unbroken, broken, other = job(tmp_path / "1"), job(tmp_path / "2"), job(tmp_path / "3", seed=1)
    run_job(unbroken, SilentReporter())
    with pytest.raises(Crash):
        run_job(broken, CrashAt(3))
    run_job(broken, SilentReporter())
    run_job(other, SilentReporter())
    first, second, third = (load_file(made.bundle / WEIGHTS_NAME) for made in (unbroken, broken, other))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], third[key]) for key in first)


@pytest.mark.slow
def test_two_processes_train_one_teacher(teacher_job: Callable[..., TrainJob], tmp_path: Path) -> None:
    job = teacher_job(tmp_path, iterations=2, batch_size=4, devices=2)
    run_job(job, SilentReporter())
    assert read_card(job.bundle).kind == "label_assisted"


# Who noises how


def test_the_card_says_how_labels_are_noised_unless_the_job_does(make_job: MakeJob, assisted: TrainJob, tmp_path: Path) -> None:
    trained = read_card(assisted.bundle).noising
    assert trained is not None
    found = []
    for noising in (None, NoisingConfig(codes="shuffled", sigma=0.1), NoisingConfig(scale=0.5)):
        job = make_job(tmp_path, role="student", job={"method": Cwd(), "teacher": assisted.bundle, "noising": noising})
        opened = open_teacher(job, read_card(assisted.bundle).classes, torch.device("cpu"))
        assert opened is not None and isinstance(opened.teacher, LabelAssistedTeacher)
        found.append((opened.teacher.noising.codes, opened.teacher.noising.sigma, opened.teacher.noising.scale))
    assert found == [("fixed", 0.02, trained.scale), ("shuffled", 0.1, trained.scale), ("fixed", 0.02, 0.5)]


def test_noise_for_a_teacher_that_reads_no_label_is_refused(make_job: MakeJob, teacher_bundle: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, role="student", job={"method": Cwd(), "teacher": teacher_bundle, "noising": NoisingConfig()})
    with pytest.raises(ConfigError, match="kind is 'label_assisted', but .* is of kind 'network'"):
        run_job(job, SilentReporter())


def test_a_plain_run_is_the_run_it_was(make_job: MakeJob, tmp_path: Path) -> None:
    """No key of another kind enters the identity of a training or the settings of a run."""
    assert not {"kind", "noising", "smoothing"} & make_job(tmp_path).identity().keys()
    config = load_config(None)
    assert not {"kind", "noising", "smoothing"} & json.loads(config.model_dump_json())["teacher"].keys()
    assert config == RunConfig()


def test_settings_of_another_kind_are_refused_and_kinds_share_the_rest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'noising' belongs to kind 'label_assisted', and kind is 'network'"):
        load_config(None, ["teacher.noising.sigma=0.5"])
    with pytest.raises(ConfigError, match="'external' brings a network from elsewhere: expected .* no 'kind'"):
        load_config(None, ["teacher.kind=smoothed_labels", "teacher.external={kind: transformers, path: here}"])
    with pytest.raises(ConfigError, match="'smoothing' belongs to kind"):
        load_config(None, ["teacher.kind=label_assisted", "teacher.smoothing.scale=2"])
    file = tmp_path / "c.yaml"
    file.write_text("teacher: {encoder: resnet34, iterations: 7}\n")
    config = load_config(file, ["teacher.kind=label_assisted", "teacher.noising.consistency=0"])
    assert (config.teacher.encoder, config.teacher.iterations, config.teacher.noising.consistency) == ("resnet34", 7, 0.0)
    again = load_config(None, ["teacher.kind=smoothed_labels"], base=json.loads(config.model_dump_json()))  # its noising is no longer meant
    assert (again.teacher.encoder, again.teacher.kind, again.teacher.noising) == ("resnet34", "smoothed_labels", NoisingConfig())
    job = job_of(config, tmp_path, "teacher")
    assert (job.kind, job.noising, job.network.encoder) == ("label_assisted", config.teacher.noising, "resnet34")
    assert {"kind", "noising"} <= job.identity().keys()


# The control


def test_smoothed_labels_are_written_at_once_and_teach_logits(make_job: MakeJob, smoothed: TrainJob, tmp_path: Path) -> None:
    card = read_card(smoothed.bundle)
    assert (card.kind, card.parameters, card.training.iterations) == ("smoothed_labels", 0, 0)
    assert card.smoothing == SmoothingConfig(scale=20.0) and card.evaluation is not None
    report = EvalReport.from_json(card.evaluation)
    assert report.assisted is not None and [score.plane for score in report.assisted.planes] == ["teaching"]
    job = make_job(tmp_path, role="student", job={"method": Cwd(), "teacher": smoothed.bundle}, iterations=2, val_every=2)
    run_job(job, SilentReporter())
    assert read_card(job.bundle).training.teacher_kind == "smoothed_labels"


def test_smoothed_labels_have_no_features_to_compare(make_job: MakeJob, smoothed: TrainJob, tmp_path: Path) -> None:
    job = make_job(tmp_path, role="student", job={"method": Gdd(), "teacher": smoothed.bundle})
    with pytest.raises(ConfigError, match="gdd compares .*the teacher logits"):
        run_job(job, SilentReporter())


# The command line

TINY = """\
name: tiny
data:
  preprocess: {size: [48, 64]}
  synthetic: {train_images: 6, val_images: 2, height: 48, width: 64}
teacher: {kind: label_assisted, encoder: tu-test_resnet, output_stride: 32, iterations: 2}
student: {encoder: tu-test_resnet, output_stride: 32}
train: {iterations: 2, batch_size: 2, crop: [48, 64], lr: 0.01, workers: 0, val_every: 2, threads: 1, device: cpu}
distill: {method: {kind: cwd}}
"""


def cli(*words: str | Path, code: int = 0) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    done = subprocess.run([GDDCTL, *map(str, words)], env=env, capture_output=True, text=True, timeout=600, check=False)
    assert "Traceback" not in done.stderr and done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_from_the_command_line(tmp_path: Path) -> None:
    config, out = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(TINY)
    trained = json.loads(cli("train", config, "--out", out, "--json"))
    assert trained["condition"] == "with the label plane" and trained["next"].startswith("gddctl distill ")
    student = json.loads(cli("distill", config, "--out", out, "--json"))
    assert "condition" not in student and student["card"]["training"]["teacher_kind"] == "label_assisted"
    told = cli("eval", out / "teacher")
    assert told.startswith("with the label plane: mIoU") and "with a zero plane" in told and "entropy, nats" in told
    refused = cli("export", out / "teacher", code=5)
    assert "cannot be exported, because what ships never sees the label" in refused
