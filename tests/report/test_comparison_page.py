"""The page of a comparison: whole, alone, well-formed, safe with hostile names, and drawn from its numbers."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from gddctl.core.config.load import to_yaml
from gddctl.core.config.sections import RunConfig
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.files import write_json
from gddctl.core.reports.comparison import (
    COMPARISON_NAME,
    Arm,
    Bootstrap,
    Comparison,
    MethodRow,
    Pair,
    StepTime,
    StepTimes,
    Teacher,
)
from gddctl.report.comparison import write_comparison_page
from gddctl.report.comparison_figures import curve_figure, forest_figure, marks_of, mean_curve
from gddctl.report.page import write_report

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def row(method: str, mean: float, *, pace: float = 0.1) -> MethodRow:
    curves = tuple((seed, tuple((step, step * pace, mean * step / 800 + 0.01 * seed) for step in (200, 400, 800))) for seed in (0, 1))
    return MethodRow(Arm(method, 800), ((0, mean), (1, mean + 0.01)), (), 800 * pace, pace, 900.0, 1234, curves)


def made(method: str = "gdd") -> Comparison:
    gdd, none = Arm(method, 800), Arm("none", 800)
    return Comparison(
        protocol="single scale, no flip", split="val", images=101, bootstrap=Bootstrap("paired two-way bootstrap", 10_000, 0),
        teacher=Teacher("resnet34", 0.55, 3720.0), step_times=StepTimes("20 rounds in turns", (StepTime(method, 0.15, 0.14, 0.18),)),
        rows=(row(method, 0.44, pace=0.15), row("none", 0.42)),
        pairs=(Pair(gdd, none, (0, 1), (), 101, 2.0, -0.4, 4.4, 0.08),), notes=("No ImageNet weights.",),
    )  # fmt: skip


def folder_of(comparison: Comparison, tmp_path: Path) -> Path:
    write_json(tmp_path / COMPARISON_NAME, comparison.to_json())
    return tmp_path


class Page(HTMLParser):
    """Reads strictly: every tag closed in order, no event handlers, nothing fetched."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.roles: list[dict[str, str | None]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.roles.append(dict(attrs) | {"tag": tag})
        if tag != "meta":
            self.open.append(tag)
        assert not any(key.startswith("on") or (key in ("src", "href") and not str(value).startswith("#")) for key, value in attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag != "meta":
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def page_of(comparison: Comparison, tmp_path: Path) -> Page:
    return Page(write_comparison_page(folder_of(comparison, tmp_path)).read_text(encoding="utf-8"))


def test_the_page_says_and_shows_everything(tmp_path: Path) -> None:
    page = page_of(made(), tmp_path)
    for words in (
        "gdd has the highest mean at 800 iterations, 44.50 % mIoU, but that it is first is not established against none.",
        "gdd and none are not told apart by these seeds (difference 2.0, interval −0.4 to 4.4, 2 seeds).",
        "a step takes with gdd 1.50 times the seconds",
        "The teacher, resnet34, has 55.00 % mIoU",
        "none gained 21.0 points from 400 to 800 iterations",
        "95 %, paired two-way bootstrap, 10,000 draws from seed 0",
        "gdd 150.0 (140.0 to 180.0); 20 rounds in turns",
        "its own training took 3720 s",
        "single scale, no flip, on 101 images (val)",
        "No ImageNet weights.",
        "−0.40 to +4.40",
    ):
        assert words in page.text, words
    assert page.tags.count("svg") == 3 and page.tags.count("table") == 2


def test_figures_and_tables_have_text_alternatives(tmp_path: Path) -> None:
    page = page_of(made(), tmp_path)
    assert all(item.get("aria-label") and item.get("role") == "img" for item in page.roles if item["tag"] == "svg")
    assert all(item.get("aria-label") for item in page.roles if item.get("role") == "region")
    assert all(item.get("scope") in ("row", "col") for item in page.roles if item["tag"] == "th")
    forest = forest_figure(made())
    assert (
        forest is not None and "gdd minus none +2.00, −0.40 to +4.40, not told apart" in ElementTree.fromstring(forest).attrib["aria-label"]
    )
    over = curve_figure(made(), "seconds")
    assert over is not None and "gdd ends at 44.50, none ends at 42.50" in ElementTree.fromstring(over).attrib["aria-label"]


def test_a_run_that_holds_a_comparison_shows_it_and_one_that_does_not_does_not(run: Path) -> None:
    assert 'id="comparison"' not in write_report(run).read_text(encoding="utf-8")
    write_json(run / COMPARISON_NAME, made().to_json())
    html = write_report(run).read_text(encoding="utf-8")
    assert 'id="comparison"' in html and 'href="#comparison"' in html and "gdd and none are not told apart" in html


def test_a_run_shows_the_comparison_beside_it_of_the_same_student_on_the_same_data(run: Path) -> None:
    beside = run.with_name(f"{run.name}-compare")
    beside.mkdir()
    write_json(beside / COMPARISON_NAME, made().to_json())
    write_json(beside / "env.json", {"command": ["gddctl", "compare", "mine.yaml"]})
    settings = to_yaml(RunConfig())
    (run / "config.yaml").write_text(settings, encoding="utf-8")
    (beside / "config.yaml").write_text(settings, encoding="utf-8")
    html = write_report(run).read_text(encoding="utf-8")
    assert 'id="comparison"' in html and "gddctl compare mine.yaml" in html and f"../{beside.name}/{COMPARISON_NAME}" in html
    other = yaml.safe_load(settings)
    other["student"]["encoder"] = "resnet34"
    for text in (yaml.safe_dump(other), "student: {}", "{", "[]"):
        (beside / "config.yaml").write_text(text, encoding="utf-8")
        assert 'id="comparison"' not in write_report(run).read_text(encoding="utf-8"), text
    (beside / "config.yaml").unlink()
    assert 'id="comparison"' not in write_report(run).read_text(encoding="utf-8")


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    comparison = dataclasses.replace(made(HOSTILE), protocol=HOSTILE, notes=(HOSTILE,), teacher=Teacher(HOSTILE, 0.1, None))
    page = page_of(comparison, tmp_path)
    assert page.tags.count("script") == 1 and "img" not in page.tags and page.text.count("<script>alert(") >= 8
    for drawing in (forest_figure(comparison), curve_figure(comparison, "iterations")):
        assert drawing is not None and {item.tag.rpartition("}")[2] for item in ElementTree.fromstring(drawing).iter()} <= {
            "svg", "title", "line", "text", "circle", "path"
        }  # fmt: skip


@pytest.mark.parametrize("broken", ["{}", "[]", '{"schema": 99}', "not json"])
def test_a_broken_file_is_named(broken: str, tmp_path: Path) -> None:
    (tmp_path / COMPARISON_NAME).write_text(broken)
    with pytest.raises(ArtifactError, match=COMPARISON_NAME):
        write_comparison_page(tmp_path)


def test_a_folder_without_a_comparison_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=COMPARISON_NAME):
        write_comparison_page(tmp_path)


def test_nothing_to_draw_is_left_out(tmp_path: Path) -> None:
    bare = dataclasses.replace(made(), pairs=(), rows=tuple(dataclasses.replace(item, curves=()) for item in made().rows))
    assert curve_figure(bare, "seconds") is None and forest_figure(bare) is None
    page = page_of(bare, tmp_path)
    assert "svg" not in page.tags and "None" not in page.text
    lost = tuple(dataclasses.replace(item, scores=(), failed=((0, "disk full"),), curves=()) for item in made().rows)
    assert "gdd failed with seed 0: disk full." in page_of(dataclasses.replace(bare, rows=lost, teacher=None), tmp_path).text


def test_a_mean_curve_is_the_mean_of_common_validations() -> None:
    uneven = dataclasses.replace(made().rows[0], curves=((0, ((1, 10.0, 0.1), (2, 20.0, 0.2), (3, 30.0, 0.3))), (1, ((2, 40.0, 0.4),))))
    over = mean_curve(uneven, "seconds")
    assert over is not None and over.x == (30.0,) and over.mean == pytest.approx((30.0,))
    assert over.low == pytest.approx((20.0,)) and over.high == pytest.approx((40.0,))
    again = mean_curve(uneven, "iterations")
    assert again is not None and again.x == (2.0,)
    assert mean_curve(dataclasses.replace(uneven, curves=()), "seconds") is None


def test_the_forest_puts_points_where_they_belong() -> None:
    drawing = forest_figure(made())
    assert drawing is not None
    bar = re.search(r'x1="([\d.]+)" x2="([\d.]+)" y1="23" y2="23" stroke="[^"]+" stroke-width="2.5"', drawing)
    dot, zero = re.search(r'cx="([\d.]+)"', drawing), re.search(r'x1="([\d.]+)" x2="\1" y1="10" y2="36" stroke="var\(--ink\)"', drawing)
    assert bar is not None and dot is not None and zero is not None
    left, right, middle, origin = float(bar[1]), float(bar[2]), float(dot[1]), float(zero[1])
    scale = (right - left) / 4.8
    assert middle == pytest.approx(left + 2.4 * scale, abs=0.05) and origin == pytest.approx(left + 0.4 * scale, abs=0.05)
    assert 'fill="var(--paper)" stroke="var(--faint)"' in drawing  # hollow: not told apart
    told = dataclasses.replace(made(), pairs=(dataclasses.replace(made().pairs[0], p=0.01, low_points=0.4),))
    assert 'fill="var(--good)" stroke="var(--good)"' in str(forest_figure(told))
    one_seed = dataclasses.replace(told, pairs=(dataclasses.replace(told.pairs[0], seeds=(0,)),))
    assert 'fill="var(--paper)" stroke="var(--faint)"' in str(forest_figure(one_seed)) and "--good" not in str(forest_figure(one_seed))


def test_arms_are_told_apart_by_colour_or_dash() -> None:
    rows = [row(f"m{index}", 0.4) for index in range(20)] + [row("none", 0.4)]
    longer = dataclasses.replace(row("none", 0.4), arm=Arm("none", 1600))
    marks = marks_of(dataclasses.replace(made(), rows=(*rows, longer), pairs=()))
    assert len(set(marks.values())) == 22
    assert marks[Arm("none", 800)].colour == marks[Arm("none", 1600)].colour != marks[Arm("m0", 800)].colour
