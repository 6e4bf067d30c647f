"""A release, checked where it lies: every file by its hash, then the golden image through every model that this machine can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gddctl.core.errors import ArtifactError
from gddctl.runtime.describe import read_info
from gddctl.runtime.protocol import Device
from gddctl.ship.golden import agreement, answer, read_golden, this_machine
from gddctl.ship.manifest import SIGNATURE, Machine, ModelRow, Release, printable, problems, read_release
from gddctl.ship.sign import check_signature

VERIFY_SCHEMA = 1
_MOST_SHOWN = 8  # files named in one error

Signature = Literal["good", "none", "not checked"]


@dataclass(frozen=True)
class Checked:
    """One model on this machine. ``agreement`` is None where it could not run; ``reason`` says why."""

    file: str
    agreement: float | None  # share of the golden mask's pixels, 0..1
    least: float
    exact: bool  # whether every pixel must be the same here
    reason: str = ""

    @property
    def state(self) -> Literal["passed", "failed", "skipped"]:
        """The verdict."""
        if self.agreement is None:
            return "skipped"
        return "passed" if self.agreement >= self.needed else "failed"

    @property
    def needed(self) -> float:
        """The least agreement here."""
        return 1.0 if self.exact else self.least


@dataclass(frozen=True)
class Verification:
    """A whole release: its files are those of its manifest, or this would not exist. Truthy when a model ran and none failed."""

    name: str
    files: int
    signature: Signature
    models: tuple[Checked, ...]

    def __bool__(self) -> bool:
        return self.ran and not self.failures

    @property
    def ran(self) -> bool:
        """Whether any model ran here."""
        return any(item.agreement is not None for item in self.models)

    @property
    def failures(self) -> tuple[str, ...]:
        """Each model that misses the golden mask, in words."""
        return tuple(
            f"{item.file}: {100 * (item.agreement or 0):.4f} % of the golden mask, expected {100 * item.needed:.4f} %"
            for item in self.models
            if item.state == "failed"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema number; verdicts are written for readers."""
        rows = [{**asdict(item), "needed": item.needed, "state": item.state} for item in self.models]
        return {
            "schema": VERIFY_SCHEMA,
            "passed": bool(self),
            "name": self.name,
            "files": self.files,
            "signature": self.signature,
            "models": rows,
        }


def verify(
    folder: Path, *, device: Device = "cpu", public_key: Path | None = None, progress: Callable[[str], None] | None = None
) -> Verification:
    """Check the release in ``folder``.

    Args:
        folder: the release.
        device: where ONNX files run; an engine runs on its GPU.
        public_key: of who signed it; given by another way than the release itself.
        progress: told the name of each model before it runs.

    Raises:
        UsageError: no release there, or no such key.
        ArtifactError: a file was changed, is missing or was added; or the signature is not good.
    """
    release = read_release(folder)
    if public_key is not None:
        check_signature(folder, public_key)
    if wrong := _problems(folder, release):
        more = f" and {len(wrong) - _MOST_SHOWN} more" if len(wrong) > _MOST_SHOWN else ""
        raise ArtifactError(
            f"{folder}: not the release that its manifest describes: {'; '.join(wrong[:_MOST_SHOWN])}{more}",
            remedy="copy the release again, whole; what you add belongs outside it",
        )
    pixels, expected = read_golden(folder, release.golden)
    here, rows = this_machine(), []
    for row in release.models:
        if progress is not None:
            progress(row.file)
        info = read_info(folder / row.file)
        found = answer(folder / row.file, info, pixels, device)
        share = None if found.mask is None else agreement(found.mask, expected)
        exact = _must_be_exact(row, here, device)
        rows.append(Checked(row.file, share, row.expect.min_agreement, exact, found.reason))
    signature: Signature = "good" if public_key is not None else "not checked" if (folder / SIGNATURE).exists() else "none"
    return Verification(printable(release.name), len(release.files), signature, tuple(rows))


def _problems(folder: Path, release: Release) -> list[str]:
    try:
        return list(problems(folder, release))
    except OSError as error:
        raise ArtifactError(
            f"{error.filename or folder}: cannot be read ({error.strerror or error})", remedy="check its permissions"
        ) from error


def _must_be_exact(row: ModelRow, here: Machine, device: Device) -> bool:
    return device == "cpu" and row.format == "onnx" and row.expect.exact_on == here
