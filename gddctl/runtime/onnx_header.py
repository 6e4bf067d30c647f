"""An ONNX file's own words (IR version, opsets, metadata) read off its protobuf without the onnx package and without the weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from gddctl.core.errors import ArtifactError

# Field numbers of onnx.proto3 (ModelProto, OperatorSetIdProto, StringStringEntryProto), fixed by the format.
_IR_VERSION, _GRAPH, _OPSET_IMPORT, _METADATA = 1, 7, 8, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


@dataclass(frozen=True)
class OnnxHeader:
    """The outer fields of a model file."""

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)  # domain -> version; "" is the standard one
    metadata: dict[str, str] = field(default_factory=dict)


def read_header(path: Path) -> OnnxHeader:
    """Walk the outer fields of ``path``, jumping over the graph.

    Raises:
        ArtifactError: the bytes are not a whole ONNX model.
    """
    ir_version, opsets, metadata, has_graph = 0, dict[str, int](), dict[str, str](), False
    try:
        with path.open("rb") as stream:
            for number, value in _fields(stream, os.fstat(stream.fileno()).st_size, keep=(_OPSET_IMPORT, _METADATA)):
                if number == _IR_VERSION and isinstance(value, int):
                    ir_version = value
                elif number == _GRAPH:
                    has_graph = True
                elif number == _OPSET_IMPORT and isinstance(value, bytes):
                    parts = dict(_message(value))
                    opsets[_text(parts.get(1, b""))] = int(parts.get(2, 0))
                elif number == _METADATA and isinstance(value, bytes):
                    parts = dict(_message(value))
                    metadata[_text(parts.get(1, b""))] = _text(parts.get(2, b""))
    except (EOFError, ValueError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not a whole ONNX file ({error})", remedy="copy or export it again") from error
    if not (has_graph and ir_version):
        raise ArtifactError(f"{path}: not an ONNX model (no graph in it)", remedy="copy or export it again")
    return OnnxHeader(ir_version, opsets, metadata)


def _fields(stream: BinaryIO, end: int, keep: tuple[int, ...]) -> Iterator[tuple[int, int | bytes]]:
    """Each (field number, value) up to ``end``; the bytes of fields not in ``keep`` are skipped and given as empty."""
    while stream.tell() < end:
        key = _varint(stream)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            yield number, _varint(stream)
        elif wire == _BYTES:
            length = _varint(stream)
            if stream.tell() + length > end:
                raise EOFError(f"it ends {stream.tell() + length - end} bytes too early")
            if number in keep:
                yield number, stream.read(length)
            else:
                stream.seek(length, os.SEEK_CUR)
                yield number, b""
        elif wire in (_FIXED32, _FIXED64):
            stream.seek(4 if wire == _FIXED32 else 8, os.SEEK_CUR)
        else:
            raise ValueError(f"unknown wire type {wire} at byte {stream.tell()}")


def _message(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    import io

    return _fields(io.BytesIO(data), len(data), keep=(1, 2))


def _varint(stream: BinaryIO) -> int:
    result, shift = 0, 0
    while shift < 70:  # ten bytes of seven bits hold any 64-bit number
        byte = stream.read(1)
        if not byte:
            raise EOFError("it ends inside a number")
        result |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return result
        shift += 7
    raise ValueError(f"no number at byte {stream.tell()}")


def _text(value: int | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
