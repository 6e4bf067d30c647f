"""One matrix product as an ONNX file, written by hand, so that probing a machine takes no onnx package."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

Arithmetic = Literal["fp32", "fp16", "int8"]

_ELEMENT = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "float16": 10}  # TensorProto.DataType


def matmul_model(kind: Arithmetic, size: int) -> tuple[bytes, NDArray[np.generic]]:
    """The model (input ``a`` times a constant, both ``size`` x ``size``, output ``y``) and an input for it.

    INT8 is ``MatMulInteger`` of uint8 with int8, summed in int32: what quantised networks run on CPUs. Fields by number as in onnx.proto:
    ModelProto ir_version 1, graph 7, opset_import 8; GraphProto node 1, name 2, initializer 5, input 11, output 12; NodeProto input 1,
    output 2, op_type 4; TensorProto dims 1, data_type 2, name 8, raw_data 9; ValueInfoProto name 1, type 2; the rest nested below it.
    """
    left, right, answer = _types(kind)
    rng = np.random.default_rng(0)
    a, b = (_filled(rng, size, dtype) for dtype in (left, right))
    weights = _integer(1, size) + _integer(1, size) + _integer(2, _element(right)) + _field(8, b"b") + _field(9, b.tobytes())
    node = _field(1, b"a") + _field(1, b"b") + _field(2, b"y") + _field(4, b"MatMulInteger" if kind == "int8" else b"MatMul")
    graph = (
        _field(1, node)
        + _field(2, b"probe")
        + _field(5, weights)
        + _field(11, _value(b"a", left, size))
        + _field(12, _value(b"y", answer, size))
    )
    return _integer(1, 8) + _field(7, graph) + _field(8, _integer(2, 17)), a


def _types(kind: Arithmetic) -> tuple[str, str, str]:
    return {"fp32": ("float32",) * 3, "fp16": ("float16",) * 3, "int8": ("uint8", "int8", "int32")}[kind]


def _filled(rng: np.random.Generator, size: int, dtype: DTypeLike) -> NDArray[np.generic]:
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal((size, size), dtype=np.float32).astype(dtype)
    return rng.integers(-64, 64, (size, size)).astype(dtype) if dtype == "int8" else rng.integers(0, 128, (size, size)).astype(dtype)


def _element(dtype: str) -> int:
    return _ELEMENT[dtype]


def _value(name: bytes, dtype: str, size: int) -> bytes:
    dims = _field(1, _integer(1, size)) * 2
    return _field(1, name) + _field(2, _field(1, _integer(1, _element(dtype)) + _field(2, dims)))


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _field(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body
