"""Pages of other sites in a visitor's browser: they are turned away, the server's own page and every program are not."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.conftest import Exported
from tests.serve.http.conftest import DEPLOY, Known, Server, binary_request, running


@pytest.fixture(scope="module")
def png(known: Known) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(known.images[0]).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "origin",
    ["https://example.com", "http://127.0.0.1:1", "http://127.0.0.1", "http://localhost:{port}", "null", "", "file://", "127.0.0.1:{port}"],
)
def test_a_page_of_another_site_is_refused(server: Server, known: Known, png: bytes, origin: str) -> None:
    given = origin.format(port=server.port)
    before = server.metric("gddctl_rejected_total", reason="origin")
    body, headers = binary_request(known.images[:1])
    answers = [
        server.post(f"/predict/{DEPLOY}", png, Origin=given, Content_Type="text/plain"),  # no browser asks before it sends this
        server.ask("POST", f"/v2/models/{DEPLOY}/infer", body, {**headers, "Origin": given}),
        server.get("/models", Origin=given),
        server.ask("OPTIONS", f"/predict/{DEPLOY}", None, {"Origin": given, "Access-Control-Request-Method": "POST"}),
    ]
    for answer in answers:
        assert answer.status == 403 and "proxy_set_header Host" in answer.error
        assert "access-control-allow-origin" not in answer.headers
    assert server.metric("gddctl_rejected_total", reason="origin") == before + 4


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:{port}", "127.0.0.1:{port}"),
        ("http://LocalHost:{port}", "localhost:{port}"),
        ("http://[::1]:{port}", "[::1]:{port}"),
        ("http://masks.example", "masks.example"),
        ("http://masks.example", "masks.example:80"),
        ("https://masks.example", "masks.example"),  # a proxy speaks TLS
        ("https://masks.example", "masks.example:443"),
        ("https://masks.example:8443", "masks.example:8443"),
    ],
)
def test_the_servers_own_page_may_ask_also_through_a_proxy(server: Server, png: bytes, origin: str, host: str) -> None:
    headers = {"Origin": origin.format(port=server.port), "Host": host.format(port=server.port)}
    assert server.ask("POST", f"/predict/{DEPLOY}", png, headers).status == 200
    changed = {"Origin": headers["Origin"], "Host": "backend:1"}  # a proxy that names the server itself
    assert server.ask("POST", f"/predict/{DEPLOY}", png, changed).status == 403
    assert server.ask("POST", f"/predict/{DEPLOY}", png, {**changed, "Sec-Fetch-Site": "same-origin"}).status == 200
    assert server.ask("POST", f"/predict/{DEPLOY}", png, {**changed, "Sec-Fetch-Site": "same-site"}).status == 403


def test_programs_and_visitors_who_follow_a_link_come_in(server: Server, png: bytes) -> None:
    assert server.post(f"/predict/{DEPLOY}", png).status == 200
    assert server.get("/", **{"Sec-Fetch-Site": "cross-site", "Referer": "https://example.com/"}).status == 200


def test_the_token_opens_no_door_for_other_pages(psp: Exported, png: bytes) -> None:
    with running(psp.int8_deploy.path, "--name", DEPLOY, GDDCTL_TOKEN="secret") as server:
        server.wait_ready()
        headers = {"Authorization": "Bearer secret"}
        assert server.ask("POST", "/predict", png, headers).status == 200
        assert server.ask("POST", "/predict", png, {**headers, "Origin": "https://example.com"}).status == 403
