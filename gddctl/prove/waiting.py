"""How long this process' threads were ready to run and had no CPU: what other work took, and nothing that the program left unused."""

from __future__ import annotations

from pathlib import Path

TASKS = Path("/proc/self/task")


def waiting_ns(tasks: Path = TASKS) -> int | None:
    """Nanoseconds that the threads alive now have waited on a run queue since each began; None where the kernel does not tell.

    Source: Linux, Documentation/scheduler/sched-stats.rst: the second number of ``/proc/PID/task/TID/schedstat``.
    """
    total, found = 0, False
    try:
        threads = list(tasks.iterdir())
    except OSError:
        return None
    for thread in threads:
        try:
            total += int((thread / "schedstat").read_text(encoding="ascii").split()[1])
            found = True
        except (OSError, ValueError, IndexError):  # it has ended meanwhile, or there is no such file
            continue
    return total if found else None
