"""A hidden folder to make files in: nothing shows outside until everything is whole, and a killed export goes on from what was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".export-"


@contextmanager
def workshop(out: Path, digest: str) -> Iterator[Path]:
    """``out/.export-DIGEST``; hold ``out`` first.

    What a killed export of the same digest left is found again, since every file in it was written whole; what others left is removed.
    Gone after the block, also when it fails.
    """
    folder = out / f"{_PREFIX}{digest[:12]}"
    for stale in out.glob(f"{_PREFIX}*"):
        if stale != folder:
            shutil.rmtree(stale, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    for half in folder.glob(".*"):  # temporary names of files that never became whole
        shutil.rmtree(half, ignore_errors=True) if half.is_dir() else half.unlink(missing_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, out: Path) -> None:
    """Move every file of the workshop into ``out``, over older ones of the same name."""
    for file in sorted(folder.iterdir()):
        file.replace(out / file.name)
