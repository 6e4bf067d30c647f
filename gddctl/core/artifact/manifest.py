"""Artifacts with their lineage, and the manifest beside them that makes tampering visible."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gddctl.core.artifact.card import WEIGHTS_NAME, is_bundle
from gddctl.core.artifact.info import ModelInfo
from gddctl.core.config.sections import Graph
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.files import read_json, write_json

MANIFEST_SCHEMA = 1
MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """One deployable file: where it is, what it is, what it was made from."""

    path: Path
    sha256: str
    format: Literal["onnx", "engine"]
    info: ModelInfo

    @property
    def graph(self) -> Graph:
        """``logits`` or ``deploy``."""
        return self.info.graph

    def to_json(self) -> dict[str, Any]:
        """The manifest's row."""
        return {
            "file": self.path.name,
            "sha256": self.sha256,
            "bytes": self.path.stat().st_size,
            "format": self.format,
            "graph": self.info.graph,
            "precision": self.info.precision,
            "target": self.info.target,
            "parent_sha256": self.info.parent_sha256,
            "weights_sha256": self.info.weights_sha256,
            "calibration_sha256": self.info.calibration_sha256,
            "census": dict(self.info.census),
        }


def artifact_name(name: str, precision: str, target: str, graph: str, suffix: str = ".onnx") -> str:
    """``NAME-{precision}-{target}.{graph}.onnx``, the one naming rule.

    >>> artifact_name("student", "int8", "ort-cpu", "deploy")
    'student-int8-ort-cpu.deploy.onnx'
    """
    return f"{name}-{precision}-{target}.{graph}{suffix}"


def write_manifest(folder: Path, artifacts: list[Artifact]) -> None:
    """Write ``manifest.json`` in ``folder``, keeping rows of files still there that are not among ``artifacts``."""
    rows = {row["file"]: row for row in _rows(folder) if (folder / row["file"]).is_file()}
    rows.update({artifact.path.name: artifact.to_json() for artifact in artifacts})
    write_json(folder / MANIFEST_NAME, {"schema": MANIFEST_SCHEMA, "artifacts": [rows[name] for name in sorted(rows)]})


def manifest_row(path: Path) -> dict[str, Any] | None:
    """The row about ``path`` in the manifest beside it, or None where there is no manifest or no row."""
    return next((row for row in _rows(path.parent) if row["file"] == path.name), None)


def listed_files(folder: Path) -> dict[Path, dict[str, Any]]:
    """The files that the manifest in ``folder`` names, with their rows.

    Raises:
        UsageError: there is no manifest.
        ArtifactError: it is not one of ours, is empty, or names a file that is not there.
    """
    place = folder / MANIFEST_NAME
    if not place.is_file():
        raise UsageError(f"{place}: no such file, so nobody knows what was exported", remedy="export again: gddctl export BUNDLE")
    files = {folder / Path(str(row["file"])).name: row for row in _rows(folder)}
    if not files:
        raise ArtifactError(f"{place}: names no file", remedy="export again: gddctl export BUNDLE")
    for path in files:
        if not path.is_file():
            raise ArtifactError(f"{path}: gone, but {MANIFEST_NAME} names it", remedy="copy the whole folder, or export again")
    return files


def verify_file(path: Path) -> str:
    """The SHA-256 of a model file, checked against the manifest beside it where there is one.

    Raises:
        UsageError: no such file.
        ArtifactError: the bytes are not those the manifest names.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    found = sha256_file(path)
    row = manifest_row(path)
    if row is not None and row["sha256"] != found:
        raise ArtifactError(
            f"{path}: the file does not match its manifest (sha256 {found[:12]}…, expected {row['sha256'][:12]}…)",
            remedy="it was changed or damaged after export; export it again",
        )
    return found


def identity_of(path: Path) -> str:
    """The digest that names a model: a file's own, or that of a bundle's weights."""
    return sha256_file(path / WEIGHTS_NAME) if is_bundle(path) else sha256_file(path)


def _rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / MANIFEST_NAME
    if not path.exists():
        return []
    manifest = read_json(path)
    rows = manifest.get("artifacts") if isinstance(manifest, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and {"file", "sha256"} <= row.keys() for row in rows):
        raise ArtifactError(f"{path}: not a gddctl manifest", remedy="export again, or remove the file to do without its checks")
    return rows
