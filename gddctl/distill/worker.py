"""``python -m gddctl.distill.worker JOB.json``: one process of a training, started by torchrun."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gddctl.core.lifeline import end_with_parent
from gddctl.distill.launch import AGENT


def main() -> int:
    """Train; leave what went wrong in a file for the parent. Returns the exit code."""
    if AGENT in os.environ:
        end_with_parent(int(os.environ[AGENT]))

    from gddctl.core.config.load import parse
    from gddctl.core.errors import GddctlError
    from gddctl.core.files import read_json
    from gddctl.distill.distributed import FAILURES
    from gddctl.distill.job import TrainJob
    from gddctl.distill.progress import SilentReporter
    from gddctl.distill.relay import RelayReporter, write_failure
    from gddctl.distill.sitting import sit

    job = parse(TrainJob, read_json(Path(sys.argv[1])))
    rank = int(os.environ.get("RANK", "0"))
    try:
        sit(job, RelayReporter(sys.stdout) if rank == 0 else SilentReporter())
    except GddctlError as error:
        write_failure(job.checkpoints / FAILURES, rank, error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
