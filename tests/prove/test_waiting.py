"""Waiting for a CPU is told from leaving one idle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gddctl.prove.waiting import waiting_ns


def test_threads_are_added_up_and_those_that_ended_are_passed_over(tmp_path: Path) -> None:
    for name, text in (("11", "500 70 3\n"), ("12", "9 30 1\n"), ("13", "nonsense\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "schedstat").write_text(text)
    (tmp_path / "14").mkdir()
    assert waiting_ns(tmp_path) == 100


def test_a_kernel_that_does_not_tell(tmp_path: Path) -> None:
    (tmp_path / "11").mkdir()
    assert waiting_ns(tmp_path) is None and waiting_ns(tmp_path / "nowhere") is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or waiting_ns() is None, reason="this kernel does not tell")
def test_a_cpu_shared_with_another_process_is_waited_for_and_sleep_is_not() -> None:
    """A child on one CPU: it sleeps, works alone if it can, then works beside three others; prints what it waited."""
    script = (
        "import os, subprocess, sys, time\n"
        "from gddctl.prove.waiting import waiting_ns\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "def work(cpu):\n"
        "    end = time.process_time() + cpu\n"
        "    while time.process_time() < end: pass\n"
        "def waited(call):\n"
        "    before = waiting_ns(); call(); return waiting_ns() - before\n"
        "asleep = waited(lambda: time.sleep(0.5))\n"
        "others = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(3)]\n"
        "time.sleep(0.3)\n"
        "try: beside = waited(lambda: work(0.3))\n"
        "finally: [other.kill() for other in others]\n"
        "print(asleep, beside)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == 0, done.stderr
    asleep, beside = map(int, done.stdout.split())
    assert beside > 3e8 > asleep, "beside three others, 0.3 s of work wait about 0.9 s; a sleeper waits for nothing but its waking"
