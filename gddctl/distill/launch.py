"""``python -m gddctl.distill.launch PARENT N JOB.json``: torchrun for one training, ending with the process that started it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from gddctl.core.lifeline import end_with_parent

AGENT = "GDDCTL_AGENT"  # environment: process id of the launcher


def stop_signals() -> Sequence[signal.Signals]:
    """What asks a training process to stop with a checkpoint.

    Under our launcher that is SIGINT alone: SIGTERM is how torchrun ends the others when one has failed, and is obeyed at once.
    """
    return (signal.SIGINT,) if AGENT in os.environ else (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Start the processes and wait for them."""
    parent, processes, job_file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    end_with_parent(parent)
    os.environ[AGENT] = str(os.getpid())

    from torch.distributed.run import main as torchrun  # late: the kernel must know of the parent first

    torchrun(["--standalone", "--nproc-per-node", processes, "-m", "gddctl.distill.worker", job_file])


if __name__ == "__main__":
    main()
