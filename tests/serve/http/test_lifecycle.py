"""Start, address, token, a file that changes, SIGTERM: how a server begins and ends."""

from __future__ import annotations

import shutil
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from gddctl.core.errors import UsageError
from gddctl.serve.http.auth import Gate, read_token
from gddctl.serve.http.lifecycle import bind
from gddctl.serve.http.names import model_names
from tests.commands.conftest import call
from tests.conftest import Exported
from tests.serve.http.conftest import BUSY, DEPLOY, MINUTE, Answer, Known, Server, binary_request, running

PATH = f"/v2/models/{DEPLOY}/infer"
BLOCKED = """
import sys, importlib.abc
NAMES = ('torch', 'torchvision', 'timm', 'onnx', 'albumentations', 'matplotlib', 'jinja2', 'openvino', 'pynvml')
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in NAMES:
            raise ImportError('blocked: ' + name)
sys.meta_path.insert(0, Block())
"""
BUG = """
import gddctl.serve.http.served as served
def fail(self):
    raise RuntimeError("secret of /the/path")
served.Served.platform = property(fail)
"""
SLOW = """
import time
import gddctl.serve.http.served as served
load = served.Served.load
def late(self):
    time.sleep(3)  # long enough for the questions below, whatever else the machine does
    load(self)
served.Served.load = late
"""


def test_an_exported_file_is_served_without_torch(psp: Exported, known: Known) -> None:
    with running(psp.int8_deploy.path, code=BLOCKED) as server:
        assert server.get("/v2/health/live").status == 200  # answers as soon as the address is told
        server.wait_ready()
        name = psp.int8_deploy.path.stem
        assert server.announced["models"] == [name] and server.announced["pid"] == server.process.pid
        body, headers = binary_request(known.images[:1])
        assert server.ask("POST", f"/v2/models/{name}/infer", body, headers).body.endswith(known.masks[:1].tobytes())
        assert server.end() == 0


def test_a_bundle_needs_torch_and_says_so(psp: Exported, known: Known) -> None:
    with running(psp.bundle, "--name", "bundle") as server:
        server.wait_ready()
        assert "a bundle: it runs on torch" in server.log
        assert server.get("/v2/models/bundle").json["platform"] == "pytorch"
    with running(psp.bundle, code=BLOCKED) as blocked:  # live first, then the model is opened
        assert blocked.process.wait(MINUTE) == 4
    assert "needs the module 'torch'" in blocked.log and 'pip install "gddctl[train]"' in blocked.log


def test_not_ready_while_it_loads(psp: Exported, known: Known) -> None:
    with running(psp.int8_deploy.path, "--name", DEPLOY, code=SLOW) as server:
        assert server.get("/v2/health/live").status == 200
        assert server.get("/v2/health/ready").status == 503 and server.get(f"/v2/models/{DEPLOY}/ready").status == 503
        assert server.post("/v2/repository/index").json[0]["state"] == "LOADING"
        assert server.post("/v2/repository/index", b'{"ready": true}').json == []
        body, headers = binary_request(known.images[:1])
        early = server.ask("POST", PATH, body, headers)
        assert early.status == 503 and "still loading" in early.error and "retry-after" in early.headers
        server.wait_ready()
        assert server.ask("POST", PATH, body, headers).status == 200


def test_what_cannot_be_served_ends_the_command(psp: Exported, tmp_path: Path) -> None:
    onnx = psp.int8_deploy.path
    assert call("serve", tmp_path / "gone.onnx", "--port", "0").code == 2
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(onnx.read_bytes()[:-1000])
    assert call("serve", broken, "--port", "0").code == 5
    changed = tmp_path / onnx.name  # the header is right, the manifest beside it says otherwise: found while it loads
    data = bytearray(onnx.read_bytes())
    data[len(data) // 2] ^= 1
    changed.write_bytes(data)
    shutil.copy(onnx.parent / "manifest.json", tmp_path)
    found = call("serve", changed, "--port", "0")
    assert found.code == 5 and "sha256" in found.err.lower()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="--host 256"):
        bind("256.0.0.1", 0)
    for no_name in ("a..b", "a" * 100):
        with pytest.raises(UsageError, match=r"--host a.*: no such address"):
            bind(no_name, 0)
    with pytest.raises(UsageError, match="cannot be listened on"):
        bind("192.0.2.1", 0)  # of the block for examples: nobody's
    with bind("127.0.0.1", 0) as taken, pytest.raises(UsageError, match="choose another --port"):
        bind("127.0.0.1", taken.getsockname()[1])


def test_names() -> None:
    assert model_names([Path("a/x.y.onnx"), Path("b/z.engine")], []) == ["x.y", "z"]
    assert model_names([Path("a/x.onnx"), Path("b/x.onnx")], ["one", "two"]) == ["one", "two"]
    for paths, names in (
        ([Path("a/x.onnx"), Path("b/x.onnx")], []),
        ([Path("a/x.onnx"), Path("a/x.onnx")], []),
        ([Path("stats.onnx")], []),
        ([Path("ä.onnx")], []),
        ([Path("a.onnx")], [".."]),
    ):
        with pytest.raises(UsageError, match="--name"):
            model_names(paths, names)


def test_a_link_keeps_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "student.onnx").symlink_to(tmp_path / "blobs" / "2c26b46b68ff")  # as caches of models lay out their files
    (tmp_path / "bundle").mkdir()
    monkeypatch.chdir(tmp_path / "bundle")
    assert model_names([tmp_path / "student.onnx", Path()], []) == ["student", "bundle"]


def test_a_file_that_changes_or_goes_is_still_served_as_loaded(psp: Exported, known: Known, tmp_path: Path) -> None:
    copy = tmp_path / "m.onnx"
    shutil.copy(psp.int8_deploy.path, copy)
    body, headers = binary_request(known.images[:1])

    def state(server: Server) -> Any:
        return server.get("/v2/models/m/config").json["parameters"]["file"]["string_value"]

    with running(copy) as server:
        server.wait_ready()
        assert state(server) == "as loaded"
        for change, word in ((lambda: copy.write_bytes(b"something else"), "changed"), (copy.unlink, "gone")):
            change()
            assert state(server) == word
            assert server.ask("POST", "/v2/models/m/infer", body, headers).body.endswith(known.masks[:1].tobytes())
            server.wait(lambda word=word: f"is {word}; what was loaded is still served" in server.log, "the log says so")  # type: ignore[misc]
        assert server.end() == 0


def test_a_token_opens_everything_but_health(psp: Exported, known: Known, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret-of-this-test\n")
    body, headers = binary_request(known.images[:1])
    with running(psp.int8_deploy.path, "--name", DEPLOY, "--token-file", file) as server:
        server.wait(lambda: server.get("/v2/health/ready").status == 200, "ready without a token")
        assert server.get("/").status == server.get("/page.js").status == 200
        for path in ("/v2", "/metrics", "/models", "/openapi.json", f"/v2/models/{DEPLOY}", "/nowhere", "/v2/health/../models/x", "//"):
            for wrong in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": "Basic s3cret-of-this-test"},
                {"Authorization": "s3cret-of-this-test"},
            ):
                answer = server.get(path, **wrong)
                assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer" and "s3cret" not in answer.error
        assert server.ask("POST", PATH, body, headers).status == 401
        right = {"Authorization": "bearer s3cret-of-this-test"}
        assert server.ask("POST", PATH, body, {**headers, **right}).status == 200
        client = triton.InferenceServerClient(server.address)
        tensor = triton.InferInput("image", list(known.images[:1].shape), "UINT8").set_data_from_numpy(known.images[:1])
        assert (client.infer(DEPLOY, [tensor], headers=right).as_numpy("mask") == known.masks[:1]).all()
        with pytest.raises(InferenceServerException, match="bearer token"):
            client.infer(DEPLOY, [tensor])


def test_tokens_are_read_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    monkeypatch.delenv("GDDCTL_TOKEN", raising=False)
    assert read_token(None) is None
    monkeypatch.setenv("GDDCTL_TOKEN", "from-the-environment")
    assert read_token(None) == "from-the-environment"
    for bad in ("", " \n", "two words", "zwölf", "a\nb"):
        file.write_text(bad)
        with pytest.raises(UsageError, match="no token"):
            read_token(file)
    with pytest.raises(UsageError, match="cannot be read"):
        read_token(tmp_path / "none")
    gate = Gate("right")
    assert gate.admits("/v2", [(b"authorization", b"Bearer right")]) and not gate.admits("/v2", [(b"authorization", b"Bearer Right")])
    assert Gate(None).admits("/v2", [])


def test_a_bug_of_ours_is_a_bare_500(psp: Exported) -> None:
    with running(psp.int8_deploy.path, "--name", DEPLOY, code=BUG, bugs=True) as server:
        answer = server.get(f"/v2/models/{DEPLOY}")
        assert answer.status == 500 and "secret" not in answer.error and "Traceback" not in answer.body.decode()
        server.wait(lambda: "secret of /the/path" in server.log and "a bug in the server" in server.log, "the log says more")
        assert server.metric("gddctl_requests_total", code="500") == 1


def test_a_model_that_fails_is_a_503_and_its_words_stay_here(psp: Exported, known: Known) -> None:
    fault = (
        "import gddctl.runtime.ort_runtime as o\nfrom gddctl.core.errors import RunFailed\nrun = o.OrtRuntime.run\n"
        "def fails(self, batch):\n    if batch.any():\n        raise RunFailed('no memory at /the/path')\n    return run(self, batch)\n"
        "o.OrtRuntime.run = fails\n"
    )
    body, headers = binary_request(known.images[:1])
    with running(psp.int8_deploy.path, "--name", DEPLOY, code=fault) as server:
        server.wait_ready()
        answer = server.ask("POST", PATH, body, headers)
        assert answer.status == 503 and "failed on this request" in answer.error and "path" not in answer.error
        server.wait(lambda: "no memory at /the/path" in server.log, "the log says why")
        assert server.metric("gddctl_inference_failures_total", model=DEPLOY) == 1
        black = binary_request(known.images[:1] * 0)
        assert server.ask("POST", PATH, *black).status == 200  # and it goes on


def test_an_open_address_without_a_token_is_warned_about(psp: Exported) -> None:
    with running(psp.int8_deploy.path, "--host", "0.0.0.0") as server:
        server.wait_ready()
        assert "warning: listening on 0.0.0.0 without a token" in server.log
    with running(psp.int8_deploy.path, "--host", "0.0.0.0", GDDCTL_TOKEN="enough") as server:
        server.wait_ready()
        assert "without a token" not in server.log


def long_requests(server: Server, slow_batch: Any, pool: ThreadPoolExecutor, count: int) -> list[Future[Answer]]:
    """So many requests that the server has let in, all of them."""
    body, headers = binary_request(slow_batch)
    answers = [pool.submit(server.ask, "POST", PATH, body, headers) for _ in range(count)]

    def all_in() -> bool:
        # Asked first: what ends between the two questions is then missed once, never counted twice.
        answered = server.metric("gddctl_requests_total", route="/v2/models/{model}/infer")
        return answered + server.metric("gddctl_in_flight") - 1 >= count  # the question itself is in flight

    server.wait(all_in, f"{count} requests are in flight")
    return answers


def test_sigterm_finishes_what_is_in_flight_and_refuses_what_is_new(psp: Exported, known: Known, slow_batch: Any) -> None:
    body, headers = binary_request(known.images[:1])
    with running(psp.int8_deploy.path, "--name", DEPLOY, "--max-batch", str(BUSY)) as server, ThreadPoolExecutor(4) as pool:
        server.wait_ready()
        answers = long_requests(server, slow_batch, pool, 3)
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: server.get("/v2/health/ready").status == 503, "no longer ready")
        late = server.ask("POST", PATH, body, headers)
        assert late.status == 503 and "closing" in late.error and server.get("/v2/health/live").status == 200
        assert [answer.result(MINUTE).status for answer in answers] == [200, 200, 200]
        assert server.process.wait(MINUTE) == 0


def test_told_to_end_while_it_loads_it_ends_in_order(psp: Exported) -> None:
    with running(psp.int8_deploy.path, psp.fp32.path) as server:  # the runtime is being imported, or a session made: not to be cut short
        assert server.end() == 0
        assert "terminate" not in server.log and "ready" not in server.log.partition("\n")[2]


def test_an_interrupt_drains_too_and_a_second_one_does_not_wait(psp: Exported, slow_batch: Any) -> None:
    words: list[str | Path] = [psp.int8_deploy.path, "--name", DEPLOY, "--max-batch", str(BUSY)]
    with running(*words) as server:
        server.wait_ready()
        assert server.end(signal.SIGINT) == 130
    with running(*words) as server, ThreadPoolExecutor(8) as pool:
        server.wait_ready()
        answers = long_requests(server, slow_batch, pool, 6)
        server.process.send_signal(signal.SIGINT)
        server.wait(lambda: server.get("/v2/health/ready").status == 503, "draining")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(MINUTE) == 130
        assert any(answer.exception(MINUTE) or answer.result().status != 200 for answer in answers)
        assert "unanswered" in server.log


def test_draining_has_an_end(psp: Exported, slow_batch: Any) -> None:
    words: list[str | Path] = [psp.int8_deploy.path, "--name", DEPLOY, "--max-batch", str(BUSY), "--drain-seconds", "0"]
    with running(*words) as server, ThreadPoolExecutor(8) as pool:
        server.wait_ready()
        long_requests(server, slow_batch, pool, 6)
        assert server.end() == 130 and "--drain-seconds" in server.log
