"""JSON that is more than it seems: refused before it grows, while every honest request is read as before."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl.core.artifact.tensors import ANY, TensorSpec
from gddctl.serve.http.infer_json import HEADER, array_of, longest_body, parse, weigh
from gddctl.serve.http.limits import Memory
from gddctl.serve.http.refusal import Refusal
from tests.conftest import SIZE, Exported
from tests.serve.http.conftest import DEPLOY, LOGITS, Known, Server, running

H, W = SIZE
PATH = f"/v2/models/{DEPLOY}/infer"
MIB = 1 << 20
GROWTH_MIB = 80  # a request for this small model holds a few MiB
IMAGE = TensorSpec("image", "uint8", (ANY, 12, 16, 3), "BHWC")
PLANES = TensorSpec("image", "float32", (ANY, 3, 12, 16), "BCHW")
BATCH = 4
SIZES = (BATCH, 12, 16, 3)
LONGEST = -2.2250738585072014e-308


def peak_mib(server: Server) -> float:
    """The most memory that the server has had."""
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def request(data: bytes) -> bytes:
    return b'{"inputs":[{"name":"image","datatype":"UINT8","shape":[1,%d,%d,3],"data":%s}]}' % (H, W, data)


HOSTILE: dict[str, tuple[bytes, int]] = {
    "one long word among short ones": (b'["%s"%s]' % (b"a" * 15_000, b',"b"' * 5_000), 400),
    "empty lists": (b"[[]%s]" % (b",[]" * 20_000), 400),
    "lists in lists": (b"[" * 800 + b"]" * 800, 400),
    "words as many as values": (b'["aaaaaaaaaaaaaaaaaaaa"%s]' % (b',"b"' * (H * W * 3 - 1)), 400),
    "more numbers than any batch has": (b"[0%s]" % (b",0" * 3_000_000), 413),
    "megabytes of empty lists": (b"[[]%s]" % (b",[]" * 2_000_000), 413),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_json_that_grows_is_refused_and_holds_nothing(server: Server, known: Known, name: str, packed: bool) -> None:
    data, status = HOSTILE[name]
    body, before = request(data), peak_mib(server)
    answer = server.post(PATH, gzip.compress(body), Content_Encoding="gzip") if packed else server.post(PATH, body)
    assert (answer.status, answer.status == 413) == (status, "images take at most" in answer.error), answer.error
    assert peak_mib(server) - before < GROWTH_MIB
    assert server.metric("gddctl_held_bytes") == 0


def test_the_question_for_the_index_is_short(server: Server) -> None:
    assert server.post("/v2/repository/index", b'{"ready": true}').status == 200
    answer = server.post("/v2/repository/index", b"[[]%s]" % (b",[]" * 50_000))
    assert answer.status == 413 and "index" in answer.error


def test_the_largest_batch_written_in_full_passes(server: Server) -> None:
    """Flat and nested, with room to spare after every comma; the text counts for the memory, and is forgotten."""
    values = np.full((8, 3, H, W), LONGEST)
    for data in (values.ravel().tolist(), values.tolist()):
        tensor = {"name": "image", "datatype": "FP32", "shape": [8, 3, H, W], "data": data}
        body = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        assert server.post(f"/v2/models/{LOGITS}/infer", body).status == 200
    assert server.metric("gddctl_held_bytes") == 0


@pytest.mark.parametrize("length", ["²", "9" * 5000])
def test_a_length_that_is_no_number_is_a_400(server: Server, length: str) -> None:
    assert server.ask("POST", PATH, request(b"[0]"), {"Inference-Header-Content-Length": length}).status == 400


def test_no_memory_left_is_a_503(psp: Exported, known: Known) -> None:
    code = "import gddctl.serve.http.infer_codec as codec\ndef full(*_): raise MemoryError\ncodec.array_of = full"
    with running(psp.int8_deploy.path, "--name", DEPLOY, code=code) as server:
        server.wait_ready()
        answer = server.post(PATH, request(b"[]"))
        assert answer.status == 503 and "memory" in answer.error and "retry-after" in answer.headers
        assert server.metric("gddctl_rejected_total", reason="memory") == 1


def test_one_request_beyond_the_whole_allowance_is_not_told_to_try_again() -> None:
    with Memory(100).holding() as holding, pytest.raises(Refusal, match="--max-memory-mb") as caught:
        holding.take(101)
    assert caught.value.status == 413


def texts() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    count = int(np.prod(SIZES))
    wide, small = rng.normal(size=count) * 1e-300, rng.integers(0, 256, count)
    return {
        "floats": json.dumps(wide.tolist()).encode(),
        "short floats": json.dumps([1e9] * count, separators=(",", ":")).encode(),
        "wide integers": json.dumps([1000 + index for index in range(count)], separators=(",", ":")).encode(),
        "nested": json.dumps(small.reshape(SIZES).tolist(), separators=(",", ":")).encode(),
        "empty lists": b"[" + b"[]," * 4000 + b"0]",
        "lists of one": b"[" + b"[0]," * 4000 + b"0]",
        "objects": b"[" + b'{"":0},' * 1900 + b"0]",
        "deep objects": b'{"":' * 600 + b"0" + b"}" * 600,
        "words": b"[" + b'"ab",' * 2000 + b"0]",
        "one word": b'["' + b"a" * 50_000 + b'"]',
        "a wide word": b'["' + b"a" * 50_000 + "😀".encode() + b'"]',
        "an escaped wide word": b'["' + b"a" * 50_000 + b'\\ud83d\\ude00"]',
    }


@pytest.mark.parametrize("name", texts())
def test_a_text_holds_no_more_than_it_weighs(name: str) -> None:
    text = texts()[name]
    weight = weigh(text, PLANES, BATCH)
    parse(b"[0.5, 7]"), array_of([0.5] * 576, (1, 3, 12, 16), PLANES)  # what is made once
    tracemalloc.start()
    try:
        found = parse(text)
        with suppress(Refusal):
            array_of(found, (BATCH, 3, 12, 16), PLANES)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held <= weight + 4096, (held, weight)


@pytest.mark.parametrize(("mark", "name"), [(b"[0],", "lists"), (b'{"":0},', "objects"), (b'"",', "quotes"), (b"0,", "commas")])
def test_a_text_of_other_things_than_numbers_is_not_parsed(mark: bytes, name: str) -> None:
    text = b"[" + mark * 20_000 + b"0]"
    with pytest.raises(Refusal, match=name) as caught:
        weigh(text, IMAGE, BATCH)
    assert caught.value.status == 400


def test_the_longest_body_holds_the_longest_numbers() -> None:
    whole = json.dumps(np.full((BATCH, 3, 12, 16), LONGEST).tolist()).encode()
    assert len(whole) < longest_body(PLANES, BATCH) - HEADER // 2
    assert weigh(whole, PLANES, BATCH) > len(whole)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("wanted", [IMAGE, PLANES])
def test_numbers_come_out_as_they_went_in(wanted: TensorSpec, nested: bool) -> None:
    sizes = (2, *wanted.item_shape)
    values = np.random.default_rng(1).integers(0, 256, sizes)
    data: Any = values.tolist() if nested else values.ravel().tolist()
    found = array_of(parse(json.dumps(data).encode()), sizes, wanted)
    assert found.dtype == wanted.dtype and found.flags.writeable and np.array_equal(found, values)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (7, "shape \\[\\]"),
        ([], "shape \\[0\\]"),
        ([0] * 575, "shape \\[575\\]"),
        ([[0] * 576], "ragged"),
        ([[[[0] * 3] * 16] * 12, 0], "ragged"),
        ([[[[0] * 3] * 16] * 11 + [[[0] * 3] * 15 + [[0] * 2]]], "ragged"),
        ([True] + [0] * 575, "0 to 255"),
        ([None] * 576, "0 to 255"),
        ([{}] * 576, "0 to 255"),
        ([10**400] * 576, "0 to 255"),
        ([1.0] * 576, "0 to 255"),
    ],
)
def test_what_is_no_tensor_is_named(data: Any, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        array_of(data, (1, 12, 16, 3), IMAGE)
    for beyond in (10**400, 1e39, -1e300):
        with pytest.raises(Refusal, match="range of FP32"):
            array_of([beyond] * 576, (1, 3, 12, 16), PLANES)
    with pytest.raises(Refusal, match="must be numbers"):
        array_of([False] * 576, (1, 3, 12, 16), PLANES)
