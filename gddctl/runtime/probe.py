"""Does it really load? The NVIDIA driver and ONNX Runtime's providers, tried rather than asked."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_CUDA_SUCCESS = 0


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver as ``libcuda`` answers."""

    devices: int
    version: str = ""
    reason: str = ""  # why there are no devices


def nvidia_driver() -> Driver:
    """Ask ``libcuda`` itself, without any toolkit: TensorRT runtimes can crash the process where there is no device."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Driver(0, reason="libcuda.so.1 is not here")
    if (code := library.cuInit(0)) != _CUDA_SUCCESS:
        return Driver(0, reason=f"cuInit answers {code}")
    count, version = ctypes.c_int(0), ctypes.c_int(0)
    library.cuDeviceGetCount(ctypes.byref(count))
    library.cuDriverGetVersion(ctypes.byref(version))
    number = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Driver(count.value, number, "" if count.value else "the driver sees no device")


def ort_provider(provider: str) -> tuple[bool, str]:
    """Whether ONNX Runtime's ``provider`` loads: a session is made and must name it. Second: why not.

    ``get_available_providers()`` only says what the wheel was built with.
    """
    import onnxruntime as ort

    if provider not in ort.get_available_providers():
        return False, "not in this build of ONNX Runtime"
    if provider != "CPUExecutionProvider" and not (driver := nvidia_driver()).devices:
        return False, driver.reason
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(identity_model(), options, providers=[provider])
    except Exception as error:  # whatever it raises is the answer
        return False, " ".join(str(error).split())[:160]
    return (True, "") if provider in session.get_providers() else (False, "did not load; its libraries are missing")


def identity_model() -> bytes:
    """A one-node ONNX model (Identity on a float), built by hand so that no ``onnx`` package is needed.

    Fields by number as in onnx.proto: ModelProto ir_version 1, graph 7, opset_import 8; GraphProto node 1, name 2, input 11, output 12;
    NodeProto input 1, output 2, op_type 4; ValueInfoProto name 1, type 2; TypeProto tensor_type 1; Tensor elem_type 1, shape 2;
    TensorShapeProto dim 1; Dimension dim_value 1; OperatorSetIdProto version 2.
    """

    def field(number: int, body: bytes) -> bytes:
        return bytes([number << 3 | 2, len(body)]) + body

    def integer(number: int, value: int) -> bytes:
        return bytes([number << 3, value])

    shape = field(2, field(1, integer(1, 1)))
    kind = field(2, field(1, integer(1, 1) + shape))  # elem_type 1 = float32
    node = field(1, b"x") + field(2, b"y") + field(4, b"Identity")
    graph = field(1, node) + field(2, b"probe") + field(11, field(1, b"x") + kind) + field(12, field(1, b"y") + kind)
    return integer(1, 8) + field(7, graph) + field(8, integer(2, 17))
