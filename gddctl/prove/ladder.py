"""The order in which a student's files are proven: each against the one it was made from, by digest and not by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.errors import ArtifactError
from gddctl.prove.subject import ModelKind, label_of_info

_PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Member:
    """A model of the ladder, not opened yet."""

    path: Path
    sha256: str  # of the file; of the weights for a bundle
    info: ModelInfo
    kind: ModelKind

    @property
    def label(self) -> str:
        """Its name in reports."""
        return label_of_info(self.info, self.kind)


@dataclass(frozen=True)
class Step:
    """One comparison to make."""

    reference: Member
    candidate: Member


def steps_of(members: Sequence[Member]) -> tuple[Step, ...]:
    """The comparisons, top first: FP32, FP16 and INT8 logits, their engines, then deploy graphs and theirs.

    A failing rung explains those after it: no engine repairs what its ONNX file does wrong, no deploy graph what its logits do.

    Raises:
        ArtifactError: a file's parent is not among ``members``: it is gone, or was made anew since.
    """
    by_digest = {member.sha256: member for member in members}
    has_bundle = any(member.kind == "bundle" for member in members)
    steps = []
    for member in sorted(members, key=_order):
        parent = by_digest.get(member.info.parent_sha256 or "")
        if parent is not None:
            steps.append(Step(parent, member))
        elif member.kind != "bundle" and (has_bundle or not _may_be_top(member.info)):
            told = (member.info.parent_sha256 or "unknown")[:12]
            raise ArtifactError(
                f"{member.path}: made from a file ({told}…) that is not here, or was made anew since",
                remedy="export again, so that every file comes from the one beside it",
            )
    return tuple(steps)


def _may_be_top(info: ModelInfo) -> bool:
    return info.precision == "fp32" and info.graph == "logits"


def _order(member: Member) -> tuple[int, int, int, str, str]:
    info = member.info
    return (
        ("logits", "deploy").index(info.graph),
        ("bundle", "onnx", "engine").index(member.kind),
        _PRECISIONS.index(info.precision),
        info.target,
        member.path.name,
    )
