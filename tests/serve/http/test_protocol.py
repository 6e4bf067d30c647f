"""tritonclient[http], unchanged, against the real server; and requests that it would never send."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from gddctl.prove.predict import network_input
from gddctl.runtime.open import open_runtime
from tests.conftest import SIZE, Exported
from tests.serve.http.conftest import DEPLOY, LOGITS, Known, Server, binary_request

H, W = SIZE
PATH = f"/v2/models/{DEPLOY}/infer"


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    return triton.InferenceServerClient(server.address, network_timeout=60)


def tensor(array: Any, datatype: str = "UINT8", *, binary: bool = True, name: str = "image") -> Any:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def test_health_and_metadata(client: Any, psp: Exported) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(DEPLOY) and client.is_model_ready(LOGITS, "1")
    assert not client.is_model_ready("nobody") and not client.is_model_ready(DEPLOY, "2")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    index = client.get_model_repository_index()
    assert [(row["name"], row["state"]) for row in index] == [(DEPLOY, "READY"), (LOGITS, "READY")]
    metadata = client.get_model_metadata(DEPLOY, "1")
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, H, W, 3]}]
    assert metadata["outputs"] == [{"name": "mask", "datatype": "UINT8", "shape": [-1, H, W]}]
    config = client.get_model_config(LOGITS)
    assert config["max_batch_size"] == 8 and config["parameters"]["sha256"]["string_value"] == psp.fp32.sha256


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
def test_deploy_graph_in_every_form(client: Any, known: Known, binary_in: bool, binary_out: bool, compression: str | None) -> None:
    result = client.infer(
        DEPLOY,
        [tensor(known.images[:2], binary=binary_in)],
        outputs=[triton.InferRequestedOutput("mask", binary_data=binary_out)],
        request_id="seven",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    assert (result.as_numpy("mask") == known.masks[:2]).all()
    assert result.get_response()["id"] == "seven" and result.get_response()["model_version"] == "1"


@pytest.mark.parametrize("binary", [True, False])
def test_logits_graph(client: Any, psp: Exported, known: Known, binary: bool) -> None:
    with open_runtime(psp.fp32.path, threads=1) as runtime:
        batch = network_input(known.images[0], runtime.info)[0][None]
        expected = runtime.run(batch)
    answer = client.infer(
        LOGITS, [tensor(batch, "FP32", binary=binary)], outputs=[triton.InferRequestedOutput("logits", binary_data=binary)]
    )
    assert (answer.as_numpy("logits") == expected).all()  # the same file, batch and thread count: the same bits, also through JSON


def test_without_named_outputs_the_only_one_comes(client: Any, known: Known) -> None:
    assert (client.infer(DEPLOY, [tensor(known.images[:1])]).as_numpy("mask") == known.masks[:1]).all()


def test_an_unaligned_float_tensor_is_read_right(server: Server, psp: Exported, known: Known) -> None:
    with open_runtime(psp.fp32.path, threads=1) as runtime:
        batch = network_input(known.images[3], runtime.info)[0][None]
        expected = runtime.run(batch)
    for spaces in range(4):  # of four lengths of JSON one at most leaves the floats aligned
        body, headers = binary_request(batch, "FP32", id=" " * spaces)
        answer = server.ask("POST", f"/v2/models/{LOGITS}/infer", body, headers)
        head = int(answer.headers["inference-header-content-length"])
        assert (np.frombuffer(answer.body[head:], np.float32).reshape(expected.shape) == expected).all()


def test_statistics_count_what_was_done(client: Any, known: Known) -> None:
    def counts() -> Any:
        return client.get_inference_statistics(DEPLOY)["model_stats"][0]

    before = counts()
    client.infer(DEPLOY, [tensor(known.images[:3])])
    after = counts()
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 1
    assert {row["name"] for row in client.get_inference_statistics()["model_stats"]} == {DEPLOY, LOGITS}


def test_triton_reports_our_errors(client: Any, known: Known) -> None:
    image = known.images[:1]
    with pytest.raises(InferenceServerException, match="no model 'nobody'"):
        client.infer("nobody", [tensor(image)])
    with pytest.raises(InferenceServerException, match="no version '7'"):
        client.infer(DEPLOY, [tensor(image)], model_version="7")
    with pytest.raises(InferenceServerException, match="no input 'picture'"):
        client.infer(DEPLOY, [tensor(image, name="picture")])
    with pytest.raises(InferenceServerException, match="expected UINT8"):
        client.infer(DEPLOY, [tensor(image.astype(np.float32), "FP32")])
    with pytest.raises(InferenceServerException, match=r"expected \[-1, "):
        client.infer(DEPLOY, [tensor(np.ascontiguousarray(image[:, 1:]))])
    with pytest.raises(InferenceServerException, match="at most 8 images"):
        client.infer(DEPLOY, [tensor(known.images[:9])])
    with pytest.raises(InferenceServerException, match="no output 'depth'"):
        client.infer(DEPLOY, [tensor(image)], outputs=[triton.InferRequestedOutput("depth")])
    with pytest.raises(InferenceServerException, match="classification"):
        client.infer(DEPLOY, [tensor(image)], outputs=[triton.InferRequestedOutput("mask", class_count=3)])
    with pytest.raises(InferenceServerException, match="sequences"):
        client.infer(DEPLOY, [tensor(image)], sequence_id=9, sequence_start=True)
    shared = triton.InferInput("image", list(image.shape), "UINT8")
    shared.set_shared_memory("region", image.nbytes)
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.infer(DEPLOY, [shared])
    with pytest.raises(InferenceServerException, match="chosen when the server starts"):
        client.load_model("another")
    assert (client.infer(DEPLOY, [tensor(image)]).as_numpy("mask") == known.masks[:1]).all()


PIXELS = H * W * 3
GOOD: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": [1, H, W, 3]}


def with_(**changes: Any) -> bytes:
    """A whole request with something else beside its inputs."""
    return json.dumps({"inputs": [{**GOOD, "data": [0] * PIXELS}], **changes}).encode()


def of(**changes: Any) -> bytes:
    """A request with something else in its one input."""
    return json.dumps({"inputs": [{**GOOD, "data": [0] * PIXELS, **changes}]}).encode()


BAD_JSON: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not JSON"),
    "no JSON": (b"{'inputs'", "not JSON"),
    "not UTF-8": (b'"\xff\xfe"', "not JSON"),
    "a list": (b"[]", "must be a JSON object"),
    "too deep": (b"[" * 100_000, "not JSON"),
    "an endless number": (of(shape="SHAPE").replace(b'"SHAPE"', b"9" * 5000), "not JSON"),
    "NaN": (of(data="DATA").replace(b'"DATA"', b"[NaN]"), "NaN is not JSON"),
    "no inputs": (b"{}", "'inputs' must be a list"),
    "two inputs": (json.dumps({"inputs": [GOOD, GOOD]}).encode(), "'inputs' must be a list"),
    "an input that is none": (b'{"inputs": [1]}', "an input must be a JSON object"),
    "no name": (of(name=None), "no input None"),
    "a shape of words": (of(shape=["1", H, W, 3]), "list of numbers"),
    "a shape of truths": (of(shape=[True, H, W, 3]), "list of numbers"),
    "an empty batch": (of(shape=[0, H, W, 3], data=[]), "expected"),
    "a negative batch": (of(shape=[-1, H, W, 3]), "expected"),
    "an endless batch": (of(shape=[10**30, H, W, 3]), "at most 8 images"),
    "no data": (json.dumps({"inputs": [GOOD]}).encode(), "neither 'data' nor"),
    "both kinds of data": (of(parameters={"binary_data_size": PIXELS}), "both 'data' and"),
    "binary data that is not there": (with_(inputs=[{**GOOD, "parameters": {"binary_data_size": PIXELS}}]), "follow the JSON"),
    "too few values": (of(data=[0] * (PIXELS - 1)), "values in shape"),
    "values in another shape": (of(data=np.zeros((1, W, H, 3), int).tolist()), "values in shape"),
    "a value of 256": (of(data=[256] * PIXELS), "0 to 255"),
    "a value of -1": (of(data=[-1] * PIXELS), "0 to 255"),
    "half a pixel": (of(data=[0.5] * PIXELS), "0 to 255"),
    "words": (of(data=["0"] * PIXELS), "quotes"),
    "a word among numbers": (of(data=[0] * (PIXELS - 1) + ["0"]), "0 to 255"),
    "ragged": (of(data=[[0], [0, 0]]), "ragged"),
    "parameters of another kind": (of(parameters=[1]), "must be a JSON object"),
    "an id that is a number": (with_(id=7), "'id' must be a string"),
    "patience in words": (with_(parameters={"timeout": "long"}), "microseconds"),
    "a flag in words": (with_(parameters={"binary_data_output": "yes"}), "true or false"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_JSON)
def test_wrong_requests_are_named(server: Server, name: str) -> None:
    body, words = BAD_JSON[name]
    answer = server.post(PATH, body)
    assert answer.status == 400 and words in answer.error


def test_numbers_beyond_fp32_are_refused(server: Server) -> None:
    body = json.dumps({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 3, H, W], "data": [1e39] * PIXELS}]}).encode()
    for text in (body, body.replace(b"1e+39", b"1e999")):
        assert "range of FP32" in server.post(f"/v2/models/{LOGITS}/infer", text).error


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "٣", "999999999", "9" * 40, "0"])
def test_a_wrong_length_of_the_json_is_refused(server: Server, known: Known, length: str) -> None:
    body, _ = binary_request(known.images[:1])
    answer = server.ask("POST", PATH, body, {"Inference-Header-Content-Length": length.encode().decode("latin-1")})
    assert answer.status == 400 and answer.error


@pytest.mark.parametrize("cut", [1, -1])
def test_binary_data_of_another_length_is_refused(server: Server, known: Known, cut: int) -> None:
    body, headers = binary_request(known.images[:1])
    answer = server.ask("POST", PATH, body[:-cut] if cut > 0 else body + b"x", headers)
    assert answer.status == 400 and "bytes" in answer.error


def test_head_is_get_without_its_body(server: Server) -> None:
    for path in ("/", "/v2/health/ready", "/models"):
        head, whole = server.ask("HEAD", path), server.get(path)
        assert head.status == whole.status == 200 and head.body == b""
        assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.body))
    assert server.ask("HEAD", "/predict").status == 405


def test_answers_tell_no_path_and_no_code(server: Server, psp: Exported) -> None:
    for answer in (server.get("/nowhere"), server.ask("DELETE", "/v2"), server.get("/v2/models/../../etc"), server.get("/predict")):
        assert answer.status in (404, 405) and answer.error
        assert str(psp.bundle.parent) not in answer.body.decode() and "File" not in answer.error
    assert server.get("/v2").headers["x-content-type-options"] == "nosniff"
