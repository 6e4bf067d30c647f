"""What is measured on what: files, devices, batch sizes and graphs, turned into the list of rows before anything is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from gddctl.core.config.bench import BenchConfig, BenchDevice
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.runtime.describe import ENGINE_SUFFIX, read_info, require_model
from gddctl.runtime.protocol import check_target


@dataclass(frozen=True)
class Subject:
    """A bundle or a file, and where to run it if that was named."""

    path: Path
    device: BenchDevice | None = None  # None: on each of the devices of the settings that it is for


@dataclass(frozen=True)
class Case:
    """One process's work."""

    path: Path
    device: BenchDevice
    batch: int
    cuda_graph: bool = False

    def __str__(self) -> str:
        """For messages."""
        return f"{self.path.name} on {'its GPU' if self.path.suffix == ENGINE_SUFFIX else self.device}, batch {self.batch}"


@dataclass(frozen=True)
class Plan:
    """The cases in order, and what of the product of files and devices is left out, with the reason."""

    cases: tuple[Case, ...]
    skipped: tuple[str, ...] = ()


def parse_subject(text: str) -> Subject:
    """``FILE`` or ``FILE@DEVICE``.

    >>> parse_subject("student.onnx@openvino").device
    'openvino'
    """
    name, at, device = text.rpartition("@")
    if at and not Path(text).exists():
        for known in get_args(BenchDevice):
            if device == known:
                return Subject(Path(name), known)
        if Path(name).exists():
            raise UsageError(f"{text}: unknown device '{device}'", remedy=f"one of: {', '.join(get_args(BenchDevice))}")
    return Subject(Path(text))


def plan(subjects: Sequence[Subject], config: BenchConfig) -> Plan:
    """Every case, once.

    A device that was named for one file is meant: an INT8 file of another target there is an error. On a device of a list, where
    another device of it fits, such a file is skipped with the reason.

    Raises:
        UsageError: nothing to time, or a path that is no model.
        ArtifactError: a broken file, or an INT8 file that none of the devices is the target of.
    """
    if not subjects:
        raise UsageError("nothing to time", remedy="name a bundle or an exported file")
    cases: list[Case] = []
    skipped: list[str] = []
    for subject in subjects:
        require_model(subject.path)
        devices, refused = _devices(subject, config)
        skipped += refused
        graphs = {"off": (False,), "on": (True,), "both": (False, True)}[config.cuda_graph] if _is_engine(subject.path) else (False,)
        cases += [
            Case(subject.path, device, batch, graph)
            for device in devices
            for batch in config.batches
            for graph in graphs
        ]  # fmt: skip
    return Plan(tuple(dict.fromkeys(cases)), tuple(skipped))


def _devices(subject: Subject, config: BenchConfig) -> tuple[list[BenchDevice], list[str]]:
    """Where it runs, and why not on the others."""
    wanted = (subject.device,) if subject.device is not None else config.devices
    if _is_engine(subject.path):
        return ["cuda"], []
    if subject.path.is_dir():  # torch knows two devices; the neighbours of each are the same to it
        return list(dict.fromkeys("cpu" if device in ("cpu", "openvino") else "cuda" for device in wanted)), []
    info = read_info(subject.path)
    fits: list[BenchDevice] = []
    refusals: list[ArtifactError] = []
    for device in wanted:
        there: BenchDevice = "openvino" if (device, info.precision, info.target) == ("cpu", "int8", "openvino") else device
        try:
            check_target(info, there, str(subject.path))
        except ArtifactError as error:
            refusals.append(error)
        else:
            fits.append(there)
    if refusals and not fits:
        raise refusals[0]
    return list(dict.fromkeys(fits)), [error.message for error in refusals]


def _is_engine(path: Path) -> bool:
    return path.suffix == ENGINE_SUFFIX
