"""Compiled networks and a teacher's own precision: the same training, plain bundles, and words where it cannot be."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gddctl.core.artifact.card import WEIGHTS_NAME
from gddctl.core.config.load import load_config
from gddctl.core.config.methods import Cwd
from gddctl.core.config.sections import NetworkConfig
from gddctl.core.errors import ConfigError, EnvironmentMissing
from gddctl.distill import compiling
from gddctl.distill.agree import Agreement
from gddctl.distill.compiling import compile_network, explained, require_compiler, uncompiled
from gddctl.distill.job import TrainJob
from gddctl.distill.progress import SilentReporter
from gddctl.distill.run import run_job
from gddctl.distill.teacher_precision import cast_weights, low_precision, with_precision
from gddctl.models.protocol import Batch
from gddctl.models.segmenter import Segmenter, build_segmenter
from gddctl.models.teacher import FrozenTeacher

MakeJob = Callable[..., TrainJob]

BF16_STEP = 2.0**-8  # relative spacing of bfloat16
COMPILED = 1e-3  # of a loss: fused kernels add in another order
IMAGES = Batch(torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 48, 64, dtype=torch.int64))


@pytest.fixture
def network() -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(NetworkConfig(encoder="tu-test_resnet", output_stride=32), 5, aux=False).to(memory_format=torch.channels_last)


def losses(job: TrainJob) -> list[float]:
    return [row["loss"] for row in map(json.loads, (job.out / "metrics.jsonl").read_text().splitlines()) if "loss" in row]


def weights(job: TrainJob) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(job.bundle / WEIGHTS_NAME)
    return found


def test_weights_cast_once_answer_as_autocast_does(network: Segmenter) -> None:
    cast = copy.deepcopy(network)
    cast_weights(cast, torch.bfloat16)
    assert cast.head.classifier.weight.dtype == torch.bfloat16  # type: ignore[union-attr]
    with torch.autocast("cpu", torch.bfloat16):
        plain, once = FrozenTeacher(network)(IMAGES), FrozenTeacher(cast)(IMAGES)
    assert torch.equal(plain.logits, once.logits)
    assert all(torch.equal(feature, once.features[name]) for name, feature in plain.features.items())


def test_a_teacher_computes_in_its_own_precision_whatever_is_around_it(network: Segmenter) -> None:
    exact = FrozenTeacher(copy.deepcopy(network))(IMAGES).logits
    with torch.autocast("cpu", torch.bfloat16):
        wide = with_precision(FrozenTeacher(network), network, "fp32", "bf16", "cpu")(IMAGES).logits
    assert torch.equal(exact, wide)
    narrow = with_precision(FrozenTeacher(network), network, "bf16", "fp32", "cpu")(IMAGES).logits
    assert narrow.dtype == torch.bfloat16
    difference = float((narrow.float() - exact).abs().max() / exact.abs().max())
    assert 0 < difference < 16 * BF16_STEP  # a dozen layers


def test_what_each_precision_is() -> None:
    assert low_precision("same", "fp32", "cpu") is None
    assert low_precision("same", "bf16", "cpu") == low_precision("bf16", "fp32", "cpu") == torch.bfloat16
    assert low_precision("fp32", "bf16", "cpu") is None
    assert low_precision("fp16", "bf16", "cuda") == torch.float16
    with pytest.raises(ConfigError, match="'fp16' computes on CUDA only"):
        low_precision("fp16", "fp32", "cpu")


def test_the_teachers_precision_reaches_the_training(make_job: MakeJob, tmp_path: Path, teacher_bundle: Path) -> None:
    found = {}
    for training, teaching in (("fp32", "same"), ("fp32", "fp32"), ("fp32", "bf16"), ("bf16", "fp32"), ("bf16", "bf16"), ("bf16", "same")):
        fields = {"method": Cwd(), "teacher": teacher_bundle, "teacher_precision": teaching}
        out = tmp_path / f"{training}-{teaching}"
        job = make_job(out, role="student", job=fields, iterations=1, val_every=1, log_every=1, precision=training)
        run_job(job, SilentReporter())
        found[training, teaching] = losses(job)
    assert found["fp32", "same"] == found["fp32", "fp32"] != found["fp32", "bf16"]
    assert found["bf16", "same"] == found["bf16", "bf16"] != found["bf16", "fp32"]


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace as for a compilation, and run what was traced without generating code, which would take minutes."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(compiling, "BACKEND", "eager")


@pytest.mark.usefixtures("traced_only")
def test_a_compiled_training_ships_and_resumes_plainly(make_job: MakeJob, tmp_path: Path, teacher_bundle: Path) -> None:
    jobs = {}
    for name, compiles in (("plain", False), ("compiled", True), ("resumed", True)):
        fields = {"method": Cwd(), "teacher": teacher_bundle}
        jobs[name] = make_job(
            tmp_path / name, role="student", job=fields, iterations=4, val_every=4, checkpoint_every=2, log_every=1, compile=compiles
        )
    run_job(jobs["plain"], SilentReporter())
    run_job(jobs["compiled"], SilentReporter())

    class Crash(Exception):
        pass

    class At3(SilentReporter):
        def tick(self, done: int) -> None:
            if done == 3:
                raise Crash

    with pytest.raises(Crash):
        run_job(jobs["resumed"], At3())
    run_job(jobs["resumed"], SilentReporter())
    assert torch._dynamo.utils.counters["frames"]["total"] > 0
    plain, compiled, resumed = (weights(jobs[name]) for name in ("plain", "compiled", "resumed"))
    assert plain.keys() == compiled.keys()
    assert all(torch.equal(compiled[key], resumed[key]) for key in compiled)
    assert losses(jobs["plain"]) == pytest.approx(losses(jobs["compiled"]), rel=COMPILED)


@pytest.mark.usefixtures("traced_only")
def test_compiling_leaves_keys_and_copies_plain(network: Segmenter) -> None:
    before = list(network.state_dict())
    network.eval()
    expected = network(IMAGES.images).logits
    compile_network(network)
    assert torch.allclose(network(IMAGES.images).logits, expected, atol=1e-5)
    assert list(network.state_dict()) == before == list(copy.deepcopy(network).state_dict())
    traced = torch._dynamo.utils.counters["frames"]["total"]
    assert traced > 0
    with uncompiled():
        network(torch.zeros(1, 3, 64, 96))
    assert torch._dynamo.utils.counters["frames"]["total"] == traced


def test_no_compiler_is_said_before_training(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(EnvironmentMissing, match=r"train\.compile: no C\+\+ compiler that works.*install g\+\+") as caught:
        run_job(make_job(tmp_path, compile=True), SilentReporter())
    assert caught.value.exit_code == 4
    assert not (tmp_path / "metrics.jsonl").exists()


def test_this_machines_compiler_is_found() -> None:
    import shutil

    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler here")
    require_compiler("cpu")


def test_a_failed_compilation_is_said_in_words() -> None:
    from torch._dynamo.exc import Unsupported

    with pytest.raises(EnvironmentMissing, match=r"does not compile here \(a thing that cannot be\)"), explained():
        raise Unsupported("a thing that cannot be\nand a long story")
    with pytest.raises(ValueError, match="another"), explained():
        raise ValueError("another")


def test_an_int8_graph_does_not_compile() -> None:
    with pytest.raises(ConfigError, match=r"distill\.quantize and train\.compile"):
        load_config(None, ["distill.quantize={target: ort-cpu}", "student.init=x", "train.compile=true"])


def test_new_settings_at_their_defaults_leave_no_trace() -> None:
    from gddctl.core.config.load import to_settings

    plain, compiled = (to_settings(load_config(None, sets)) for sets in ([], ["train.compile=true", "distill.teacher_precision=bf16"]))
    assert {"compile", "track"} & plain["train"].keys() == set()
    assert plain["distill"].keys() == {"method", "quantize"}
    assert compiled["train"]["compile"] is True
    assert compiled["distill"]["teacher_precision"] == "bf16"


@pytest.mark.slow
def test_generated_code_trains_alike(make_job: MakeJob, tmp_path: Path) -> None:
    jobs = [make_job(tmp_path / str(compiles), iterations=3, val_every=3, log_every=1, compile=compiles) for compiles in (False, True)]
    from torch._inductor import config as inductor

    with inductor.patch(fallback_random=True):  # dropout's draws as they are without generated code, which has its own
        for job in jobs:
            run_job(job, SilentReporter())
    assert losses(jobs[0]) == pytest.approx(losses(jobs[1]), rel=COMPILED)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_agreeing_on_a_step_never_waits_for_the_device() -> None:
    agreement = Agreement(world=1, lag=1)
    terms = {"ce": torch.ones((), device="cuda")}
    agreement.add(1, terms, stop=False, out_of_time=False)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        (verdict,) = agreement.add(2, terms, stop=True, out_of_time=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert verdict.terms == {"ce": 1.0}
