"""Inference requests and answers of the Open Inference Protocol, from and to bytes: tensors in JSON or binary after it.

KServe's V2 protocol with Triton's binary tensor data extension. Binary tensors are never copied on the way in: an array looks at the
body's bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.tensors import TensorSpec
from gddctl.serve.http.infer_json import HEADER, array_of, parse, weigh
from gddctl.serve.http.refusal import malformed, unsupported

_SHARED = "shared_memory_region"
_SEQUENCE = "sequence_id"


@dataclass(frozen=True)
class InferRequest:
    """What a client asks.

    Attributes:
        batch: (B, ...) of the model's input type; read only when it came as binary.
        id: given back with the answer.
        binary: send the output after the JSON instead of in it.
        timeout_s: the client's own patience, from the parameter ``timeout`` in microseconds.
    """

    batch: NDArray[Any]
    id: str | None
    binary: bool
    timeout_s: float | None


def parse_request(
    body: bytes, header_length: str | None, wanted: TensorSpec, output: TensorSpec, max_batch: int, take: Callable[[int], None]
) -> InferRequest:
    """Read a request.

    Args:
        body: JSON, with binary tensors after it when ``header_length`` is given.
        header_length: of the header Inference-Header-Content-Length: bytes of JSON.
        wanted: the model's input.
        output: the model's output.
        max_batch: images that one request may bring.
        take: told the bytes that its JSON will hold, before it is parsed.

    Raises:
        Refusal: 400, saying what was found and what is expected; or what ``take`` raises.
    """
    end = json_end(body, header_length)
    text = body[:end] if end < len(body) else body
    take(weigh(text, wanted, max_batch))
    request = _object(parse(text), "the request")
    parameters = _parameters(request, "the request")
    if parameters.get(_SEQUENCE):
        raise unsupported("sequences are not supported: every request stands by itself")
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise malformed(f"'inputs' must be a list of one tensor, '{wanted.name}'")
    batch, used = _input(_object(inputs[0], "an input"), memoryview(body)[end:], wanted, max_batch)
    if used != len(body) - end:
        raise malformed(f"{len(body) - end} bytes follow the JSON, but its inputs account for {used}")
    binary = _binary_wanted(request, parameters, output)
    identity = request.get("id")
    if identity is not None and not isinstance(identity, str):
        raise malformed("'id' must be a string")
    return InferRequest(batch, identity, binary, _patience(parameters))


def render_answer(answer: NDArray[Any], request: InferRequest, model: str, version: str, output: TensorSpec) -> tuple[bytes, int | None]:
    """The answer's body, and the bytes of JSON in it when binary data follows.

    Raises:
        Refusal: 400, NaN or infinity cannot be written in JSON.
    """
    tensor: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(answer.shape)}
    head: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": [tensor]}
    if request.id is not None:
        head["id"] = request.id
    if request.binary:
        tensor["parameters"] = {"binary_data_size": answer.nbytes}
        text = json.dumps(head).encode()
        data = np.ascontiguousarray(answer, answer.dtype.newbyteorder("<"))
        return b"".join((text, data.data.cast("B"))), len(text)
    if not np.isfinite(answer).all():
        raise malformed("the answer holds NaN or infinity, which JSON has no words for: ask for binary data")
    tensor["data"] = answer.ravel().tolist()
    return json.dumps(head).encode(), None


def json_end(body: bytes, header_length: str | None) -> int:
    """Bytes of JSON at the beginning of a request's body.

    Raises:
        Refusal: 400, ``header_length`` is none, or not that of this body.
    """
    if header_length is None:
        return len(body)
    if not (header_length.isascii() and header_length.isdigit()) or len(header_length) > 12:
        raise malformed("Inference-Header-Content-Length must be a number of bytes")
    end = int(header_length)
    if end > len(body):
        raise malformed(f"Inference-Header-Content-Length is {end}, but the body has {len(body)} bytes")
    if end > HEADER and end < len(body):
        raise malformed(f"{end} bytes of JSON before binary data, expected at most {HEADER}")
    return end


def _input(tensor: dict[str, Any], binary: memoryview, wanted: TensorSpec, max_batch: int) -> tuple[NDArray[Any], int]:
    """The input's array and how many bytes of ``binary`` it takes."""
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if name != wanted.name:
        raise malformed(f"there is no input {_shown(name)}; expected '{wanted.name}'")
    if datatype != wanted.datatype:
        raise malformed(f"input '{wanted.name}' is {_shown(datatype)}, expected {wanted.datatype}")
    sizes = _shape(shape, wanted, max_batch)
    parameters = _parameters(tensor, f"input '{wanted.name}'")
    if _SHARED in parameters:
        raise unsupported("shared memory is not supported; send the tensor with the request")
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in tensor:
            raise malformed(f"input '{wanted.name}' has neither 'data' nor 'binary_data_size'")
        return array_of(tensor["data"], sizes, wanted), 0
    if "data" in tensor:
        raise malformed(f"input '{wanted.name}' has both 'data' and 'binary_data_size'")
    expected = sizes[0] * wanted.item_bytes
    if isinstance(size, bool) or not isinstance(size, int) or size != expected or size > len(binary):
        raise malformed(f"binary_data_size is {_shown(size)}; shape {sizes} takes {expected} bytes, and {len(binary)} follow the JSON")
    array = np.frombuffer(binary[:size], np.dtype(wanted.dtype).newbyteorder("<")).reshape(sizes)
    if not array.flags.aligned or not array.dtype.isnative:
        array = array.astype(wanted.dtype)
    return array, size


def _shape(shape: Any, wanted: TensorSpec, max_batch: int) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(isinstance(side, int) and not isinstance(side, bool) for side in shape):
        raise malformed(f"the shape of input '{wanted.name}' must be a list of numbers")
    if len(shape) != len(wanted.shape) or tuple(shape[1:]) != wanted.item_shape or shape[0] < 1:
        raise malformed(f"input '{wanted.name}' has shape {_shown(shape)}, expected {list(wanted.shape)}")
    if shape[0] > max_batch:
        raise malformed(f"a batch of {_shown(shape[0])}, expected at most {max_batch} images in a request")
    return tuple(shape)


def _binary_wanted(request: dict[str, Any], parameters: dict[str, Any], output: TensorSpec) -> bool:
    """Whether the one output goes after the JSON: the output's own wish, else the request's."""
    everything = _flag(parameters, "binary_data_output")
    outputs = request.get("outputs")
    if outputs is None or outputs == []:
        return bool(everything)
    if not isinstance(outputs, list) or len(outputs) != 1:
        raise malformed(f"'outputs' must be a list of one tensor, '{output.name}'")
    wanted = _object(outputs[0], "an output")
    if wanted.get("name") != output.name:
        raise malformed(f"there is no output {_shown(wanted.get('name'))}; expected '{output.name}'")
    own = _parameters(wanted, f"output '{output.name}'")
    if _SHARED in own:
        raise unsupported("shared memory is not supported; outputs come with the answer")
    if own.get("classification"):
        raise unsupported("the classification extension is not supported: the output is a map of classes already")
    asked = _flag(own, "binary_data")
    return bool(everything if asked is None else asked)


def _patience(parameters: dict[str, Any]) -> float | None:
    microseconds = parameters.get("timeout")
    if microseconds is None:
        return None
    if isinstance(microseconds, bool) or not isinstance(microseconds, int) or not 0 <= microseconds < 1 << 53:
        raise malformed("the parameter 'timeout' must be microseconds, a whole number")
    return microseconds / 1e6 or None


def _flag(parameters: dict[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise malformed(f"the parameter '{name}' must be true or false")
    return value


def _parameters(of: dict[str, Any], place: str) -> dict[str, Any]:
    found = of.get("parameters")
    return {} if found is None else _object(found, f"the parameters of {place}")


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise malformed(f"{place} must be a JSON object")
    return value


def _shown(value: Any) -> str:
    """A client's own words, short enough to give back."""
    if isinstance(value, (list, dict)) and len(value) > 16:
        return f"a {'list' if isinstance(value, list) else 'JSON object'} of {len(value)}"
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
