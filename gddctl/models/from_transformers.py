"""Semantic-segmentation models of transformers, from a local folder: SegFormer, UperNet, DPT, BEiT, MobileViT and whatever else it maps."""

from __future__ import annotations

import json
import logging
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gddctl.core.artifact.network import TransformersNetwork
from gddctl.core.config.external import TransformersSource
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.files import read_json
from gddctl.core.lazy import require
from gddctl.core.preprocess import IMAGENET_MEAN, IMAGENET_STD
from gddctl.models.found import Found, Normalisation
from gddctl.models.licence import licence_in
from gddctl.models.protocol import STAGES, Outputs

_EXTRA, _WHY = "teachers", "a teacher from transformers"
_STRIDES = (4, 8, 16, 32, 14)  # at which hidden states stand in rows instead of maps
_SHOWN = 3
# Keys of a config that are not the network's: where it was read from, and at which precision its file was saved.
_OF_THE_FILE = ("_name_or_path", "name_or_path", "dtype", "torch_dtype")
_HALVES = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# What each family's image processor does where the folder has no preprocessor_config.json.
_OWN = {
    "segformer": Normalisation(IMAGENET_MEAN, IMAGENET_STD),
    "upernet": Normalisation(IMAGENET_MEAN, IMAGENET_STD),
    "beit": _HALVES,
    "data2vec-vision": _HALVES,
    "dpt": _HALVES,
    "mobilevit": Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bgr"),
    "mobilevitv2": Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bgr"),
    "mobilenet_v2": _HALVES,
}
_ONE_SIZE = ("beit", "data2vec-vision", "dpt")  # positions learnt for one grid, or rows that are taken for a square


class TransformersBody(nn.Module):
    """One of the library's models; the hidden states that are maps, or rows of a grid, are its features."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Outputs:
        """Shape: (B, 3, H, W) float, normalised -> logits at the model's own stride."""
        answer = self.model(pixel_values=images, output_hidden_states=True, return_dict=True)
        states = answer.hidden_states or ()
        return Outputs(logits=answer.logits, features=stages_of(states, (images.shape[-2], images.shape[-1])))


def stages_of(states: Sequence[Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    """Hidden states as ``"stage1"`` … ``"stage4"``; nothing where there are no four that could be.

    Networks with a pyramid: the last state of each of the four deepest shapes. Plain transformers, whose states all have one shape:
    those at a quarter, half, three quarters and the end of the depth, the embedding left out.

    Args:
        states: each (B, C, h, w), or (B, [1 +] h * w, C) with a class token or without.
        size: (height, width) of the images.
    """
    maps = [found for state in states if (found := _as_map(state, size)) is not None]
    ends = [this for place, this in enumerate(maps) if place + 1 == len(maps) or maps[place + 1].shape != this.shape]
    if len(ends) >= len(STAGES):
        return dict(zip(STAGES, ends[-len(STAGES) :], strict=True))
    if len(ends) == 1 and len(maps) > len(STAGES):
        depth = len(maps) - 1
        return {name: maps[round(depth * (place + 1) / len(STAGES))] for place, name in enumerate(STAGES)}
    return {}


def build_transformers(config: Mapping[str, Any]) -> nn.Module:
    """The model of a stored config, with random weights, in float32 whatever the config says.

    Raises:
        EnvironmentMissing: transformers is not installed.
        ArtifactError: it does not know such a model.
    """
    transformers = _library()
    settings = {key: value for key, value in _own(config).items() if key != "model_type"}
    try:
        made = transformers.AutoConfig.for_model(config.get("model_type"), **settings)
        with _quiet():
            model: nn.Module = transformers.AutoModelForSemanticSegmentation.from_config(made)
    except (KeyError, ValueError, TypeError, ImportError, OSError) as error:
        raise ArtifactError(
            f"transformers {transformers.__version__} makes no '{config.get('model_type')}' of the stored config ({_short(error)})",
            remedy="install the version that it was imported with, or import the teacher again",
        ) from error
    return TransformersBody(model.float())


def read_transformers(source: TransformersSource) -> Found:
    """A folder with ``config.json`` and weights; nothing is fetched and no code of the folder's is run.

    Raises:
        EnvironmentMissing: transformers is not installed.
        UsageError: no such folder, or none of a model.
        ArtifactError: not a segmentation model, damaged, or weights that are not all there.
    """
    folder = source.path
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder}: no folder with config.json", remedy="save the model with: model.save_pretrained(FOLDER)")
    model = _load(folder)
    config = _own(json.loads(model.config.to_json_string(use_diff=False)))
    family = str(config.get("model_type"))
    names = _names(model.config.id2label)
    side = config.get("image_size")
    square = (side, side) if isinstance(side, int) else tuple(side) if isinstance(side, list) and len(side) == 2 else None
    return Found(
        body=TransformersBody(model),
        outputs=len(model.config.id2label),
        describe=lambda common: TransformersNetwork(config=config, **common),
        names=names,
        normalisation=_normalisation(folder / "preprocessor_config.json", source) or _OWN.get(family),
        size=square if family in _ONE_SIZE else None,
        licence=licence_in(folder),
    )


def _load(folder: Path) -> Any:
    transformers = _library()
    broken = require("safetensors", extra="train", why=_WHY).SafetensorError
    try:
        with _quiet():
            model, told = transformers.AutoModelForSemanticSegmentation.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
    except (ValueError, KeyError, TypeError, OSError, RuntimeError, ImportError, pickle.UnpicklingError, broken) as error:
        raise ArtifactError(
            f"{folder}: transformers {transformers.__version__} does not load it as a semantic-segmentation model ({_short(error)})",
            remedy="expected what save_pretrained of such a model writes: config.json and model.safetensors",
        ) from error
    wrong = {word: sorted(map(str, told.get(f"{word}_keys") or ())) for word in ("missing", "unexpected", "mismatched")}
    if any(wrong.values()):
        shown = "; ".join(f"{word}: {', '.join(keys[:_SHOWN])}" for word, keys in wrong.items() if keys)
        raise ArtifactError(f"{folder}: the weights are not all of this model's ({shown})", remedy="save the whole fine-tuned model")
    return model.float().eval()


def _own(value: Any) -> Any:
    """What a config says of the network alone: a bundle depends neither on where its file lay nor on its precision."""
    if isinstance(value, Mapping):
        return {key: _own(inner) for key, inner in value.items() if key not in _OF_THE_FILE}
    return [_own(inner) for inner in value] if isinstance(value, list) else value


def _library() -> Any:
    return require("transformers", extra=_EXTRA, why=_WHY)


def _names(labels: Mapping[int, str]) -> tuple[str, ...] | None:
    """Class names; None where they are the library's placeholders."""
    names = tuple(str(labels[index]) for index in sorted(labels))
    return None if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else names


def _normalisation(path: Path, source: TransformersSource) -> Normalisation | None:
    """What the image processor beside the weights does, but for what the settings say; None where there is none.

    Raises:
        ArtifactError: it says what cannot be followed, and the settings do not say it instead.
    """
    told = source.mean is not None and source.std is not None
    if not path.is_file() or (told and source.channel_order is not None):
        return None
    said = read_json(path)
    if not isinstance(said, dict):
        raise ArtifactError(f"{path}: expected an object", remedy="restore the file, or remove it and set teacher.external.mean and .std")
    order = "bgr" if said.get("do_flip_channel_order") else "rgb"
    if source.mean is not None and source.std is not None:
        return Normalisation(source.mean, source.std, order)
    if said.get("do_rescale", True) is False:
        raise ArtifactError(
            f"{path}: do_rescale is false; which range the model wants is not clear", remedy="set teacher.external.mean and .std"
        )
    scale = 255.0 * _numbers(path, "rescale_factor", said.get("rescale_factor", 1 / 255), 1)[0]  # of pixel / 255
    mean, std = said.get("image_mean"), said.get("image_std")
    if said.get("do_normalize", mean is not None) is False or mean is None or std is None:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    means = _numbers(path, "image_mean", mean, 3, divisor=scale, most=1.0)
    stds = _numbers(path, "image_std", std, 3, divisor=scale)
    if order == "bgr":  # theirs stand in the order of the channels, ours in RGB order
        means, stds = means[::-1], stds[::-1]
    return Normalisation((means[0], means[1], means[2]), (stds[0], stds[1], stds[2]), order)


def _numbers(path: Path, key: str, value: Any, count: int, *, divisor: float = 1.0, most: float | None = None) -> tuple[float, ...]:
    """``count`` numbers divided by ``divisor``: from 0 to ``most``, or above 0 where there is no most.

    Raises:
        ArtifactError: something else stands there.
    """
    given = [value] if count == 1 else value
    if isinstance(given, list | tuple) and len(given) == count and all(type(item) in (int, float) for item in given):
        found = tuple(item / divisor for item in given)
        if all(math.isfinite(item) and (item > 0 if most is None else 0 <= item <= most) for item in found):
            return found
    wanted = (
        "a number above 0" if count == 1 else f"{count} numbers, each " + ("above 0" if most is None else "of a grey value of 0 to 255")
    )
    raise ArtifactError(
        f"{path}: {key} is {json.dumps(value)[:80]}, expected {wanted}", remedy="correct the file, or set teacher.external.mean and .std"
    )


def _as_map(state: Tensor, size: tuple[int, int]) -> Tensor | None:
    """(B, C, h, w) of a map or of rows; None for what is neither."""
    if state.dim() == 4:
        return state
    if state.dim() != 3:
        return None
    for stride in _STRIDES:
        height, width = -(-size[0] // stride), -(-size[1] // stride)
        if state.shape[1] in (height * width, 1 + height * width):
            rows = state[:, state.shape[1] - height * width :]
            return rows.transpose(1, 2).reshape(state.shape[0], state.shape[2], height, width)
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """The library tells of every key that it initialises, and draws bars; what matters of it becomes an error here."""
    told: Any = require("transformers.utils.logging", extra=_EXTRA, why=_WHY)
    logger = logging.getLogger("transformers")
    before, bars = logger.level, told.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    told.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(before)
        if bars:
            told.enable_progress_bar()


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
