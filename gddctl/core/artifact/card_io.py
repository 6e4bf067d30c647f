"""Reading a bundle's card and checking its weights against it, without torch."""

from __future__ import annotations

from pathlib import Path

from gddctl.core.artifact.card import CARD_NAME, WEIGHTS_NAME, Card
from gddctl.core.config.load import parse
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, ConfigError, UsageError
from gddctl.core.files import read_json


def read_card(folder: Path) -> Card:
    """The card of the bundle ``folder``.

    Raises:
        UsageError: no such folder.
        ArtifactError: not a bundle, or a card that does not fit its schema.
    """
    if not folder.exists():
        raise UsageError(f"{folder}: no such bundle folder", remedy="train one with: gddctl train, or check the path")
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: a file, expected a bundle folder (with {CARD_NAME})", remedy="name the folder that holds it")
    path = folder / CARD_NAME
    if not path.is_file():
        raise ArtifactError(f"{folder}: not a bundle (no {CARD_NAME} in it)", remedy="a bundle is a folder that train or distill wrote")
    value = read_json(path)
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: expected an object, found {type(value).__name__}", remedy="restore the file or train again")
    try:
        return parse(Card, value)
    except ConfigError as error:
        raise ArtifactError(f"{path}: not a card that this version reads ({error.message})", remedy="restore it or train again") from error


def require_weights(folder: Path, card: Card) -> None:
    """The weights beside ``card`` are there and are those that it names.

    Raises:
        ArtifactError: missing, truncated or changed.
    """
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; a bundle is {CARD_NAME} and {WEIGHTS_NAME}", remedy="train again or copy the whole folder")
    if (found := sha256_file(path)) != card.weights_sha256:
        raise ArtifactError(
            f"{path}: the weights do not match the card (sha256 {found[:12]}…, expected {card.weights_sha256[:12]}…)",
            remedy="they were changed or damaged after training; restore the folder or train again",
        )


def require_plain(folder: Path, card: Card, *, what: str) -> None:
    """The bundle is a network that answers for an image alone: ``what`` is about to be done with it.

    Raises:
        ArtifactError: it is a teacher that sees the label.
    """
    if card.kind == "network":
        return
    name = {
        "label_assisted": "a label-assisted teacher, which reads the label beside the image",
        "smoothed_labels": "smoothed labels, which are no network",
    }
    raise ArtifactError(
        f"{folder}: {name[card.kind]}; it cannot be {what}, because what ships never sees the label",
        remedy=f"score it with: gddctl eval {folder}; distil a student with: gddctl distill --teacher {folder}, and use that",
    )
