"""Clients that send too much, too slowly, too many at once, or leave: each is turned away by itself, and the server goes on."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SIZE, Exported
from tests.serve.http.conftest import BUSY, DEPLOY, LOGITS, MINUTE, Answer, Known, Server, binary_request, running

PATH = f"/v2/models/{DEPLOY}/infer"
MIB = 1 << 20
READ_SECONDS = 1


@pytest.fixture(scope="module")
def tight(psp: Exported) -> Iterator[Server]:
    """A server that allows little: a queue of two, one request at a time, short patience; but huge requests, to keep it busy with."""
    words: list[str | Path] = [psp.int8_deploy.path, "--name", DEPLOY, "--queue", "2", "--max-batch", "256", "--max-body-mb", "5"]
    with running(*words, "--read-seconds", str(READ_SECONDS), "--max-connections", "20", "--max-memory-mb", "14") as started:
        started.wait_ready()
        yield started


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=MINUTE)


def closed_by_server(link: socket.socket) -> bytes:
    """Everything until the server closes; a reset is a way of closing too."""
    received = b""
    try:
        while piece := link.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return received


def head(length: int | str, path: str = PATH, **headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {length}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def works(server: Server, known: Known) -> bool:
    body, headers = binary_request(known.images[:1])
    return server.ask("POST", PATH, body, headers).body.endswith(known.masks[:1].tobytes())


class Busy:
    """Keeps the model running, and shows when it does."""

    def __init__(self, server: Server, batch: Any, pool: ThreadPoolExecutor) -> None:
        self.server, self.pool = server, pool
        self.body, self.headers = binary_request(batch)

    def start(self) -> Any:
        """One long run, begun: it is in flight and no longer in the line."""
        answer = self.pool.submit(self.server.ask, "POST", PATH, self.body, self.headers)
        self.server.wait(lambda: self.server.metric("gddctl_held_bytes") >= len(self.body), "its body has been read")
        self.server.wait(lambda: answer.done() or self.server.metric("gddctl_queue_depth") == 0, "it runs")
        return answer


@pytest.fixture
def busy(tight: Server, slow_batch: Any) -> Iterator[Busy]:
    with ThreadPoolExecutor(16) as pool:
        yield Busy(tight, slow_batch, pool)


def test_a_body_beyond_the_limit_is_a_413_before_it_is_sent(tight: Server, known: Known) -> None:
    with connect(tight) as link:
        link.sendall(head(6 * MIB))
        assert b" 413 " in closed_by_server(link)
    chunked = b"POST %s HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n" % PATH.encode()
    with connect(tight) as link:  # nobody knows its length beforehand
        link.sendall(chunked)
        deadline = time.monotonic() + MINUTE
        with pytest.raises(ConnectionError):  # it is cut off
            while time.monotonic() < deadline:
                link.sendall(b"100000\r\n" + b"x" * MIB + b"\r\n")
    assert works(tight, known)


def test_a_compressed_bomb_is_a_413(tight: Server, known: Known) -> None:
    before = tight.resident_mib()
    bomb = gzip.compress(bytes(300 * MIB), compresslevel=1)
    assert len(bomb) < 5 * MIB
    answer = tight.post(PATH, bomb, Content_Encoding="gzip")
    assert answer.status == 413 and "--max-body-mb" in answer.error
    assert tight.resident_mib() - before < 60
    for encoding, body, status in (
        ("gzip", b"not gzip", 400),
        ("gzip", gzip.compress(b"{}")[:-3], 400),
        ("br", b"", 415),
        ("gzip, gzip", b"", 415),
    ):
        assert tight.post(PATH, body, Content_Encoding=encoding).status == status
    assert tight.post(PATH, gzip.compress(b"{}") + b"more", Content_Encoding="gzip").status == 400
    assert works(tight, known)


def test_a_header_that_does_not_end_is_let_go(tight: Server, known: Known) -> None:
    with ExitStack() as stack:
        silent, dripping, second = (stack.enter_context(connect(tight)) for _ in range(3))
        second.sendall(b"GET /v2 HTTP/1.1\r\nHost: here\r\n\r\n")
        assert b"200 OK" in second.recv(65536)
        dripping.sendall(b"POST / HTTP/1.1\r\n")

        def drip() -> None:
            try:
                while True:
                    dripping.sendall(b"X-A: b\r\n")
                    time.sleep(0.1)
            except OSError:
                pass

        threading.Thread(target=drip, daemon=True).start()
        assert closed_by_server(silent) == b"" and b"200" not in closed_by_server(dripping)
    assert works(tight, known)


def test_a_body_that_does_not_come_is_a_408(tight: Server, known: Known) -> None:
    with connect(tight) as link:
        link.sendall(head(1000) + b"{")
        answer = closed_by_server(link)
    assert b" 408 " in answer and b"KiB per second" in answer
    assert works(tight, known)


def test_a_client_that_does_not_read_is_let_go(psp: Exported) -> None:
    body = binary_request(np.zeros((8, 3, *SIZE), np.float32), "FP32")  # logits: the largest answers for the least work
    with running(psp.fp32.path, "--name", LOGITS, "--read-seconds", "1") as server:
        server.wait_ready()
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.settimeout(MINUTE)
        with link:
            link.connect(("127.0.0.1", server.port))
            request = head(len(body[0]), f"/v2/models/{LOGITS}/infer", **body[1]) + body[0]

            def flood() -> None:
                try:
                    for _ in range(60):
                        link.sendall(request)
                except OSError:
                    pass

            threading.Thread(target=flood, daemon=True).start()
            server.wait(lambda: server.metric("gddctl_requests_total", route="/v2/models/{model}/infer") >= 1, "it is being served")
            server.wait(lambda: server.metric("gddctl_connections") == 1, "its connection is gone")  # the one is that of the question
        assert server.ask("POST", f"/v2/models/{LOGITS}/infer", *body).status == 200


def test_connections_beyond_the_limit_are_a_503(tight: Server, known: Known) -> None:
    before = tight.metric("gddctl_rejected_total", reason="connections")
    with ExitStack() as stack:
        links = [stack.enter_context(connect(tight)) for _ in range(40)]
        answers = []
        for link in links[25:]:  # the server allows 20; a few may be those of earlier tests
            link.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: here\r\n\r\n")
            answers.append(closed_by_server(link))
    assert all(b" 503 " in answer and b"Retry-After" in answer for answer in answers)
    tight.wait(lambda: tight.metric("gddctl_rejected_total", reason="connections") >= before + 15, "they are counted")
    assert works(tight, known)


def test_a_full_queue_is_a_503_with_retry_after(tight: Server, known: Known, busy: Busy) -> None:
    body, headers = binary_request(known.images[:1])
    refused: list[Answer] = []
    for _ in range(20):  # until the six questions fall into the long run
        long = busy.start()
        answers = [busy.pool.submit(tight.ask, "POST", PATH, body, headers) for _ in range(6)]
        found = [answer.result(MINUTE) for answer in answers]
        assert long.result(MINUTE).status == 200
        assert all(each.body.endswith(known.masks[:1].tobytes()) for each in found if each.status == 200)
        refused += [each for each in found if each.status == 503]
        if refused:
            break
    assert refused and all("retry-after" in each.headers and "queue" in each.error for each in refused)
    assert works(tight, known)


def test_a_client_that_leaves_gives_up_its_place(tight: Server, known: Known, busy: Busy) -> None:
    body, headers = binary_request(known.images[:1])
    before = tight.get(f"/v2/models/{DEPLOY}/stats").json["model_stats"][0]["inference_count"]
    runs = 0
    for _ in range(20):
        long = busy.start()
        runs += 1
        with connect(tight) as link:
            link.sendall(head(len(body), **headers) + body)
            deadline = time.monotonic() + MINUTE
            while not long.done() and tight.metric("gddctl_queue_depth") < 1:
                assert time.monotonic() < deadline
            waited = not long.done()
        long.result(MINUTE)
        if waited:
            break
    tight.wait(lambda: tight.metric("gddctl_in_flight") == 1, "nothing is in flight but this question")
    after = tight.get(f"/v2/models/{DEPLOY}/stats").json["model_stats"][0]["inference_count"]
    assert waited and after - before in (BUSY * runs, BUSY * runs + runs - 1), (before, after, runs)  # the one that left was never run
    assert works(tight, known)


def test_memory_that_all_bodies_share_has_an_end(tight: Server, slow_batch: Any, known: Known) -> None:
    links = [connect(tight) for _ in range(4)]  # of 4.5 MiB each; 14 are allowed
    for link in links:
        link.sendall(head(int(4.6 * MIB)) + bytes(int(4.5 * MIB)))
    answers = [closed_by_server(link) for link in links]
    for link in links:
        link.close()
    assert sum(b"503" in answer and b"holds as much" in answer for answer in answers) >= 1
    assert all(b" 503 " in answer or b" 408 " in answer for answer in answers)
    tight.wait(lambda: tight.metric("gddctl_held_bytes") == 0, "all of it is given back")
    assert works(tight, known)


def test_a_request_that_takes_too_long_is_a_503(tight: Server, known: Known, busy: Busy) -> None:
    body, headers = binary_request(known.images[:1], parameters={"binary_data_output": True, "timeout": 1})  # a microsecond
    answer = tight.ask("POST", PATH, body, headers)
    assert answer.status == 503 and "no answer within" in answer.error
    tight.wait(lambda: tight.metric("gddctl_queue_depth") == 0, "its place is free")
    assert works(tight, known)


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # somebody speaks TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: y\r\n" % index for index in range(20_000)) + b"\r\n",
        b"GET /predict HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: a\r\n\r\n",
    ],
    ids=["tls", "version", "path", "negative", "smuggling", "headers", "websocket"],
)
def test_what_is_no_http_ends_its_own_connection_alone(tight: Server, known: Known, text: bytes) -> None:
    with connect(tight) as link:
        try:
            link.sendall(text)
            link.shutdown(socket.SHUT_WR)
        except OSError:  # it has been closed already
            pass
        answer = closed_by_server(link)
    assert b" 500 " not in answer.partition(b"\r\n")[0]
    assert works(tight, known)


def test_the_json_part_before_binary_data_is_bounded(server: Server, known: Known) -> None:
    body, _ = binary_request(known.images[:1])
    padded = b" " * (2 * MIB) + body
    length = len(body) - known.images[:1].nbytes + 2 * MIB
    answer = server.ask("POST", PATH, padded, {"Inference-Header-Content-Length": str(length)})
    assert answer.status == 400 and "bytes of JSON" in answer.error


def test_the_page_of_numbers_names_what_happened(tight: Server) -> None:
    text = tight.get("/metrics").body.decode()
    for name in ("gddctl_requests_total", "gddctl_request_seconds_bucket", "gddctl_batch_size_bucket", "gddctl_inference_seconds_sum"):
        assert name in text
    assert tight.metric("gddctl_rejected_total", reason="too large") >= 1 and tight.metric("gddctl_rejected_total", reason="too slow") >= 1
