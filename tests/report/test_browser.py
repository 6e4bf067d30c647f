"""The page in a real browser: quiet, whole, within its window, and its scenes flip. Each check is seen to fail."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gddctl.core.files import read_json, write_json
from gddctl.core.reports.comparison import COMPARISON_NAME, Arm, Bootstrap, Comparison, MethodRow, Pair
from gddctl.report.comparison import write_comparison_page
from gddctl.report.latency_page import write_latency_page
from gddctl.report.page import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser looks at the page")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
PHONE, DESK = (360, 740), (1280, 900)
SECONDS = 60_000  # milliseconds that a loaded machine may take for anything
COLOURS = 200  # a page with figures has more than this many; text alone on paper has some tens


@dataclass
class Seen:
    """What happened while a page was open."""

    messages: list[str] = field(default_factory=list)  # of the console, and exceptions
    requests: list[str] = field(default_factory=list)  # beyond the file itself
    overhang: int = 0  # pixels by which the body is wider than the window
    shot: bytes = b""

    @property
    def complaints(self) -> list[str]:
        """Everything that a finished page must not do; empty when it is fine."""
        found = [f"console: {message}" for message in self.messages] + [f"request: {url}" for url in self.requests]
        if self.overhang > 0:
            found.append(f"hangs over by {self.overhang} px")
        if self.shot and is_blank(self.shot):
            found.append("blank")
        return found


def is_blank(shot: bytes) -> bool:
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), np.uint32)[::3, ::3]  # enough to find colours by
    return len(np.unique(pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2])) < COLOURS


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS), timeout=SECONDS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def report(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished page of the whole made-up run."""
    return write_report(Path(shutil.copytree(whole, tmp_path_factory.mktemp("browser") / "demo")))


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """(path, size, **context) -> (page, what was seen); closed at the end."""
    contexts = []

    def visit(path: Path, size: tuple[int, int] = DESK, **options: Any) -> tuple[Any, Seen]:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        contexts.append(context)
        context.set_default_timeout(SECONDS)
        page, seen = context.new_page(), Seen()
        page.on("console", lambda message: seen.messages.append(message.text))
        page.on("pageerror", lambda error: seen.messages.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.goto(path.as_uri(), wait_until="load")
        seen.requests = [url for url in seen.requests if url != path.as_uri() and not url.startswith("data:")]
        return page, seen

    yield visit
    for context in contexts:
        context.close()


def look(tab: Any, path: Path, size: tuple[int, int] = DESK, *, shot: Path | None = None, **options: Any) -> Seen:
    """Open a page and say what was seen: of all of it with ``shot``, else of what the window shows."""
    page, opened = tab(path, size, **options)
    seen: Seen = opened
    seen.overhang = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    seen.shot = page.screenshot(full_page=shot is not None, path=shot)
    return seen


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_a_finished_page_is_quiet_whole_and_fits(report: Path, tab: Any, tmp_path: Path, size: tuple[int, int], scheme: str) -> None:
    shot = tmp_path / f"report-{size[0]}-{scheme}.png"
    seen = look(tab, report, size, color_scheme=scheme, shot=shot)
    assert seen.complaints == []
    corner = Image.open(shot).convert("L").getpixel((2, 2))
    assert corner == 255 if scheme == "light" else corner < 40  # type: ignore[operator]  # of one channel


BREAKS = {
    "an image from elsewhere": ("<main>", '<main><img src="https://example.invalid/x.png" alt="">', "console"),
    "a script that was added": ("<main>", "<main><script>document.title = 1</script>", "console"),
    "an exception": ('"use strict";', '"use strict"; nobody();', "console"),
    "something too wide": ("<main>", '<main><div style="width: 3000px">wide</div>', "hangs over"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_page_is_caught(report: Path, tab: Any, tmp_path: Path, name: str) -> None:
    before, after, word = BREAKS[name]
    html = report.read_text(encoding="utf-8")
    assert before in html
    broken = tmp_path / "broken.html"
    broken.write_text(html.replace(before, after, 1), encoding="utf-8")
    assert any(complaint.startswith(word) for complaint in look(tab, broken, PHONE).complaints)


def test_a_request_is_caught_where_no_policy_stops_it(report: Path, tab: Any, tmp_path: Path) -> None:
    html = report.read_text(encoding="utf-8").replace("Content-Security-Policy", "X-None")
    (tmp_path / "near.png").write_bytes(b"no picture")
    broken = tmp_path / "broken.html"
    broken.write_text(html.replace("<main>", '<main><img src="near.png" alt="">'), encoding="utf-8")
    assert any(complaint.startswith("request") for complaint in look(tab, broken).complaints)


def test_a_blank_page_is_caught(tab: Any, tmp_path: Path) -> None:
    (tmp_path / "blank.html").write_text("<!doctype html><html lang='en'><title>x</title><body></body></html>")
    assert look(tab, tmp_path / "blank.html").complaints == ["blank"]


def changes(page: Any, act: Any) -> bool:
    """Whether what is seen of the scene, and what is said of it, both change by ``act``."""
    stage = page.locator(".sheet.shown .leaves")
    before = stage.screenshot(), page.locator(".now").text_content()
    act()
    after = page.locator(".sheet.shown .leaves").screenshot(), page.locator(".now").text_content()
    return bool(before[0] != after[0] and before[1] != after[1])


def test_scenes_flip_by_button_by_key_and_by_number(report: Path, tab: Any) -> None:
    page, seen = tab(report)
    now = page.locator(".now")
    assert "student INT8" in now.text_content() and "Scene 1 of 2" in now.text_content()
    for name in ("label", "image", "teacher"):
        assert changes(page, page.get_by_role("button", name=name, exact=True).click)
        assert page.get_by_role("button", name=name, exact=True).get_attribute("aria-pressed") == "true"
    assert changes(page, page.get_by_role("button", name="Next scene").click) and "Scene 2 of 2" in now.text_content()
    page.locator(".flip").focus()
    for key in ("ArrowRight", "ArrowLeft", "n", "p", "e", "1", "2"):
        assert changes(page, lambda key=key: page.keyboard.press(key)), key
    assert seen.messages == []


def test_the_image_shows_through_as_much_as_asked(report: Path, tab: Any) -> None:
    page, _ = tab(report)
    stage = page.locator(".sheet.shown .leaves")
    page.get_by_role("button", name="label", exact=True).click()
    half = stage.screenshot()
    page.locator(".opacity").fill("100")
    assert stage.screenshot() != half


def test_without_its_script_nothing_flips_and_everything_is_shown(report: Path, tab: Any) -> None:
    page, _ = tab(report, java_script_enabled=False)
    assert not page.locator(".controls").first.is_visible() and not page.locator("button.copy").first.is_visible()
    images = page.locator(".leaf img")
    assert images.count() == 18 and all(images.nth(index).is_visible() for index in range(18))
    page.locator(".flip").focus()
    assert page.locator(".sheet.shown").count() == 0


def test_on_paper_all_scenes_are_there_in_black_on_white(report: Path, tab: Any) -> None:
    page, _ = tab(report, color_scheme="dark")
    page.emulate_media(media="print")
    assert all(page.locator(".leaf img").nth(index).is_visible() for index in range(18))
    assert not page.locator(".controls").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(page.pdf(format="A4")) > 50_000


def test_a_swipe_flips(report: Path, tab: Any) -> None:
    page, _ = tab(report, PHONE, has_touch=True, is_mobile=True)
    stage = page.locator(".sheet.shown .leaves")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    touch = page.context.new_cdp_session(page)

    def swipe(by: int) -> None:
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x + by, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    first = page.locator(".now").text_content()
    assert changes(page, lambda: swipe(-120)) and changes(page, lambda: swipe(120))
    assert page.locator(".now").text_content() == first
    swipe(-12)  # a tap that trembles is no swipe
    assert page.locator(".now").text_content() == first


def test_a_command_can_be_copied(report: Path, tab: Any) -> None:
    page, _ = tab(report, permissions=["clipboard-read", "clipboard-write"])
    page.locator("#parity ~ .how .copy").first.click()
    page.wait_for_function("[...document.querySelectorAll('.copy')].some(button => button.textContent !== 'copy')")
    copied = page.evaluate("navigator.clipboard.readText().catch(() => getSelection().toString())")
    assert copied == "gddctl run config.yaml --out 'my run'"


def test_every_figure_and_scrolling_table_has_a_name_and_can_be_reached(report: Path, tab: Any) -> None:
    page, _ = tab(report)
    unnamed = page.evaluate(
        "[...document.querySelectorAll('svg, img, .scroll, .flip, button, input')].filter(item =>"
        " !(item.getAttribute('aria-label') || item.getAttribute('alt') || item.textContent.trim() || item.labels?.length))"
        ".map(item => item.outerHTML.slice(0, 80))"
    )
    assert unnamed == []
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(item => item.tabIndex === 0)")


def test_many_classes_and_long_names_fit_a_phone(made: Any, tab: Any, tmp_path: Path) -> None:
    names = tuple(f"{index}-{'averyverylongclassnamewithoutanyspace' if index % 7 == 0 else 'class'}" for index in range(150))
    run = made.run(tmp_path / ("a-folder-whose-name-never-ends-" * 4), names)
    latency = read_json(run / "latency.json")
    latency["rows"] = [{**latency["rows"][index % 5], "batch": 1 + index // 5} for index in range(30)]
    write_json(run / "latency.json", latency)
    assert look(tab, write_report(run), PHONE).complaints == []


def test_pages_of_their_own_are_quiet_too(run: Path, tab: Any) -> None:
    arms = (Arm("gdd", 800), Arm("none", 800))
    rows = tuple(
        MethodRow(arm, ((0, 0.4), (1, 0.5)), (), 80.0, 0.1, 900.0, 1234, ((0, ((200, 20.0, 0.2), (800, 80.0, 0.4))),)) for arm in arms
    )
    pair = Pair(*arms, (0, 1), (), 101, 2.0, -0.4, 4.4, 0.08)
    compared = Comparison("single scale", "val", 101, Bootstrap("bootstrap", 100, 0), None, None, rows, (pair,), ())
    write_json(run / COMPARISON_NAME, compared.to_json())
    for page in (write_latency_page(run), write_comparison_page(run)):
        for size in (PHONE, DESK):
            assert look(tab, page, size).complaints == []
