"""The command line itself: help, errors in one line, exit codes, JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from gddctl import __version__
from gddctl.cli import app
from tests import wheel_check
from tests.commands.conftest import GDDCTL, Cli, Run, heed_interrupts


def named(group: Any, before: str = "") -> Iterator[str]:
    """Commands of a group, by its attribute: Typer's groups are click's in some versions and its own in others."""
    for name, command in group.commands.items():
        yield from named(command, f"{name} ") if hasattr(command, "commands") else [before + name]


COMMANDS = tuple(named(get_command(app)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(cli: Cli, command: str) -> None:
    done = cli(*command.split(), "--help")
    assert done.code == 0
    for option in ("--json", "--verbose", "--quiet"):
        assert option in done.out


def test_the_check_of_the_bare_wheel_asks_every_command_for_help() -> None:
    assert set(wheel_check.COMMANDS) >= set(COMMANDS) and "data check" in COMMANDS


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"gddctl {__version__}\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("run", "none.yaml"), 2, "no such config file"),
        (("run", "--set", "distill.method.temprature=3"), 2, "did you mean 'temperature'?"),
        (("run", "--set", "train.iterations=x"), 2, "train.iterations"),
        (("run", "--set", "data.layout=camvid", "--set", "data.root=nowhere", "--out", "o"), 2, "nowhere"),
        (("frobnicate",), 2, "No such command"),
        (("train", "--iterations", "0"), 2, "--iterations"),
        (("distill", "--out", "o"), 2, "gddctl train"),
        (("distill", "--teacher", "nowhere", "--out", "o"), 2, "nowhere"),
        (("distill", "--student", "what?", "--out", "o"), 2, "ARCH-ENCODER"),
        (("distill", "--data", "nowhere"), 2, "nowhere"),
        (("eval", "nowhere"), 2, "nowhere"),
        (("export", "nowhere"), 2, "nowhere"),
        (("parity", "nowhere", "nowhere"), 2, "nowhere"),
        (("bench", "nowhere"), 2, "nowhere"),
        (("data", "check", "nowhere"), 2, "nowhere"),
        (("data", "check", "."), 5, "not a known dataset layout"),
        (("init", "nowhere"), 2, "nowhere"),
        (("train", "--set", "teacher.encoder=resnet8", "--out", "o"), 2, "resnet8"),
        (("train", "--set", "teacher.encoder_weights=imagenet", "--out", "o"), 4, "encoder_weights"),
        (("train", "--device", "cuda", "--out", "o"), 4, "cuda"),
    ],
)
def test_a_users_mistake_is_one_line_and_its_code(cli: Cli, tmp_path: Path, words: tuple[str, ...], code: int, says: str) -> None:
    done = cli(*words, cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert done.code == code, done.err
    assert says.lower() in done.err.lower()
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert len(errors) == (0 if "No such command" in says or "--iterations" in says else 1)


def test_errors_under_json_are_json(cli: Cli, tmp_path: Path) -> None:
    done = cli("eval", tmp_path / "nowhere", "--json")
    assert done.code == 2
    assert done.json["exit_code"] == 2
    assert "nowhere" in done.json["error"]


@pytest.mark.parametrize("words", [("frobnicate",), ("eval",), ("train", "--iterations", "0"), ("run", "--nonsense")])
def test_wrong_words_under_json_are_json(cli: Cli, words: tuple[str, ...]) -> None:
    done = cli(*words, "--json")
    assert done.code == 2
    assert (done.json["kind"], done.json["exit_code"]) == ("UsageError", 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_outside_training_is_said_and_leaves_nothing_half_made(tmp_path: Path, number: signal.Signals) -> None:
    words = [GDDCTL, "data", "synth", str(tmp_path / "many"), "--train", "20000", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts) as process:  # noqa: PLW1509
        while not list(tmp_path.iterdir()):  # it has begun to write
            time.sleep(0.05)
            assert process.poll() is None
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["kind"] == "Interrupted"
    assert err == "error: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    line = f"( sleep 3; {GDDCTL} run --dry-run; echo $? >&2 ) | true"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == "0\n"


def test_the_plan_ends_with_the_command_that_was_planned(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", "--dry-run", "--set", "seed=3", "--set", "train.crop=[64, 96]", "--json", cwd=tmp_path)
    assert done.json["next"] == "gddctl run --set seed=3 --set 'train.crop=[64, 96]' --out runs/demo"


def test_an_image_that_is_not_a_model(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(b"not a model")
    done = cli("bench", path)
    assert done.code == 5
    assert "x.onnx" in done.err


def test_doctor_says_what_loads(cli: Cli) -> None:
    findings = {item["name"]: item for item in cli("doctor", "--json").json["findings"]}
    assert findings["torch"]["state"] == "ok"
    assert findings["CPUExecutionProvider"]["state"] == "ok"
    if findings["NVIDIA driver"]["state"] == "missing":
        assert findings["CUDAExecutionProvider"]["state"] == "missing"


def test_init_writes_a_config_that_runs(cli: Cli, tmp_path: Path) -> None:
    cli("data", "synth", tmp_path / "street", "--train", "5", "--val", "3", "--height", "70", "--width", "90")
    done = cli("init", tmp_path / "street", "--out", tmp_path / "c.yaml", "--json")
    assert done.code == 0
    assert "folder, 5 train, 3 val images of 70 x 90, 11 classes" in done.json["seen"]
    text = (tmp_path / "c.yaml").read_text()
    assert "# classes: sky, building" in text
    plan = cli("run", tmp_path / "c.yaml", "--dry-run", "--json").json
    assert plan["config"]["data"]["root"] == str(tmp_path / "street")
    assert plan["config"]["data"]["preprocess"]["size"] == [64, 88]
    again = cli("init", tmp_path / "street", "--out", tmp_path / "c.yaml")
    assert again.code == 2
    assert cli("init", "--out", tmp_path / "c.yaml", "--force").code == 0
    assert (tmp_path / "c.yaml.old").read_text() == text


def test_data_check_names_what_is_wrong(cli: Cli, tmp_path: Path) -> None:
    cli("data", "synth", tmp_path / "set", "--train", "4", "--val", "2", "--height", "40", "--width", "40")
    done = cli("data", "check", tmp_path / "set", "--json")
    assert done.code == 0, done.err
    victim = sorted((tmp_path / "set" / "images" / "train").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:100])
    done = cli("data", "check", tmp_path / "set")
    assert done.code == 5
    assert victim.name in done.out


def test_a_folder_in_use_is_refused(cli: Cli, tiny_config: Path, tmp_path: Path) -> None:
    import fcntl

    folder = tmp_path / "run"
    folder.mkdir()
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = cli("run", tiny_config, "--out", folder)
    assert done.code == 2
    assert "in use by another gddctl" in done.err


def test_ctrl_c_leaves_with_130_and_a_checkpoint(tiny_config: Path, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [GDDCTL, "train", str(tiny_config), "--out", str(folder), "--set", "teacher.iterations=100000"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as child:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list((folder / "checkpoints" / "teacher").glob("step-*")):
            time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    assert "checkpoint is written" in err
    newest = sorted((folder / "checkpoints" / "teacher").glob("step-*"))[-1]
    assert json.loads((newest / "meta.json").read_text())


def test_distill_needs_no_file(tiny_run: Run, cli: Cli, tmp_path: Path) -> None:
    cli("data", "synth", tmp_path / "street", "--train", "6", "--val", "3", "--height", "60", "--width", "80")
    done = cli(
        "distill", "--data", tmp_path / "street", "--teacher", tiny_run.folder / "teacher", "--student", "pspnet-resnet18-s32",
        "--method", "gdd", "--iterations", "2", "--batch-size", "2", "--device", "cpu", "--seed", "3",
        "--init", tiny_run.folder / "baseline",
        "--set", "train.crop=[48, 64]", "--set", "train.workers=0", "--set", "distill.method.weight=1.0",
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    card = done.json["card"]
    assert card["training"]["seed"] == 3
    assert card["training"]["iterations"] == 2
    assert card["preprocess"]["size"] == [48, 64], "from the teacher's card"
    assert card["training"]["init_weights_sha256"]
    assert done.json["next"].startswith("gddctl export ")
