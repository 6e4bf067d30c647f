"""``gddctl compare`` on tiny drawn scenes, for real: killed and gone on with, a cell that fails, a budget, images held out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gddctl import __version__
from gddctl.core.artifact.card import Card, TrainingRecord
from gddctl.core.config.load import load_config
from gddctl.core.config.sections import NetworkConfig, SyntheticConfig
from gddctl.data.open import open_dataset
from gddctl.data.synthetic.write import write_dataset
from gddctl.models.checkpoint import save_bundle
from gddctl.models.segmenter import build_segmenter
from tests.commands.conftest import GDDCTL, Cli

SETTINGS = """\
name: tiny
data:
  preprocess: {size: [48, 64]}
  synthetic: {train_images: 10, val_images: 3, height: 48, width: 64}
teacher: {arch: pspnet, encoder: tu-test_resnet, output_stride: 32, iterations: 2}
student: {arch: pspnet, encoder: tu-test_resnet, output_stride: 32}
train:
  {iterations: 60, batch_size: 2, crop: [48, 64], lr: 0.01, workers: 0, val_every: 30, checkpoint_every: 2, log_every: 5, threads: 1,
   device: cpu}
compare:
  blocks: 2
  block_steps: 2
  methods:
    bad: {kind: kd, weight: 1.0e+300}
    both: [{kind: kd}, {kind: cwd}]
"""
PATIENCE = 300  # seconds until something that must happen is taken for missing; a loaded machine is slow
POLL = 0.02


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings, with a teacher of random weights that is there already."""
    folder = tmp_path_factory.mktemp("compare")
    path = folder / "tiny.yaml"
    path.write_text(SETTINGS.replace("iterations: 2}", "bundle: teacher}"))
    config = load_config(path)
    classes = open_dataset(config.data, "train").classes
    network = NetworkConfig(encoder="tu-test_resnet", output_stride=32)
    card = Card(
        name="teacher", role="teacher", network=network, parameters=0, classes=classes, preprocess=config.data.preprocess, data=config.data,
        weights_sha256="", config_digest="", gddctl_version=__version__,
        training=TrainingRecord(iterations=1, best_iteration=1, seconds=1, images_seen=2, seed=0, devices=1, precision="fp32"),
    )  # fmt: skip
    save_bundle(folder / "teacher", build_segmenter(network, len(classes), aux=False), card)
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def wait_for(found: Any, child: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not found():
        assert child.poll() is None, log.read_text()
        assert time.monotonic() < end, "it never came"
        time.sleep(POLL)


def processes_on(folder: Path) -> list[int]:
    """Processes whose command line names ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace") if entry.name.isdigit() else ""
        except OSError:
            continue
        if str(folder) in words:
            found.append(int(entry.name))
    return found


def test_killed_in_a_cell_it_goes_on_there_and_a_cell_that_fails_stops_no_other(settings: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", str(settings), "--methods", "bad,none", "--seeds", "1", "--out", str(out)]
    none = out / "cells" / "none-i60-s0"
    log = tmp_path / "log.txt"
    with (
        log.open("wb") as said,
        subprocess.Popen([GDDCTL, *words], stdout=said, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"}) as child,
    ):
        wait_for(lambda: list((none / "checkpoints" / "student").glob("step-*")), child, log)
        child.send_signal(signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while processes_on(out):
        assert time.monotonic() < end, "a cell outlived the command that started it"
        time.sleep(POLL)
    assert not (none / "cell.json").exists(), "the cell was over before the kill: the test has proved nothing"

    done = cli(*words)
    assert done.code == 6, done.err
    assert "none seed 0: going on at step" in done.err
    good, bad = read(none / "cell.json"), read(out / "cells" / "bad-i60-s0" / "cell.json")
    assert good["state"] == "done" and good["miou"] is not None and good["step_seconds"] > 0
    assert [point[0] for point in good["curve"]] == [30, 60]
    assert bad["state"] == "failed" and "kd" in bad["error"] and "step 1" in bad["error"]
    assert "1 cells failed: bad seed 0" in done.err
    assert bad["error"].split(":")[0] in done.out, "the table's words name the reason"
    comparison = read(out / "comparison.json")
    assert {row["arm"]["method"]: len(row["failed"]) for row in comparison["rows"]} == {"none": 0, "bad": 1}
    assert "bad" in (out / "comparison.html").read_text(encoding="utf-8")
    assert not (none / "checkpoints").exists(), "a finished cell keeps its bundle alone"

    with np.load(none / "counts.npz") as stored:
        counts, names = stored["counts"], [str(name) for name in stored["names"]]
    config = load_config(settings)
    val = open_dataset(config.data, "val")
    assert names == [val.name(index) for index in range(3)]
    labelled = [int((val[index].label != 255).sum()) for index in range(3)]
    assert counts.dtype == np.int64 and counts.sum(axis=(1, 2)).tolist() == labelled, "every labelled pixel at its own resolution"
    card = read(none / "student" / "card.json")
    assert card["training"]["best_iteration"] == 60, "the last step's weights, not the best validation's"
    union = counts.sum(axis=(0, 1)) + counts.sum(axis=(0, 2)) - np.diagonal(counts.sum(axis=0))
    right = np.diagonal(counts.sum(axis=0))
    assert good["miou"] == pytest.approx((right[union > 0] / union[union > 0]).mean())
    assert card["evaluation"]["miou"] == pytest.approx(good["miou"]), "the counts are of the very bundle"


def test_a_budget_becomes_iterations_once_and_val_is_not_opened_where_images_are_held_out(settings: Path, cli: Cli, tmp_path: Path) -> None:
    data, out = tmp_path / "scenes", tmp_path / "out"
    write_dataset(data, SyntheticConfig(train_images=10, val_images=1, height=48, width=64))
    for folder in ("images", "masks"):
        for path in (data / folder / "val").iterdir():
            path.unlink()
        (data / folder / "val").rmdir()  # whoever opens val now fails
    words = ["compare", settings, "--methods", "both", "--seeds", "1", "--on", "heldout", "--budget", "0.4", "--out", out]
    words += ["--set", "data.layout=folder", "--set", f"data.root={data}", "--set", "train.log_every=1"]
    done = cli(*words, "--json")
    assert done.code == 0, done.err
    times = read(out / "step_times.json")
    medians = {name: row["median"] for name, row in times["methods"].items()}
    assert set(medians) == {"none", "both"} and all(len(row["seconds"]) == 2 for row in times["methods"].values())
    cells = {cell["method"]: cell for cell in (read(path) for path in (out / "cells").glob("*/cell.json"))}
    assert {name: cell["iterations"] for name, cell in cells.items()} == {name: max(1, int(0.4 / t)) for name, t in medians.items()}
    assert "--methods none,both --budget 0.4 --seeds 1" in done.json["next"] and "heldout" not in done.json["next"], "chosen, then shown"
    comparison = done.json["comparison"]
    assert comparison["split"] == "held-out training images" and comparison["images"] == 2  # a fifth of 10
    assert any("trained on the held-out images too" in note for note in comparison["notes"]), "this teacher saw every image"
    assert {row["arm"]["budget"] for row in comparison["rows"]} == {"seconds"}
    assert {time["method"] for time in comparison["step_times"]["times"]} == {"none", "both"}
    assert cells["both"]["extra_parameters"] == 0 and cells["none"]["peak_memory_mb"] > 0
    for cell in (out / "cells").iterdir():
        with np.load(cell / "counts.npz") as stored:
            held = {str(name) for name in stored["names"]}
    card = read(out / "cells" / f"none-i{cells['none']['iterations']}-s0" / "student" / "card.json")
    assert card["data"]["val_split"] == "held-out" and len(held) == 2

    times["methods"]["none"]["seconds"] = times["methods"]["both"]["seconds"] = [0.1]  # as a slower or faster hour would have it
    (out / "step_times.json").write_text(json.dumps(times))
    ahead = cli(*words, "--dry-run", "--json")
    assert ahead.code == 0 and {cell["iterations"] for cell in ahead.json["cells"]} == {4}, "by the record: nothing is measured again"
    other = cli(*words, "--budget", "0.5")
    assert other.code == 2 and "0.4 seconds" in other.err


def test_at_the_time_of_a_method_its_cells_are_those_of_equal_iterations(settings: Path, cli: Cli, tmp_path: Path) -> None:
    words = ["compare", settings, "--methods", "both", "--seeds", "1", "--set", "train.iterations=4", "--out", tmp_path / "out"]
    assert cli(*words).code == 0
    ahead = cli(*words, "--budget", "both", "--dry-run", "--json")
    lines = [(cell["label"], cell["iterations"], cell["state"], cell["seconds"] is None) for cell in ahead.json["cells"]]
    assert lines == [("none seed 0", None, "todo", True), ("both seed 0", 4, "done", False)], "none's step was not timed"
    done = cli(*words, "--budget", "both", "--json")
    assert done.code == 0, done.err
    times = read(tmp_path / "out" / "step_times.json")
    medians = {name: row["median"] for name, row in times["methods"].items()}
    steps = max(1, int(4 * medians["both"] / medians["none"]))
    assert times["budget_of"] == {"method": "both", "iterations": 4} and times["budget_seconds"] == pytest.approx(4 * medians["both"])
    assert "both seed 0: " not in done.err, "trained again, though it is the same cell"
    assert ("none seed 0: " in done.err) is (steps != 4), "of as many steps by chance, it is the same cell too"
    rows = {(row["arm"]["method"], row["arm"]["budget"]): row["arm"]["iterations"] for row in done.json["comparison"]["rows"]}
    assert rows == {("none", "iterations"): 4, ("both", "iterations"): 4, ("none", "seconds"): steps, ("both", "seconds"): 4}
    assert ", the time of 4 steps of both, became each method" in (tmp_path / "out" / "comparison.html").read_text()
    assert "--budget both" in done.json["next"]
    longer = cli(*words, "--budget", "both", "--set", "train.iterations=5")
    assert longer.code == 2 and "the time of 4 steps of both" in longer.err
    stranger = cli(*words, "--budget", "cwd")
    assert stranger.code == 2 and "--budget cwd: expected seconds, or a method that is compared" in stranger.err
    others = cli(*words[:3], "none", *words[4:], "--budget", "both", "--dry-run", "--json")
    assert [cell["state"] for cell in others.json["cells"]] == ["done"], "the folder's budget need not be among the methods of a call"


def test_words_that_cannot_be_meant_are_refused(settings: Path, cli: Cli, tmp_path: Path) -> None:
    typo = cli("compare", settings, "--methods", "cdw", "--out", tmp_path / "a")
    assert typo.code == 2 and "unknown method 'cdw'; did you mean 'cwd'?" in typo.err
    for name in ("kd", "cirkd", "gdd:fast", "both"):
        assert name in typo.err
    runs = cli("compare", settings, "--set", "compare.neighbours=50", "--out", tmp_path / "a")
    assert runs.code == 5 and "compare.neighbours" in runs.err
    limited = cli("compare", settings, "--set", "train.time_limit=5", "--out", tmp_path / "a")
    assert limited.code == 2 and "train.time_limit" in limited.err and "--budget" in limited.err
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_other_views_score_the_trained_cells_again_and_train_nothing(settings: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["compare", settings, "--methods", "none", "--seeds", "1", "--out", out, "--set", "train.iterations=4"]
    full = ["--set", "compare.views={flip: true, scales: [0.75, 1], window: true}"]
    plain = cli(*words, "--json")
    assert plain.code == 0, plain.err
    cell = out / "cells" / "none-i4-s0"
    weights, curve = (cell / "student" / "model.safetensors").stat().st_mtime_ns, read(cell / "cell.json")["curve"]
    card = read(cell / "student" / "card.json")
    assert read(cell / "cell.json")["protocol"] == card["evaluation"]["protocol"], "the words are those of the training's own evaluation"

    ahead = cli(*words, *full, "--dry-run", "--json")
    assert ahead.code == 0 and [line["state"] for line in ahead.json["cells"]] == ["trained"]
    assert "0 of 1 trainings left" in ahead.json["summary"] and "1 that are trained will be scored" in ahead.json["summary"]
    seen = cli(*words, *full, "--json")
    assert seen.code == 0, seen.err
    assert "0 to train, 1 to score alone, 0 done before" in seen.err
    assert (cell / "student" / "model.safetensors").stat().st_mtime_ns == weights, "trained once"
    protocol = read(out / "comparison.json")["protocol"]
    assert "image scaled by 0.75+1" in protocol and "sliding window 48x64" in protocol and "with flip" in protocol
    assert protocol in (out / "comparison.html").read_text(encoding="utf-8")
    (row,) = seen.json["comparison"]["rows"]
    judged = cli("eval", cell / "student", "--flip", "--window", "--scales", "0.75,1", "--json")
    assert row["scores"] == [[0, pytest.approx(judged.json["miou"])]], "what eval says of the same views"
    assert protocol == f"{judged.json['protocol']}, weights of the last step"
    assert row["curves"] == [[0, curve]], "scores while training are what they were"

    back = cli(*words, "--json")
    assert back.code == 0 and "0 to train, 1 done before" in back.err
    assert back.json["comparison"] == plain.json["comparison"]


@pytest.mark.slow
def test_two_methods_two_seeds_side_by_side_stopped_and_extended(settings: Path, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    own = ["--set", "teacher.bundle=null", "--set", "teacher.iterations=3", "--set", "train.iterations=8"]
    words = [str(word) for word in ("compare", settings, *own, "--out", out)]
    first = [*words, "--methods", "both,gdd:fast", "--seeds", "2", "--jobs", "2"]
    log = tmp_path / "log.txt"
    with log.open("wb") as said, subprocess.Popen([GDDCTL, *first], stdout=said, stderr=said) as child:
        wait_for(lambda: list((out / "cells").glob("gdd.fast-*/checkpoints/student/step-*")), child, log)
        child.send_signal(signal.SIGINT)
    assert child.returncode == 130 and "start the same command again" in log.read_text()
    assert processes_on(out) == []
    teacher = (out / "teacher" / "model.safetensors").stat().st_mtime_ns

    done = cli(*first, "--json")
    assert done.code == 0, done.err
    rows = {row["arm"]["method"]: row for row in done.json["comparison"]["rows"]}
    assert set(rows) == {"none", "both", "gdd:fast"}
    assert all(len(row["scores"]) == 2 for row in rows.values())
    assert rows["gdd:fast"]["extra_parameters"] > 0 == rows["none"]["extra_parameters"]
    assert done.json["comparison"]["teacher"]["seconds"] > 0
    again = cli(*words, "--seeds", "3", "--methods", "both")
    assert again.code == 0 and "4 done before" in again.err, "seeds and methods can be added"
    assert (out / "teacher" / "model.safetensors").stat().st_mtime_ns == teacher, "trained once"
    assert "gdd:fast" in again.out, "the table shows everything that stands in the folder"
    changed = cli(*words, "--methods", "both", "--set", "compare.methods.both=[{kind: kd}]")
    assert changed.code == 2 and "give the method another label" in changed.err
    other = cli(*words, "--methods", "both", "--set", "train.lr=0.5")
    assert other.code == 2 and "train.lr" in other.err
