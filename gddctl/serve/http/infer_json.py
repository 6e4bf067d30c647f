"""The JSON of an inference request: weighed before it is parsed, and its numbers made an array without trusting their form.

Parsed JSON is many times as large as its text, and parsing holds up every thread of the process. So a text must look like numbers for
this model, by its length and by the marks in it, before anything is made of it.
"""

from __future__ import annotations

import json
from itertools import chain
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.tensors import TensorSpec
from gddctl.serve.http.refusal import malformed

HEADER = 1 << 16  # bytes of JSON for names, shapes and parameters
_VALUE = 26  # bytes of the longest number of 64 bits with what separates it: "-2.2250738585072014e-308, "
_MARKS = 4096  # commas, brackets, braces and quotes for names, shapes and parameters

# Bytes that CPython and numpy hold while a text is read, at most. A number: itself (32), pointers to it in its list (9) and in a flat one
# (11), and its place in the arrays (12). A list or an object: with room for four, or eight. Text: decoded, and once more in its strings,
# where one character beyond ASCII makes every other four bytes wide.
_NUMBER, _LIST, _OBJECT, _QUOTE = 64, 96, 320, 40
_NARROW, _WIDE = 2, 8


def longest_body(wanted: TensorSpec, max_batch: int) -> int:
    """Bytes of the longest request that brings ``max_batch`` images, its numbers written in full; binary ones are shorter."""
    return HEADER + _VALUE * max_batch * prod(wanted.item_shape)


def weigh(text: bytes, wanted: TensorSpec, max_batch: int) -> int:
    """Bytes held while ``text`` is parsed and its numbers are made an array, at most.

    Raises:
        Refusal: 400, it has more in it than numbers for ``max_batch`` images and a header.
    """
    numbers, lists = max_batch * prod(wanted.item_shape), 1 + max_batch
    for side in wanted.item_shape[:-1]:
        lists += lists * side  # a little more than there are: one for each row of every axis
    found = [text.count(mark) for mark in (b"[", b"{", b'"', b",")]
    for name, count, most in zip(("lists", "objects", "quotes", "commas"), found, (lists, 0, 0, numbers), strict=True):
        if count > most + _MARKS:
            raise malformed(f"the request is not JSON for this model: {count} {name}, expected at most {most + _MARKS}")
    opened, objects, quotes, commas = found
    letters = _NARROW if text.isascii() and b"\\" not in text else _WIDE
    return letters * len(text) + _NUMBER * (commas + 1) + _LIST * opened + _OBJECT * objects + _QUOTE * quotes


def parse(text: bytes) -> Any:
    """What the JSON says.

    Raises:
        Refusal: 400, not JSON in UTF-8, or too deep, or with a number that is none.
    """
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # a JSONDecodeError and a UnicodeDecodeError are ValueErrors
        reason = str(error) if isinstance(error, json.JSONDecodeError) else "not UTF-8, too deep, or a number without end"
        raise malformed(f"the request is not JSON: {reason[:120]}") from error


def _no_constant(name: str) -> NoReturn:
    raise malformed(f"{name} is not JSON; send it as binary data")


def array_of(data: Any, sizes: tuple[int, ...], wanted: TensorSpec) -> NDArray[Any]:
    """Numbers, flat or nested, in row-major order, as an array of ``sizes``; nothing is rounded or wrapped around in silence.

    Raises:
        Refusal: 400, not as many, not in that order, or not such numbers.
    """
    flat = _flat(data, sizes, wanted)
    kinds = set(map(type, flat))
    if wanted.dtype == "uint8":
        if kinds != {int} or min(flat) < 0 or max(flat) > 255:
            raise malformed(f"the data of input '{wanted.name}' must be whole numbers from 0 to 255")
        return np.frombuffer(bytearray(flat), np.uint8).reshape(sizes)
    if not kinds <= {int, float}:
        raise malformed(f"the data of input '{wanted.name}' must be numbers")
    try:
        wide = np.array(flat, np.float64)
    except OverflowError as error:
        raise _beyond_fp32(wanted) from error
    with np.errstate(over="ignore"):
        values = wide.astype(np.float32).reshape(sizes)
    if not np.isfinite(values).all():
        raise _beyond_fp32(wanted)
    return values


def _flat(data: Any, sizes: tuple[int, ...], wanted: TensorSpec) -> list[Any]:
    """All values in one list. Walks one axis at a time, no further than the shape goes."""
    count = prod(sizes)
    if isinstance(data, list) and len(data) == count and not isinstance(data[0], list):
        return data
    level: list[Any] = [data]
    for side in sizes:
        if set(map(type, level)) != {list} or set(map(len, level)) != {side}:
            raise malformed(
                f"input '{wanted.name}' is ragged, or has its values in shape {_outline(data)}; "
                f"expected {count} numbers for {list(sizes)}, flat or nested"
            )
        level = list(chain.from_iterable(level))
    return level


def _outline(data: Any) -> list[int]:
    """The lengths of the lists on the way to the first value, as far as a tensor may go."""
    found = list[int]()
    while isinstance(data, list) and len(found) < 6:
        found.append(len(data))
        data = data[0] if data else None
    return found


def _beyond_fp32(wanted: TensorSpec) -> Exception:
    return malformed(f"the data of input '{wanted.name}' leaves the range of FP32")
