"""A stand-in for the CUDA driver and for TensorRT: it knows order and lifetimes, and nothing of speed or numerics.

What is put on a stream is done only when the stream is waited for, as late as a device may do it: whoever reads too early, frees too
early or forgets to copy gets a wrong answer here.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gddctl.core.artifact.engine import EngineRecord, write_record
from gddctl.core.digest import sha256_file
from gddctl.runtime import cuda as cuda_module
from gddctl.runtime.cuda import Cuda
from gddctl.runtime.trt_bindings import Bindings

Work = Callable[[], None]
OUT_OF_MEMORY = 2


class Function:
    """One function of the driver: callable, with room for ``argtypes`` as ctypes has."""

    argtypes: tuple[Any, ...]
    restype: Any

    def __init__(self, name: str, body: Callable[..., int | None], calls: list[str]) -> None:
        self._name, self._body, self._calls = name, body, calls

    def __call__(self, *arguments: Any) -> int:
        assert len(arguments) == len(self.argtypes), self._name
        self._calls.append(self._name)
        return self._body(*map(plain, arguments)) or 0


def plain(argument: Any) -> Any:
    """What a pointer points to, what a number's value is; an array itself."""
    if isinstance(argument, ctypes.Array):
        return argument
    return getattr(argument, "_obj", getattr(argument, "value", argument))


class Driver:
    """Device memory is bytes under made-up addresses; page-locked memory is real, because numpy writes into it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.device: dict[int, bytearray] = {}
        self.host: dict[int, Any] = {}
        self.streams: dict[int, list[Work]] = {}
        self.capturing: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.contexts = 0
        self.allocations_left = 100
        self.capability = (8, 7)
        self.name = "Orin"
        self._numbers = itertools.count(0x1000)
        for name in cuda_module.SIGNATURES:
            setattr(self, name, Function(name, getattr(self, f"_{name}", lambda *arguments: 0), self.calls))

    @property
    def live(self) -> int:
        """Everything not given back."""
        return len(self.device) + len(self.host) + len(self.streams) + len(self.graphs) + self.contexts

    def put(self, stream: int, work: Work) -> None:
        """Queue work, or record it."""
        (self.capturing.get(stream) if stream in self.capturing else self.streams[stream]).append(work)  # type: ignore[union-attr]

    def _new(self) -> int:
        return next(self._numbers)

    def _cuDriverGetVersion(self, version: Any) -> None:
        version.value = 12060

    def _cuGetErrorString(self, code: int, text: Any) -> None:
        text.value = b"out of memory" if code == OUT_OF_MEMORY else b"some error"

    def _cuDeviceGetName(self, text: Any, size: int, device: int) -> None:
        text.value = self.name.encode()

    def _cuDeviceGetAttribute(self, value: Any, which: int, device: int) -> None:
        value.value = self.capability[which - 75]

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: int) -> None:
        context.value = self._new()
        self.contexts += 1

    def _cuDevicePrimaryCtxRelease_v2(self, device: int) -> None:
        self.contexts -= 1

    def _cuMemAlloc_v2(self, pointer: Any, size: int) -> int:
        if self.allocations_left == 0:
            return OUT_OF_MEMORY
        self.allocations_left -= 1
        pointer.value = self._new()
        self.device[pointer.value] = bytearray(size)
        return 0

    def _cuMemFree_v2(self, pointer: int) -> None:
        assert not any(self.streams.values()), "freed while work is waiting"
        del self.device[pointer]

    def _cuMemAllocHost_v2(self, pointer: Any, size: int) -> None:
        room = ctypes.create_string_buffer(size)
        pointer.value = ctypes.addressof(room)
        self.host[pointer.value] = room

    def _cuMemFreeHost(self, pointer: int) -> None:
        del self.host[pointer]

    def _cuMemcpyHtoDAsync_v2(self, device: int, host: int, size: int, stream: int) -> None:
        def copy() -> None:
            self.device[device][:size] = self.host[host].raw[:size]

        self.put(stream, copy)

    def _cuMemcpyDtoHAsync_v2(self, host: int, device: int, size: int, stream: int) -> None:
        def copy() -> None:
            ctypes.memmove(self.host[host], bytes(self.device[device][:size]), size)

        self.put(stream, copy)

    def _cuStreamCreate(self, stream: Any, flags: int) -> None:
        stream.value = self._new()
        self.streams[stream.value] = []

    def _cuStreamSynchronize(self, stream: int) -> None:
        assert stream not in self.capturing, "waited for a stream that records"
        work, self.streams[stream] = self.streams[stream], []
        for step in work:
            step()

    def _cuStreamDestroy_v2(self, stream: int) -> None:
        assert not self.streams.pop(stream), "destroyed with work waiting"

    def _cuStreamBeginCapture_v2(self, stream: int, mode: int) -> None:
        assert not self.streams[stream] and stream not in self.capturing
        self.capturing[stream] = []

    def _cuStreamEndCapture(self, stream: int, graph: Any) -> None:
        graph.value = self._new()
        self.graphs[graph.value] = self.capturing.pop(stream)

    def _cuGraphInstantiateWithFlags(self, executable: Any, graph: int, flags: int) -> None:
        executable.value = self._new()
        self.graphs[executable.value] = self.graphs[graph]

    def _cuGraphLaunch(self, executable: int, stream: int) -> None:
        self.streams[stream] += self.graphs[executable]

    def _cuGraphExecDestroy(self, executable: int) -> None:
        del self.graphs[executable]

    def _cuGraphDestroy(self, graph: int) -> None:
        del self.graphs[graph]


def named(name: str) -> SimpleNamespace:
    return SimpleNamespace(name=name)


@dataclass
class StandIn:
    """TensorRT over the driver above: item by item, class k of the answer is (k + 1) times the image's mean."""

    driver: Driver
    record: EngineRecord
    log: list[str] = field(default_factory=list)
    loads: bool = True
    has_context: bool = True
    executes: bool = True
    largest: int | None = None
    strategy: Any = None

    @property
    def module(self) -> Any:
        """What ``import tensorrt`` would give."""
        stand_in = self

        class ILogger:
            Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self._logger = logger

            def deserialize_cuda_engine(self, data: bytes) -> Any:
                if not stand_in.loads:
                    self._logger.log(1, "magic tag\n does not match")
                    return None
                return Engine(stand_in)

            def __del__(self) -> None:
                stand_in.log.append("runtime gone")

        return SimpleNamespace(
            ILogger=ILogger,
            Runtime=Runtime,
            TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
            CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole"),
        )

    @property
    def bindings(self) -> Bindings:
        """As :func:`gddctl.runtime.trt_bindings.find_bindings` gives them."""
        return Bindings(self.module, self.record.builder, self.record.version)


class Engine:
    """An engine with an image and an answer."""

    def __init__(self, stand_in: StandIn) -> None:
        self._of = stand_in
        self._deploy = stand_in.record.info.graph == "deploy"
        self.num_io_tensors = 2

    def get_tensor_name(self, index: int) -> str:
        return ["image", "mask" if self._deploy else "logits"][index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "image" else "out"

    def get_tensor_dtype(self, name: str) -> Any:
        return named("UINT8" if self._deploy else "FLOAT")

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, 3), (1, 3), (self._of.largest or self._of.record.max_batch, 3)]

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(cuda_graph_strategy=None)

    def create_execution_context(self, config: Any = None) -> Any:
        self._of.strategy = config and config.cuda_graph_strategy
        return Context(self._of) if self._of.has_context else None

    def __del__(self) -> None:
        self._of.log.append("engine gone")


class Context:
    """Runs what addresses and shape say at the time it is queued."""

    def __init__(self, stand_in: StandIn) -> None:
        self._of, self._addresses, self._shape = stand_in, dict[str, int](), tuple[int, ...]()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._of.log.append(f"shape {shape[0]}")
        self._shape = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self._of.log.append("execute")
        given, shape, of = self._addresses["image"], self._shape, self._of
        answer = next(address for name, address in self._addresses.items() if name != "image")

        def compute() -> None:
            info = of.record.info
            dtype = np.uint8 if info.graph == "deploy" else np.float32
            images = np.frombuffer(bytes(of.driver.device[given]), dtype)[: int(np.prod(shape))].reshape(shape)
            result = answer_of(images, info).tobytes()
            of.driver.device[answer][: len(result)] = result

        of.driver.put(stream, compute)
        return of.executes

    def __del__(self) -> None:
        self._of.log.append("context gone")


def answer_of(images: Any, info: Any) -> Any:
    """What the stand-in computes; see :class:`StandIn`."""
    height, width = info.preprocess.size
    means = images.reshape(len(images), -1).astype(np.float64).mean(1)
    if info.graph == "deploy":
        return np.broadcast_to((means.astype(int) % len(info.classes)).astype(np.uint8)[:, None, None], (len(images), height, width)).copy()
    planes = means[:, None] * (1 + np.arange(len(info.classes)))
    return np.broadcast_to(planes.astype(np.float32)[:, :, None, None], (*planes.shape, height, width)).copy()


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def engine_file(tmp_path: Path, psp: Any) -> Callable[..., tuple[Path, EngineRecord]]:
    """Make a file with some bytes and its record: by graph, and whatever else is to be changed."""

    def make(graph: str = "logits", **changes: Any) -> tuple[Path, EngineRecord]:
        path = tmp_path / f"student.{graph}.engine"
        path.write_bytes(b"an engine, by its record")
        info = (psp.fp32 if graph == "logits" else psp.fp32_deploy).info.model_copy(update={"target": "tensorrt"})
        record = EngineRecord(
            info=info, builder="tensorrt", version="10.3.0.26", device="Orin", compute_capabilities=("8.7",), flags=("STRONGLY_TYPED",),
            min_batch=1, opt_batch=1, max_batch=4, workspace_mb=1024, optimization_level=3, onnx="student-fp32-any.logits.onnx",
            onnx_sha256="0" * 64, engine_sha256=sha256_file(path), engine_bytes=24, build_seconds=1.0,
        ).model_copy(update=changes)  # fmt: skip
        write_record(path, record)
        return path, record

    return make


@pytest.fixture
def stand_in(driver: Driver, engine_file: Any) -> Callable[..., tuple[Path, StandIn]]:
    """(path, stand-in) of an engine file."""

    def make(graph: str = "logits", **changes: Any) -> tuple[Path, StandIn]:
        path, record = engine_file(graph, **changes)
        return path, StandIn(driver, record)

    return make


@pytest.fixture
def open_cuda(driver: Driver) -> Callable[[], Cuda]:
    return lambda: Cuda(driver)


@pytest.fixture
def answer() -> Callable[[Any, Any], Any]:
    return answer_of
