"""ONNX Runtime's providers: what each is asked for, that a fall-back is an error, and the fault that one optimization has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.errors import ArtifactError, EnvironmentMissing
from gddctl.data.preprocess import normalise
from gddctl.runtime.open import open_runtime
from gddctl.runtime.ort_providers import FAULTY_WITH_HALF_SCALES, check_placement, disabled_optimizers, placement, providers_of
from gddctl.runtime.ort_runtime import open_session
from gddctl.runtime.probe import nvidia_driver
from gddctl.runtime.protocol import check_target

BIASES = FAULTY_WITH_HALF_SCALES[0]
QUANTISED_DB = 40.0  # steps of 0.04 are noise 48 dB below values of 3; a bias that is lost is an error as large as itself
SAME_DB = 90.0  # one session against another over the same operations: the last bits may differ
# Whatever changes a rounding somewhere changes every rounding behind it, in a student with random weights; 18 dB is what is left then.
CHANGED_DB = 45.0


def info(precision: str, target: str = "any") -> ModelInfo:
    return ModelInfo.model_construct(precision=precision, target=target)


def pairs(device: Any, made: ModelInfo) -> list[tuple[str, dict[str, str]]]:
    """Providers with options; the CPU's alone comes without."""
    return [item for item in providers_of(device, made) if isinstance(item, tuple)]


def test_tensorrt_is_allowed_the_types_that_the_file_holds() -> None:
    """Weakly typed as it is inside ONNX Runtime, it refuses a type whose flag is off, and takes one whose flag is on wherever it likes."""
    flags = {}
    for made in (info("fp32"), info("fp16"), info("int8", "tensorrt")):
        (name, options), (second, _) = pairs("tensorrt", made)
        assert (name, second) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
        assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "0"
        flags[made.precision] = (options["trt_fp16_enable"], options["trt_int8_enable"])
    assert flags == {"fp32": ("0", "0"), "fp16": ("1", "0"), "int8": ("1", "1")}


@pytest.mark.parametrize(("graph", "sides"), [("logits", "3x64x96"), ("deploy", "64x96x3")])
def test_tensorrt_builds_once_for_every_batch_that_will_come(psp: Any, graph: str, sides: str) -> None:
    made = {"logits": psp.fp32, "deploy": psp.int8_deploy}[graph].info
    options = dict(providers_of("tensorrt", made, 8))["TensorrtExecutionProvider"]  # type: ignore[arg-type]
    shapes = [options[f"trt_profile_{end}_shapes"] for end in ("min", "opt", "max")]
    assert shapes == [f"image:1x{sides}", f"image:8x{sides}", f"image:8x{sides}"]
    assert not [name for name in dict(pairs("tensorrt", made))["TensorrtExecutionProvider"] if "profile" in name]  # whoever names no batch
    assert providers_of("cuda", made, 8) == providers_of("cuda", made)


class FakeOrt:
    """ONNX Runtime as it was read to behave: without TensorRT where the range of shapes does not fit its part of the graph."""

    __version__ = "0"

    def __init__(self, takes_profiles: bool, raises: bool) -> None:
        self.takes_profiles, self.raises, self.asked = takes_profiles, raises, list[bool]()

    def InferenceSession(self, path: str, options: Any, *, providers: Any, disabled_optimizers: Any) -> Any:
        profile = "trt_profile_max_shapes" in providers[0][1]
        self.asked.append(profile)
        if profile and not self.takes_profiles and self.raises:
            raise RuntimeError("User needs to provide all the dynamic shape inputs with associated profiles")
        first = "CUDAExecutionProvider" if profile and not self.takes_profiles else "TensorrtExecutionProvider"
        return SimpleNamespace(get_providers=lambda: [first], disable_fallback=lambda: None, get_inputs=list, profile=profile)

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider"]

    def SessionOptions(self) -> Any:
        return SimpleNamespace(add_session_config_entry=lambda *_: None)

    def preload_dlls(self) -> None: ...

    def set_default_logger_severity(self, _: int) -> None: ...


@pytest.mark.parametrize(("takes", "raises", "asked"), [(True, False, [True]), (False, False, [True, False]), (False, True, [True, False])])
def test_a_part_of_the_graph_that_takes_no_range_opens_without(
    psp: Any, takes: bool, raises: bool, asked: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gddctl.runtime.ort_runtime.nvidia_driver", lambda: SimpleNamespace(devices=("a card",)))
    fake: Any = FakeOrt(takes, raises)
    session = open_session(fake, psp.fp32.path, psp.fp32.info, "tensorrt", 1, 8)
    assert fake.asked == asked and session.profile == takes


def test_every_option_is_known_to_the_provider() -> None:
    """Read off the library itself, since it loads only where TensorRT is."""
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent / "capi"
    for device, library in (("tensorrt", "libonnxruntime_providers_tensorrt.so"), ("cuda", "libonnxruntime_providers_cuda.so")):
        path = folder / library
        if not path.is_file():
            pytest.skip("this build of ONNX Runtime has no GPU providers")
        data = path.read_bytes()
        (_, options) = pairs(device, info("int8", "tensorrt"))[0]
        if device == "tensorrt":
            options = {**options, **{f"trt_profile_{end}_shapes": "" for end in ("min", "opt", "max")}}
        assert all(name.encode() in data for name in options)
        assert b"use_tf33" not in data  # partner: not any name is


def test_cuda_keeps_all_bits_of_fp32() -> None:
    assert providers_of("cuda", info("fp32")) == [("CUDAExecutionProvider", {"use_tf32": "0"})]


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_computing_on_the_cpu_is_a_fall_back(device: Any) -> None:
    shapes = {"CPUExecutionProvider": Counter(Shape=1, Slice=1, Concat=2), "CUDAExecutionProvider": Counter(Conv=26)}
    check_placement(shapes, device)  # arithmetic on shapes belongs there
    fallen = {**shapes, "CPUExecutionProvider": Counter(Shape=1, Conv=2, Relu=1)}
    with pytest.raises(EnvironmentMissing, match="Conv, Relu fell back to the CPU"):
        check_placement(fallen, device)
    check_placement(fallen, "cpu")
    check_placement(None, device)  # an ONNX Runtime that does not tell


def test_placement_is_read_off_a_real_session(psp: Any) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(str(psp.fp32.path), options, providers=["CPUExecutionProvider"])
    placed = placement(session)
    assert placed is not None and placed["CPUExecutionProvider"]["Conv"] == 26
    with pytest.raises(EnvironmentMissing, match="Conv"):
        check_placement(placed, "cuda")


@pytest.fixture(scope="module")
def lowered(make_exported: Callable[[Any], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Architecture -> a real student's INT8 file for TensorRT."""
    from gddctl.export.int8 import quantize

    def make(arch: Any) -> Any:
        exported = make_exported(arch)
        return quantize(exported.fp32, exported.record, tmp_path_factory.mktemp("lowered") / f"{arch}.onnx", target="tensorrt")

    return make


def answers(exported: Any, path: Path, disabled: list[str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)
    batch = np.stack([normalise(exported.val[index].image, exported.fp32.info.preprocess) for index in range(2)])
    return session.run(["logits"], {"image": batch})[0].astype(np.float64)


def decibels(reference: Any, found: Any) -> float:
    noise = np.square(reference - found).sum()
    return 200.0 if noise == 0 else float(10 * np.log10(np.square(reference).sum() / noise))


def one_convolution(kind: Any, path: Path) -> None:
    """Q -> DQ -> Conv with a bias of 3 -> ReLU -> Q -> DQ, all in ``kind``.

    Scales 0.02 and 0.001 make the bias 150 000 steps: beyond FP16's 65 504.
    """
    import onnx

    make, to = onnx.helper.make_node, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    nodes = [
        make("Cast", ["image"], ["x"], to=to),
        make("QuantizeLinear", ["x", "scale", "zero"], ["x_q"]),
        make("DequantizeLinear", ["x_q", "scale", "zero"], ["x_dq"]),
        make("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_dq"], axis=0),
        make("Conv", ["x_dq", "w_dq", "bias"], ["c"]),
        make("Relu", ["c"], ["y"]),
        make("QuantizeLinear", ["y", "y_scale", "zero"], ["y_q"]),  # only where codes follow is a bias taken for one of theirs
        make("DequantizeLinear", ["y_q", "y_scale", "zero"], ["y_dq"]),
        make("Cast", ["y_dq"], ["logits"], to=onnx.TensorProto.FLOAT),
    ]
    values = {
        "scale": kind(0.02),
        "y_scale": kind(0.04),
        "zero": np.int8(0),
        "w": np.full((4, 4, 1, 1), 100, np.int8),
        "w_scale": np.full(4, 0.001, kind),
        "w_zero": np.zeros(4, np.int8),
        "bias": np.full(4, 3.0, kind),
    }
    given, answer = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("image", "logits"))
    graph = onnx.helper.make_graph(
        nodes, "g", [given], [answer], [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in values.items()]
    )
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)]), str(path))


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_the_fault_of_biases_at_half_scales_is_still_there(tmp_path: Path, kind: Any) -> None:
    """When this fails, ONNX Runtime has mended it, and the optimization need no longer be switched off. FP32 scales are the partner."""
    import onnxruntime

    one_convolution(kind, tmp_path / "x.onnx")
    batch = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    found = {}
    for disabled in ((), (BIASES,)):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            str(tmp_path / "x.onnx"), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
        )
        found[bool(disabled)] = session.run(None, {"image": batch})[0].astype(np.float64)
    true = 3.0 + 0.1 * batch.sum(1, keepdims=True).repeat(4, 1)
    assert decibels(true, found[True]) > QUANTISED_DB
    assert (decibels(true, found[False]) > QUANTISED_DB) == (kind is np.float32)


def test_the_fault_of_concatenations_at_half_scales_is_still_there(make_exported: Any, lowered: Any) -> None:
    exported, half = make_exported("deeplabv3"), lowered("deeplabv3")
    with pytest.raises(Exception, match="QLinearConcat"):
        answers(exported, half.path, [BIASES])
    answers(exported, half.path, list(FAULTY_WITH_HALF_SCALES))


@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3"])
def test_our_runtime_spares_such_graphs_both(make_exported: Any, lowered: Any, arch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    exported, half = make_exported(arch), lowered(arch)
    assert disabled_optimizers(half.info) == list(FAULTY_WITH_HALF_SCALES)
    assert disabled_optimizers(exported.int8.info) == disabled_optimizers(exported.fp32.info) == []
    batch = np.stack([normalise(exported.val[index].image, exported.fp32.info.preprocess) for index in range(2)])
    true = answers(exported, half.path, list(FAULTY_WITH_HALF_SCALES))
    with open_runtime(half.path, threads=1, allow_foreign_target=True) as runtime:
        assert decibels(true, runtime.run(batch)) > SAME_DB
    if arch == "pspnet":  # partner: without the list the runtime answers otherwise
        monkeypatch.setattr("gddctl.runtime.ort_runtime.disabled_optimizers", lambda info: [])
        with open_runtime(half.path, threads=1, allow_foreign_target=True) as runtime:
            assert decibels(true, runtime.run(batch)) < CHANGED_DB


def test_targets_of_the_tensorrt_provider() -> None:
    check_target(info("int8", "tensorrt"), "tensorrt", "x")
    check_target(info("fp16"), "tensorrt", "x")
    with pytest.raises(ArtifactError, match="quantised for 'ort-cpu', opened on 'tensorrt'"):
        check_target(info("int8", "ort-cpu"), "tensorrt", "x")
    with pytest.raises(ArtifactError, match="quantised for 'tensorrt', opened on 'ort-cuda'"):
        check_target(info("int8", "tensorrt"), "cuda", "x")


@pytest.mark.skipif(nvidia_driver().devices > 0, reason="this machine has a GPU")
def test_without_a_driver_it_is_exit_4_and_says_which_tensorrt_it_wants(psp: Any) -> None:
    with pytest.raises(
        EnvironmentMissing, match=r"TensorrtExecutionProvider does not load here: libcuda.* TensorRT 10 \(libnvinfer\.so\.10\)"
    ):
        open_runtime(psp.fp32.path, device="tensorrt")
