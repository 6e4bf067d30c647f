"""Everything a training will need, looked for before it starts and before its folder is claimed: not after an hour."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.artifact.card import WEIGHTS_NAME, Role
from gddctl.core.artifact.card_io import read_card
from gddctl.core.classes import ClassTable
from gddctl.core.config.sections import NetworkConfig, RunConfig
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.data.open import open_dataset


def look_ahead(config: RunConfig, roles: tuple[Role, ...]) -> None:
    """Look for the dataset, ready bundles and encoder weights that training ``roles`` will open. Decodes nothing.

    Raises:
        UsageError: a folder or file is not there.
        DataError: a split is empty, or lacks more files than ``data.skip_bad``.
        ArtifactError: a bundle is damaged, or its classes are not the dataset's.
    """
    train = open_dataset(config.data, config.data.train_split)
    open_dataset(config.data, config.data.val_split)
    if config.teacher.bundle is None:
        if "teacher" in roles:
            _require_weights(config.teacher, "teacher")
    elif "teacher" in roles or (roles == ("student",) and config.distill.method.kind != "none"):
        require_fitting_bundle(config.teacher.bundle, train.classes)
    if set(roles) & {"baseline", "student"}:
        _require_weights(config.student, "student")
        if config.student.init is not None:
            require_fitting_bundle(config.student.init, train.classes)


def require_fitting_bundle(folder: Path, classes: ClassTable) -> None:
    """Refuse a bundle that is damaged, or whose classes are not ``classes`` in names and order; the message lists both.

    Raises:
        UsageError: no such folder.
        ArtifactError: as said.
    """
    card = read_card(folder)
    weights = folder / WEIGHTS_NAME
    if not weights.is_file():
        raise ArtifactError(f"{weights}: missing", remedy="train again or copy the whole folder")
    if (found := sha256_file(weights)) != card.weights_sha256:
        raise ArtifactError(
            f"{weights}: the weights do not match the card (sha256 {found[:12]}…, expected {card.weights_sha256[:12]}…)",
            remedy="they were changed or damaged after training; restore the folder or train again",
        )
    if card.classes.names != classes.names:
        raise ArtifactError(
            f"{folder}: its classes ({', '.join(card.classes.names)}) are not the dataset's ({', '.join(classes.names)})",
            remedy="use the data it was trained for, with the same classes in the same order",
        )


def _require_weights(network: NetworkConfig, section: str) -> None:
    wanted = network.encoder_weights
    if isinstance(wanted, Path) and not wanted.is_file():
        raise UsageError(
            f"{section}.encoder_weights: {wanted}: no such file", remedy="expected none, imagenet, or a local .safetensors file"
        )
