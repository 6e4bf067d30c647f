"""The page in a real browser: an image dropped on it is shown under its mask, with a legend, under the page's own strict policy."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gddctl
from tests.conftest import Exported
from tests.serve.http.conftest import DEPLOY, LOGITS, Server, running

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
]  # fmt: skip
PATIENCE_MS = 60_000
PHONE = {"width": 360, "height": 640}
PIXELS = """() => { const canvas = document.getElementById("canvas");
  return [canvas.width, canvas.height, Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data)]; }"""
DROP = """([data, name]) => { const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer(); transfer.items.add(new File([bytes], name));
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})); }"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    opened = browser.new_page(viewport=PHONE)
    opened.set_default_timeout(PATIENCE_MS)
    opened.complaints = []
    opened.on("console", lambda message: opened.complaints.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def picture(psp: Exported) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(np.repeat(psp.val[0].image, 2, axis=0)[:100])).save(stream, "PNG")
    return stream.getvalue()


def canvas_of(page: Any) -> Any:
    width, height, data = page.evaluate(PIXELS)
    return np.asarray(data, np.uint8).reshape(height, width, 4)


def test_a_dropped_image_is_shown_under_its_mask(server: Server, psp: Exported, page: Any, picture: bytes) -> None:
    expected = gddctl.load(psp.int8_deploy.path, threads=1).predict(picture)
    page.goto(f"http://{server.address}/")
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    page.evaluate(DROP, [base64.b64encode(picture).decode(), "scene.png"])
    page.wait_for_selector("#legend tbody tr")
    mixed = canvas_of(page)
    page.locator("#opacity").fill("100")
    shown = canvas_of(page)
    assert shown.shape[:2] == expected.mask.shape
    assert (shown[:, :, :3] == expected.colours()).all()  # every pixel in its class's colour
    assert (mixed != shown).any()
    page.locator("#opacity").fill("0")
    assert (canvas_of(page)[:, :, :3] == expected.image).all()  # and the image itself below
    assert page.inner_text("#status").startswith("scene.png: ")
    assert page.locator("#file").bounding_box()["width"] <= 1  # it would call a dropped image "no file chosen"
    rows = page.locator("#legend tbody tr").all_inner_texts()
    assert [row.split("\t")[1].strip() for row in rows] == list(expected.shares())
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]  # nothing to scroll sideways on a phone
    assert [text for text in page.complaints if "willReadFrequently" not in text] == []  # that one is about this test's own reading


def test_another_model_and_a_file_that_is_no_image(server: Server, psp: Exported, page: Any, picture: bytes) -> None:
    page.goto(f"http://{server.address}/")
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    page.set_input_files("#file", {"name": "scene.png", "mimeType": "image/png", "buffer": picture})
    page.wait_for_selector("#legend tbody tr")
    with page.expect_response(lambda answer: f"predict/{LOGITS}" in answer.url) as answered:
        page.select_option("#model", LOGITS)
    assert answered.value.status == 200
    page.set_input_files("#file", {"name": "words.png", "mimeType": "image/png", "buffer": b"words"})
    page.wait_for_selector("#status.bad")
    assert "not readable as an image" in page.inner_text("#status")


def test_another_model_is_asked_about_a_dropped_image(server: Server, page: Any, picture: bytes) -> None:
    page.goto(f"http://{server.address}/")
    page.wait_for_selector("#model option:nth-child(2)", state="attached")
    page.evaluate(DROP, [base64.b64encode(picture).decode(), "scene.png"])
    page.wait_for_selector("#legend tbody tr")
    with page.expect_response(lambda answer: f"predict/{LOGITS}" in answer.url) as answered:
        page.select_option("#model", LOGITS)
    assert answered.value.status == 200


def test_the_page_asks_for_the_token(psp: Exported, browser: Any, picture: bytes) -> None:
    with running(psp.int8_deploy.path, "--name", DEPLOY, GDDCTL_TOKEN="for-this-page") as guarded:
        guarded.wait(lambda: guarded.get("/v2/health/ready").status == 200, "ready")
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"http://{guarded.address}/")
        page.wait_for_selector("#token", state="visible")
        page.fill("#token", "for-this-page")
        page.locator("#token").press("Tab")
        page.wait_for_selector("#model option", state="attached")
        page.set_input_files("#file", {"name": "scene.png", "mimeType": "image/png", "buffer": picture})
        page.wait_for_selector("#legend tbody tr")
        page.close()


def test_the_policy_forbids_everything_else(server: Server, page: Any) -> None:
    page.goto(f"http://{server.address}/")
    page.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.broken = 1'; document.head.append(script); }"
    )
    assert page.evaluate("window.broken") is None and any("Content Security Policy" in text for text in page.complaints)
