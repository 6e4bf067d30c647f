"""Of everything that was exported from a bundle, what somebody proved; the rest stays behind, by name."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from gddctl.core.artifact.manifest import Artifact
from gddctl.core.errors import VerdictError
from gddctl.ship.gather import Cargo
from gddctl.ship.proof import proof_of

log = logging.getLogger(__name__)


def without_unproven(cargo: Cargo) -> tuple[Cargo, tuple[Artifact, ...]]:
    """What of ``cargo`` is proven, and the files that are not: exported since the last ladder, or for a device that is not here.

    For a bundle, whose files nobody named one by one. The reference of the golden image stays the same file, whether or not it ships.

    Raises:
        VerdictError: a file failed its gate, or none at all is proven.
    """
    first = cargo.reference.info.parent_sha256
    behind = tuple(item for item in cargo.artifacts if not proof_of(item, list(cargo.parity), first))
    if len(behind) == len(cargo.artifacts):
        raise nobody_proved(behind)
    if behind:
        log.warning(
            "left out, for nobody proved that they answer like the student: %s; %s",
            ", ".join(item.path.name for item in behind),
            _remedy(behind[0]),
        )
    return replace(cargo, artifacts=tuple(item for item in cargo.artifacts if item not in behind)), behind


def nobody_proved(items: Sequence[Artifact]) -> VerdictError:
    """That ``items`` would ship without a proof, and how to come by one."""
    names = str(items[0].path) if len(items) == 1 else f"{items[0].path} and {len(items) - 1} more"
    return VerdictError(
        f"{names}: nobody proved that {'it answers' if len(items) == 1 else 'they answer'} like the student", remedy=_remedy(items[0])
    )


def _remedy(item: Artifact) -> str:
    home = item.path.parent.parent if item.path.parent.name == "artifacts" else item.path.parent
    return f"prove it: gddctl parity --ladder {home} --json > parity.json, and add --parity parity.json; or add --allow-unproven"
