"""As much of the CUDA driver as running an engine takes, through ctypes: no toolkit, no torch, no cupy."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gddctl.core.errors import EnvironmentMissing, RunFailed
from gddctl.runtime.probe import nvidia_driver

# Argument types by name, as in cuda.h. CUdeviceptr is an unsigned 64-bit number; contexts, streams and graphs are pointers.
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (POINTER(c_char), c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemAlloc_v2": (POINTER(c_ulonglong), c_size_t),
    "cuMemFree_v2": (c_ulonglong,),
    "cuMemAllocHost_v2": (POINTER(c_void_p), c_size_t),
    "cuMemFreeHost": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_ulonglong, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_ulonglong, c_size_t, c_void_p),
    "cuMemcpyDtoDAsync_v2": (c_ulonglong, c_ulonglong, c_size_t, c_void_p),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
}
_SUCCESS, _OUT_OF_MEMORY = 0, 2
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream
_RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED: TensorRT may allocate while its first capture runs


class Cuda:
    """Device 0 and its primary context, the one that TensorRT uses too. Close it when done."""

    def __init__(self, library: Any = None) -> None:
        if library is None:
            driver = nvidia_driver()
            if not driver.devices:
                raise EnvironmentMissing(
                    f"no NVIDIA GPU is usable here: {driver.reason}",
                    remedy="run it on the machine it was built for; see: gddctl doctor",
                )
            library = ctypes.CDLL("libcuda.so.1")
        self._library = library
        for name, types in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, c_int
        device, context = c_int(), c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", byref(device), 0)
        self._device = device.value
        self.call("cuDevicePrimaryCtxRetain", byref(context), self._device)
        self._context: Any = context
        self.activate()

    def activate(self) -> None:
        """Make the context that of the calling thread; do so before any other call there."""
        self.call("cuCtxSetCurrent", self._context)

    def close(self) -> None:
        """Give the context back."""
        if self._context is not None:
            self._context = None
            self.call("cuDevicePrimaryCtxRelease_v2", self._device)

    def name(self) -> str:
        """The GPU's name, e.g. ``"Orin"``."""
        text = (c_char * 256)()
        self.call("cuDeviceGetName", text, len(text), self._device)
        return bytes(text.value).decode(errors="replace")

    def compute_capability(self) -> str:
        """For example ``"8.7"``."""
        major, minor = c_int(), c_int()
        self.call("cuDeviceGetAttribute", byref(major), _MAJOR, self._device)
        self.call("cuDeviceGetAttribute", byref(minor), _MINOR, self._device)
        return f"{major.value}.{minor.value}"

    def driver_version(self) -> str:
        """The newest CUDA that the driver serves, e.g. ``"12.6"``."""
        version = c_int()
        self.call("cuDriverGetVersion", byref(version))
        return f"{version.value // 1000}.{version.value % 1000 // 10}"

    def free_memory(self) -> tuple[int, int]:
        """Free and total memory of the device, bytes."""
        free, total = c_size_t(), c_size_t()
        self.call("cuMemGetInfo_v2", byref(free), byref(total))
        return free.value, total.value

    def stream(self) -> int:
        """A new stream of its own."""
        stream = c_void_p()
        self.call("cuStreamCreate", byref(stream), _NON_BLOCKING)
        return stream.value or 0

    def synchronize(self, stream: int) -> None:
        """Wait until everything put on ``stream`` is done."""
        self.call("cuStreamSynchronize", stream)

    def destroy_stream(self, stream: int) -> None:
        """Free a stream."""
        self.call("cuStreamDestroy_v2", stream)

    def event(self) -> int:
        """A mark in time that a stream passes."""
        event = c_void_p()
        self.call("cuEventCreate", byref(event), 0)  # CU_EVENT_DEFAULT: it keeps the time
        return event.value or 0

    def record(self, event: int, stream: int) -> None:
        """Put ``event`` on ``stream``: its time is when all before it there is done."""
        self.call("cuEventRecord", event, stream)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two events that their streams have passed."""
        milliseconds = c_float()
        self.call("cuEventElapsedTime", byref(milliseconds), start, end)
        return milliseconds.value

    def destroy_event(self, event: int) -> None:
        """Free an event."""
        self.call("cuEventDestroy_v2", event)

    def capture(self, stream: int, enqueue: Any) -> tuple[int, int]:
        """Record what ``enqueue()`` puts on ``stream`` instead of doing it. Gives a graph and its executable form.

        The capture is ended also when ``enqueue`` raises, else the stream would be of no use after.
        """
        graph, executable = c_void_p(), c_void_p()
        self.call("cuStreamBeginCapture_v2", stream, _RELAXED)
        try:
            enqueue()
            self.call("cuStreamEndCapture", stream, byref(graph))
            self.call("cuGraphInstantiateWithFlags", byref(executable), graph, 0)
        except BaseException:
            if not graph.value:
                self._library.cuStreamEndCapture(stream, byref(graph))
            if graph.value:
                self._library.cuGraphDestroy(graph)
            raise
        return graph.value or 0, executable.value or 0

    def launch(self, executable: int, stream: int) -> None:
        """Put a captured graph on ``stream``."""
        self.call("cuGraphLaunch", executable, stream)

    def destroy_graph(self, graph: tuple[int, int]) -> None:
        """Free what :meth:`capture` gave."""
        self.call("cuGraphExecDestroy", graph[1])
        self.call("cuGraphDestroy", graph[0])

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver; any other answer than success is a RunFailed."""
        code = getattr(self._library, name)(*arguments)
        if code != _SUCCESS:
            text = c_char_p()
            self._library.cuGetErrorString(code, byref(text))
            words = (text.value or b"unknown error").decode(errors="replace")
            remedy = "close other programs on the GPU, or use a smaller batch" if code == _OUT_OF_MEMORY else None
            raise RunFailed(f"CUDA's {name} failed: {words} ({code})", remedy=remedy)


class Buffer:
    """Room for one tensor: device memory and, beside it, page-locked host memory that copies run from and to without a detour."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._cuda, self.dtype = cuda, np.dtype(dtype)
        self.bytes = int(np.prod(shape)) * self.dtype.itemsize
        device, host = c_ulonglong(), c_void_p()
        cuda.call("cuMemAlloc_v2", byref(device), self.bytes)
        self.device = device.value
        try:
            cuda.call("cuMemAllocHost_v2", byref(host), self.bytes)
        except RunFailed:
            cuda.call("cuMemFree_v2", self.device)
            raise
        self._host = host.value or 0
        room = memoryview((c_char * self.bytes).from_address(self._host))
        self.host: NDArray[Any] = np.frombuffer(room, self.dtype).reshape(shape)  # the page-locked memory itself; gone after free()

    def upload(self, items: int, stream: int) -> None:
        """Put the copy of the first ``items`` of the batch, host to device, on ``stream``."""
        self._cuda.call("cuMemcpyHtoDAsync_v2", self.device, self._host, items * self._item(), stream)

    def download(self, items: int, stream: int) -> None:
        """Put the copy of the first ``items`` of the batch, device to host, on ``stream``; synchronise before reading ``host``."""
        self._cuda.call("cuMemcpyDtoHAsync_v2", self._host, self.device, items * self._item(), stream)

    def free(self) -> None:
        """Give both memories back; nothing on any stream may use them any more."""
        self.host = np.empty(0, self.dtype)
        self._cuda.call("cuMemFreeHost", self._host)
        self._cuda.call("cuMemFree_v2", self.device)

    def _item(self) -> int:
        return self.bytes // max(len(self.host), 1)
