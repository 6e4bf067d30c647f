"""The page: whole from a whole run, smaller from a partial one, self-contained, and safe with hostile names."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.files import read_json, write_json
from gddctl.report.page import write_report

DRAWINGS = 11  # validation, three losses, ladder, blocks, drift, scatter, distribution, tail, stages
VOID = {"meta", "br", "img", "link", "input", "hr"}
ALL_SECTIONS = {"classes", "pictures", "parity", "sensitivity", "latency", "training", "card", "lineage", "again"}


class Page(HTMLParser):
    """Reads a page strictly: every tag closed in order; keeps text, ids, links and sources."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for key, value in attrs:
            assert not key.startswith("on"), f"event handler {key}"
            if key == "id":
                self.ids.append(str(value))
            if key in ("src", "href", "srcset", "xlink:href", "poster", "action", "data"):
                self.references.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> out of order"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_a_whole_run_gives_every_section_and_the_numbers_that_matter(run: Path) -> None:
    page = page_of(run)
    assert set(page.ids) == ALL_SECTIONS
    assert {"#" + name for name in ALL_SECTIONS} == {ref for ref in page.references if ref.startswith("#")}
    for words in (
        "60.30 % mIoU",  # the student
        "+3.20 points against the same network trained on labels alone (57.10 %)",
        "All 4 exported files answer like their reference",
        "0.35 of FP32",
        "−0.35",  # INT8 in points
        "Left out of the mean, because neither label nor prediction shows them: bicyclist",
        "full label resolution",
        "gddctl run --out 'my run'",
        "with uncommitted changes",
        "layout: synthetic",
        "Made-Up CPU",
        "medians of turns 14.20 to 17.04 ms",  # the torch row's third
        "the papers' has three of 3x3. ",
        "conv.float 1, conv.int8 25, calibration",
    ):
        assert words in page.text, words
    assert "noise_gain" not in page.text and "batchnorm" not in page.text  # no term of the loss; nothing of that kind in the file
    assert page.tags.count("svg") == DRAWINGS
    manifest = read_json(run / "artifacts" / "manifest.json")["artifacts"]
    assert all(row["sha256"] in page.text for row in manifest)


def test_the_page_needs_nothing_outside_itself(run: Path) -> None:
    page = page_of(run)
    html = (run / "report.html").read_text(encoding="utf-8")
    assert all(ref.startswith(("#", "data:image/png;base64,", "data:image/jpeg;base64,")) for ref in page.references)
    assert set(re.findall(r"https?://[^\"'\s<>]+", html)) <= {"http://www.w3.org/2000/svg"}  # a name, never fetched
    assert not re.search(r"@import|url\(|<script .|<link|<iframe|<object|<embed|<base", html)
    images = [base64.b64decode(ref.partition(",")[2]) for ref in page.references if ref.startswith("data:")]
    layers = [path.read_bytes() for path in (run / "pictures").glob("*/*") if path.is_file()]
    assert len(images) == len(layers) == 18 and sorted(images) == sorted(layers)  # two scenes: image, label, 3 answers with errors, change


def test_the_policy_lets_this_one_script_run_and_nothing_be_fetched(run: Path) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert len(scripts) == 1 and found is not None
    rules = dict(rule.strip().split(" ", 1) for rule in found[1].replace("&#39;", "'").split(";"))
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert not any("http" in rule or "*" in rule for rule in rules.values())


def test_a_run_without_layers_shows_its_strips(run: Path) -> None:
    shutil.rmtree(run / "pictures" / "00-scene")
    shutil.rmtree(run / "pictures" / "01-scene")
    page = page_of(run)
    images = [base64.b64decode(ref.partition(",")[2]) for ref in page.references if ref.startswith("data:")]
    assert images == [path.read_bytes() for path in sorted((run / "pictures").glob("*.png"))]


def test_drawings_are_well_formed_xml(run: Path) -> None:
    html = write_report(run).read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(drawings) == DRAWINGS
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.attrib["aria-label"]
        numbers = " ".join(re.findall(r'="([^"]*)"', re.sub(r'aria-label="[^"]*"', "", drawing)))
        assert not re.search(r"\b(nan|inf)\b", numbers)


HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


def test_hostile_names_stay_text(made: Any, tmp_path: Path) -> None:
    names = (HOSTILE, *made.NAMES[1:])
    run = made.run(tmp_path / "demo", names)
    env = read_json(run / "env.json")
    write_json(run / "env.json", {**env, "command": ["gddctl", HOSTILE], "platform": HOSTILE, "packages": {HOSTILE: HOSTILE}})
    (run / "config.yaml").write_text(HOSTILE)
    records = [{"stage": HOSTILE, "step": step, HOSTILE: 1.0, "loss": 1.0, "val": {"miou": 0.1}} for step in (1, 2)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))
    pictures = read_json(run / "pictures" / "layers.json")
    pictures["scenes"][0]["name"] = HOSTILE
    pictures["scenes"][0]["layers"][2]["title"] = HOSTILE
    write_json(run / "pictures" / "layers.json", pictures)
    recovery = read_json(run / "artifacts" / "student-recovery-ort-cpu.json")
    recovery["losses"][0]["block"] = recovery["command"][1] = HOSTILE
    write_json(run / "artifacts" / "student-recovery-ort-cpu.json", recovery)
    drift = read_json(run / "drift.json")
    drift["reports"][0]["tensors"][3] |= {"name": HOSTILE, "kind": HOSTILE, "inherited_db": 80.0}
    write_json(run / "drift.json", drift)
    ledger = read_json(run / "stages.json")
    ledger["stages"]["evaluate"] |= {"command": ["gddctl", HOSTILE], "time": HOSTILE}
    write_json(run / "stages.json", ledger)
    report = read_json(run / "latency.json")
    report["rows"][0] |= {"sha256": "unknown", "model": HOSTILE, "backend": HOSTILE, "environment": {HOSTILE: HOSTILE}}
    write_json(run / "latency.json", report)
    parity = read_json(run / "parity.json")
    parity["rungs"][0] |= {"candidate": HOSTILE, "worst_class": HOSTILE, "nan": 3}
    write_json(run / "parity.json", parity)
    page = page_of(run)
    assert page.tags.count("script") == 1 and page.tags.count("img") == 18 and "b" not in page.tags
    assert page.text.count("<script>alert(") >= 20


@pytest.mark.parametrize(
    ("gone", "sections"),
    [
        (["latency.json"], ALL_SECTIONS - {"latency"}),
        (["parity.json"], ALL_SECTIONS - {"parity"}),
        (["eval.json"], ALL_SECTIONS - {"classes"}),
        (["metrics.jsonl"], ALL_SECTIONS - {"training"}),
        (["pictures"], ALL_SECTIONS - {"pictures"}),
        (["drift.json"], ALL_SECTIONS),
        (["drift.json", "artifacts"], ALL_SECTIONS - {"sensitivity"}),
        (["stages.json"], ALL_SECTIONS),
        (["artifacts"], ALL_SECTIONS),
        (["teacher"], ALL_SECTIONS),
        (["baseline"], ALL_SECTIONS),
        (["latency.npz"], ALL_SECTIONS),
        (["env.json", "config.yaml"], ALL_SECTIONS),
        (["student"], ALL_SECTIONS - {"card"}),
        (["teacher", "baseline", "student", "artifacts"], ALL_SECTIONS - {"lineage", "card"}),
    ],
)
def test_what_is_missing_leaves_its_section_out(run: Path, gone: list[str], sections: set[str]) -> None:
    for name in gone:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert set(page_of(run).ids) == sections


def test_an_empty_folder_and_a_run_in_the_middle_give_a_page(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    page = page_of(tmp_path / "empty")
    assert page.ids == ["again"] and "empty" in page.text
    (tmp_path / "empty" / "metrics.jsonl").write_text('{"stage": "teacher", "step": 10, "loss": 2.0}\n')
    assert set(page_of(tmp_path / "empty").ids) == {"training", "again"}


@pytest.mark.parametrize("keep", [["teacher"], ["baseline", "student"], ["student"], ["student-int8-ort-cpu.logits"]])
def test_any_set_of_scores_gives_a_page(run: Path, keep: list[str]) -> None:
    models = read_json(run / "eval.json")["models"]
    write_json(run / "eval.json", {"schema": 1, "models": {name: models[name] for name in keep}})
    assert set(page_of(run).ids) == ALL_SECTIONS


def test_a_broken_limit_is_shown_as_broken(run: Path) -> None:
    parity = read_json(run / "parity.json")
    parity["rungs"][2] |= {"agreement": 0.95, "passed": True, "failures": []}  # a stored verdict is not believed
    write_json(run / "parity.json", parity)
    page = page_of(run)
    assert "A limit is broken." in page.text and "Parity failed for student-int8-ort-cpu.logits." in page.text
    assert "agreement 95.0000% < 97.5000%" in page.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("eval.json", '{"schema": 1}'),
        ("latency.json", '{"rows": [{}]}'),
        ("parity.json", "[]"),
        ("env.json", "{"),
        ("latency.npz", "no zip"),
        ("latency.json", '{"schema": 99, "rows": []}'),
        ("drift.json", '{"reports": [{}]}'),
        ("pictures/layers.json", '{"scenes": [{}]}'),
        ("stages.json", "[]"),
        ("artifacts/student-recovery-ort-cpu.json", "{}"),
    ],
)
def test_a_damaged_file_is_named(run: Path, name: str, content: str) -> None:
    (run / name).write_text(content)
    with pytest.raises(ArtifactError, match=re.escape(name)):
        write_report(run)


def test_no_folder_is_a_usage_error_and_a_failed_page_leaves_the_old_one(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such run folder"):
        write_report(tmp_path / "nowhere")
    before = write_report(run).read_bytes()
    (run / "eval.json").write_text("{")
    with pytest.raises(ArtifactError):
        write_report(run)
    assert (run / "report.html").read_bytes() == before


def test_raw_samples_of_another_measurement_are_not_drawn(run: Path) -> None:
    report = read_json(run / "latency.json")
    report["rows"][0]["samples"] += 1
    write_json(run / "latency.json", report)
    assert page_of(run).tags.count("svg") == DRAWINGS - 2  # neither distribution nor tail


def test_what_was_emulated_or_not_run_says_so(run: Path) -> None:
    parity = read_json(run / "parity.json")
    assert "emulated" not in page_of(run).text.lower()
    parity["rungs"][2] |= {
        "emulated": True, "boundary_agreement": 0.91234, "boundary_px": 3, "confident_agreement": 0.99912, "confident_margin": 1.0,
        "top": "student", "top_delta_points": -0.41, "p95_ms": 7.25, "size_bytes": 11_400_000,
    }  # fmt: skip
    parity["rungs"][2]["limits"] |= {"max_p95_ms": 7.0, "min_boundary_agreement": 0.9, "max_size_mb": 12.0}
    parity["rungs"][3]["source"] = "files"
    reason = "no NVIDIA driver here"
    parity["skipped"] = [{"reference": "a", "candidate": HOSTILE, "precision": "fp16", "state": "not run", "reason": reason}]
    write_json(run / "parity.json", parity)
    page = page_of(run)
    for words in (
        "failedemulated",  # the verdict's cell
        "Emulated: this machine's runtime only imitates",
        "91.2340≥ 90.0000",
        "99.9120",
        "Near borders: within 3 px of a class border of the label; where confident: the reference's first class leads by 1 logits.",
        "7.25≤ 7.00",
        "11.40≤ 12.00",
        "−0.41",
        "p95 7.25 ms > 7 ms",
        "student-int8-ort-cpu.deploy, from image files",
        f"{HOSTILE}: not run ({reason}). That is no pass.",
        f"Not proven here: {HOSTILE}.",
    ):
        assert words in page.text, words
    assert page.tags.count("script") == 1


def test_a_ladder_of_which_nothing_ran_proves_nothing(run: Path) -> None:
    left_out = {"reference": "a", "candidate": "b", "precision": "fp32", "state": "not run", "reason": "torch is not installed"}
    write_json(run / "parity.json", {"schema": 2, "rungs": [], "skipped": [left_out]})
    page = page_of(run)
    assert "parity" in page.ids and "b: not run (torch is not installed)" in page.text
    assert "All limits are kept" not in page.text and "exported files answer like" not in page.text


def test_a_combination_tells_every_method(run: Path) -> None:
    card = read_json(run / "student" / "card.json")
    card["training"]["method"] = {"kind": "combined", "methods": [card["training"]["method"], {"kind": "cwd", "place": "head"}]}
    write_json(run / "student" / "card.json", card)
    page = page_of(run)
    for words in ("Trained with several distillation methods", "kind gdd, weight 20.0, temperature 4.0", "kind cwd, place head"):
        assert words in page.text, words
