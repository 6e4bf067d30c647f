"""A teacher's bundle, opened to answer on the dataset that it teaches: its classes found by name, as when it teaches."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.teaching import class_order
from gddctl.core.classes import ClassTable
from gddctl.runtime.open import open_runtime
from gddctl.runtime.protocol import Device, Runtime
from gddctl.runtime.reordered import Reordered


def open_teacher_on(
    bundle: Path, classes: ClassTable, *, drop: bool = False, device: Device = "cpu", threads: int | None = None
) -> Runtime:
    """The network of ``bundle``, answering with ``classes``.

    Args:
        bundle: of a teacher that sees images alone.
        classes: the dataset's.
        drop: leave out classes that only the teacher has, instead of refusing it.
        device: see :func:`gddctl.runtime.open.open_runtime`.
        threads: of the CPU.

    Raises:
        ArtifactError: its classes do not match; the message lists both.
    """
    card = read_card(bundle)
    order = class_order(card, classes, who=f"teacher {bundle}", drop=drop)
    runtime = open_runtime(bundle, device=device, threads=threads)
    if card.classes.names == classes.names:
        return runtime
    return Reordered(runtime, classes, range(len(classes)) if order is None else order)
