"""Which models a ladder is made of: what a run folder or an artifacts folder holds, believed only after a look."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gddctl.core.artifact.card import is_bundle
from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.manifest import MANIFEST_NAME, listed_files, verify_file
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.prove.ladder import Member
from gddctl.runtime.describe import ENGINE_SUFFIX, read_info

log = logging.getLogger(__name__)

_CLAIMS = ("graph", "precision", "target", "parent_sha256", "weights_sha256")  # what a manifest's row and the file itself both say


@dataclass(frozen=True)
class Found:
    """A ladder on disk."""

    members: tuple[Member, ...]
    home: Path  # the run folder, or the folder that the artifacts folder lies in

    @property
    def model(self) -> Path:
        """The member to ask for its data: a file of the run before the bundle, because the run's settings can be mended."""
        return next((member.path for member in self.members if member.kind != "bundle"), self.members[0].path)

    @property
    def bundle(self) -> Path | None:
        """The bundle at the top, where there is one."""
        return next((member.path for member in self.members if member.kind == "bundle"), None)


def find_ladder(place: Path) -> Found:
    """The ladder in ``place``: a run folder, or an artifacts folder beside its bundle.

    Raises:
        UsageError: no such folder, or no manifest in it.
        ArtifactError: a file is damaged, is not what the manifest says, or was made from another student than the one beside it.
    """
    if not place.is_dir():
        raise UsageError(f"{place}: no such folder", remedy="name a run folder, or the folder that export wrote")
    inside = place / "artifacts"
    folder = place if (place / MANIFEST_NAME).is_file() or not inside.is_dir() else inside
    files = listed_files(folder)
    for path in sorted(folder.glob("*.onnx")):
        if path not in files:
            log.warning("%s: not in the manifest, left out", path)
    members = [_checked(member_of(path), row) for path, row in files.items()]
    home = folder.resolve().parent
    return Found((*_bundles(home, members), *members), home)


def member_of(path: Path) -> Member:
    """The model at ``path``, its bytes checked against the manifest beside it; weights of a bundle are checked when it is opened."""
    info = read_info(path)
    if path.is_dir():
        return Member(path, info.weights_sha256, info, "bundle")
    return Member(path, verify_file(path), info, "engine" if path.suffix == ENGINE_SUFFIX else "onnx")


def _checked(member: Member, row: dict[str, Any]) -> Member:
    told = member.info.model_dump(mode="json")
    for key in _CLAIMS:
        if key in row and row[key] != told[key]:
            raise ArtifactError(
                f"{member.path}: {MANIFEST_NAME} says {key} {row[key]}, the file itself {told[key]}",
                remedy="the manifest was edited; export again",
            )
    return member


def _bundles(home: Path, files: Sequence[Member]) -> list[Member]:
    """The bundle in ``home`` whose weights the files carry; none where there is no student at all."""
    weights = {member.info.weights_sha256: member.path for member in files}
    beside = [member_of(folder) for folder in sorted(home.iterdir()) if is_bundle(folder)]
    fitting = [member for member in beside if member.sha256 in weights]
    students = [member for member in beside if read_card(member.path).role == "student"]
    if not fitting and students:
        raise ArtifactError(
            f"{files[0].path}: made from weights {files[0].info.weights_sha256[:12]}…, "
            f"but {students[0].path} holds {students[0].sha256[:12]}…",
            remedy="the student was trained again since; export it again",
        )
    if not fitting:
        log.info("no bundle beside %s: the ladder starts at its FP32 file", files[0].path.parent)
    return fitting[:1]
