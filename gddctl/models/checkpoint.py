"""Bundles on disk: safetensors weights and their card, written whole, read strictly."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from gddctl.core.artifact.card import CARD_NAME, WEIGHTS_NAME, Card
from gddctl.core.artifact.card_io import read_card, require_plain, require_weights
from gddctl.core.artifact.network import architecture_of
from gddctl.core.config.label_assisted import TeacherKind
from gddctl.core.config.sections import NetworkConfig
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError
from gddctl.core.files import atomic_folder, write_text
from gddctl.core.lazy import require
from gddctl.models.external import External, build_external
from gddctl.models.label_assisted import build_label_assisted
from gddctl.models.segmenter import Segmenter, build_segmenter
from gddctl.models.smoothed_labels import SmoothedLabels
from gddctl.models.weights import load_strictly, read_weights


def save_bundle(folder: Path, model: Segmenter | SmoothedLabels | External, card: Card) -> None:
    """Write ``model`` without its auxiliary head, and ``card`` with the weights' digest and parameter count filled in.

    Raises:
        ArtifactError: the head does not match the card's classes.
        RunFailed: the disk is full or not writable; an older bundle still stands.
    """
    _check_head(model, card, place=str(folder))
    state = {key: value.detach().cpu().contiguous() for key, value in model.plain_state_dict().items()}
    safetensors = require("safetensors.torch", extra="train", why="saving a bundle")
    with atomic_folder(folder) as temporary:
        safetensors.save_file(state, temporary / WEIGHTS_NAME, metadata=_meaning(card))
        filled = card.model_copy(update={"weights_sha256": sha256_file(temporary / WEIGHTS_NAME), "parameters": count_parameters(model)})
        write_text(temporary / CARD_NAME, filled.model_dump_json(indent=2) + "\n")


def _meaning(card: Card) -> dict[str, str] | None:
    """What an imported network's weights do not say by themselves: the order of its classes, its normalisation.

    It stands in the weights' file, so that the digest of that file tells two imports of one checkpoint apart. One key: the library writes
    several in any order.
    """
    if isinstance(card.network, NetworkConfig):
        return None
    return {"gddctl": f'{{"network": {card.network.model_dump_json()}, "preprocess": {card.preprocess.model_dump_json()}}}'}


def load_bundle(folder: Path) -> tuple[Segmenter, Card]:
    """The network of a bundle, in eval mode without auxiliary head, and its card; of a label-assisted teacher it reads four channels.

    Raises:
        UsageError: no such folder.
        ArtifactError: not a bundle, tampered with, truncated, weights that are not this network's, or a bundle without a network of ours.
    """
    card = read_card(folder)
    if card.kind == "smoothed_labels":
        require_plain(folder, card, what="loaded as one")
    if not isinstance(card.network, NetworkConfig):
        raise ArtifactError(
            f"{folder}: an imported teacher ({architecture_of(card.network)}); it is neither exported nor trained on",
            remedy=f"score it with: gddctl eval {folder}; distil a student with: gddctl distill --teacher {folder}, and use that",
        )
    model = empty_network(card.kind, card.network, len(card.classes))
    load_strictly(model, read_bundle_state(folder, card), place=str(folder), expected=f"{card.network.arch} on {card.network.encoder}")
    return model.eval(), card


def load_network(folder: Path) -> tuple[Segmenter | External, Card]:
    """The network of a bundle, trained here or imported, for whoever only wants its answers; in eval mode.

    Raises:
        UsageError, ArtifactError: as :func:`load_bundle`.
        EnvironmentMissing: an imported one needs a library that is not installed.
    """
    card = read_card(folder)
    if isinstance(card.network, NetworkConfig):
        return load_bundle(folder)
    model = build_external(card.network)
    load_strictly(model.body, read_bundle_state(folder, card), place=str(folder), expected=architecture_of(card.network))
    return model.eval(), card


def load_smoothed_labels(folder: Path) -> tuple[SmoothedLabels, Card]:
    """The smoothed labels of a bundle of that kind, and its card.

    Raises:
        UsageError, ArtifactError: as :func:`load_bundle`.
    """
    card = read_card(folder)
    model = SmoothedLabels(len(card.classes), stride=1, scale=1.0, blur=0.0)
    load_strictly(model, read_bundle_state(folder, card), place=str(folder), expected="smoothed labels")
    return model.eval(), card


def empty_network(kind: TeacherKind, network: NetworkConfig, num_classes: int) -> Segmenter:
    """The network that the weights of a bundle of ``kind`` belong to, without auxiliary head and without anybody's weights."""
    bare = network.model_copy(update={"encoder_weights": "none"})
    build = build_label_assisted if kind == "label_assisted" else build_segmenter
    return build(bare, num_classes, aux=False)


def load_into(model: Segmenter, folder: Path) -> Card:
    """Start ``model`` from a bundle's weights; its auxiliary head, which no bundle holds, keeps its own.

    Raises:
        UsageError: no such folder.
        ArtifactError: not a bundle, damaged, or of another network or number of classes.
    """
    card = read_card(folder)
    require_plain(folder, card, what="started from")
    state = read_bundle_state(folder, card)
    if len(card.classes) != model.num_classes:
        raise ArtifactError(
            f"{folder}: its head has {len(card.classes)} classes, the network to start has {model.num_classes}",
            remedy="start from a bundle trained on the same classes",
        )
    aux = {key: value for key, value in model.state_dict().items() if key not in model.plain_state_dict()}
    load_strictly(model, {**state, **aux}, place=str(folder), expected="the network to start")
    return card


def read_bundle_state(folder: Path, card: Card) -> dict[str, Tensor]:
    """The weights beside a card, checked against its digest and its class list."""
    require_weights(folder, card)
    state = read_weights(folder / WEIGHTS_NAME)
    head = state.get("head.classifier.weight")
    if head is not None and head.shape[0] != len(card.classes):
        raise ArtifactError(
            f"{folder}: the head gives {head.shape[0]} classes, the card names {len(card.classes)} ({', '.join(card.classes.names[:4])}…)",
            remedy="card and weights belong to different models; restore the folder",
        )
    return state


def count_parameters(model: Segmenter | SmoothedLabels | External) -> int:
    """Parameters of the network that ships, the auxiliary head left out."""
    if isinstance(model, External):
        return sum(parameter.numel() for parameter in model.body.parameters())
    plain = model.plain_state_dict()
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name in plain)


def _check_head(model: Segmenter | SmoothedLabels | External, card: Card, *, place: str) -> None:
    if model.num_classes != len(card.classes):
        raise ArtifactError(f"{place}: the network gives {model.num_classes} classes, the card names {len(card.classes)}")
