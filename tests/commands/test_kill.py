"""Killed at random moments and started again, a run ends with the same bits as one that was never killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import Any

from gddctl.core.digest import sha256_file
from tests.commands.conftest import GDDCTL, Cli, Run

KILLS = 4
EARLIEST, LATEST = 3.0, 12.0  # seconds: from just after the imports to the exports of a quiet machine
TIMES = ("seconds", "images_per_s", "data_wait")  # what may differ between two runs


def losses(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


def test_sigkill_at_random_moments_changes_no_bit(tiny_run: Run, tiny_config: Path, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed of the moments: {seed}")  # shown by pytest when the test fails
    moments = random.Random(seed)
    killed = 0
    for _ in range(KILLS):
        command = [GDDCTL, "run", str(tiny_config), "--out", str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as child:
            try:
                child.wait(moments.uniform(EARLIEST, LATEST))
                break  # it finished between two kills
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                killed += 1
    done = cli("run", tiny_config, "--out", folder)
    assert done.code == 0, done.err
    assert killed, "the run was over before the first kill: the test has proved nothing"
    for role in ("teacher", "baseline", "student"):
        assert sha256_file(folder / role / "model.safetensors") == sha256_file(tiny_run.folder / role / "model.safetensors"), role
    assert losses(folder) == losses(tiny_run.folder)
    for name in (tiny_run.fp32.name, tiny_run.int8.name):
        assert sha256_file(folder / "artifacts" / name) == sha256_file(tiny_run.folder / "artifacts" / name), name
    leftovers = [path for path in (folder / "artifacts").iterdir() if path.name.startswith(".export")]
    assert leftovers == []
