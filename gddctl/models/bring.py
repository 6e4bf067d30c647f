"""A checkpoint from elsewhere, its classes in the dataset's order, tried with an image: ready to be a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gddctl.core.artifact.network import ImportedNetwork
from gddctl.core.class_match import match_classes
from gddctl.core.config.external import External as Source
from gddctl.core.config.load import parse
from gddctl.core.errors import ArtifactError, ConfigError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.models.external import External, fitted
from gddctl.models.found import Found, Normalisation
from gddctl.models.protocol import FEATURES, Outputs
from gddctl.models.read_external import read_external


@dataclass(frozen=True)
class Brought:
    """An imported teacher.

    Attributes:
        model: with its weights.
        network: its section of the card.
        preprocess: the dataset's, normalised its own way.
        names: its own classes, in the order of its own logits.
        licence: where somebody said.
    """

    model: External
    network: ImportedNetwork
    preprocess: PreprocessSpec
    names: tuple[str, ...]
    licence: str | None


def bring(
    source: Source, ours: Sequence[str], spec: PreprocessSpec, sizes: Sequence[tuple[int, int]], names: Sequence[str] | None = None
) -> Brought:
    """Read the checkpoint of ``source``, match its classes and try it.

    Args:
        source: the settings.
        ours: the dataset's class names, in order.
        spec: the dataset's preprocessing.
        sizes: (height, width) of images that it will meet; it is tried with one of each.
        names: the teacher's class names where the settings say them; None: those of the files.

    Raises:
        ConfigError: it is not known which classes it has, or how it normalises.
        UsageError, ArtifactError, EnvironmentMissing: it cannot be read, has other classes, or does not take such images.
    """
    found = read_external(source)
    known = _names(source, found, names)
    order = match_classes(known, ours, who=f"teacher {source.path}", drop=source.drop_classes)
    size = source.size or found.size
    seen = _try(found, sizes, size, str(source.path))
    features = {name: seen.features[name].shape[1] for name in FEATURES if name in seen.features}
    network = found.describe(
        {
            "outputs": found.outputs,
            "order": order,
            "stride": _stride(fitted(torch.zeros(1, 3, *sizes[0]), found.multiple, size), seen),
            "features": features,
            "multiple": found.multiple,
            "size": size,
        }
    )
    model = External(found.body, order, features, multiple=found.multiple, size=size)
    return Brought(model.eval(), network, _preprocess(source, found, spec), known, source.licence or found.licence)


def _names(source: Source, found: Found, said: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(said) if said is not None else found.names
    if names is None:
        raise ConfigError(
            f"teacher.external.classes: {source.path} does not name its {found.outputs} classes",
            remedy="list them in the order of its logits, or name a classes.yaml, or a published list (e.g. cityscapes), or 'dataset' "
            "where they are the dataset's own in its order",
        )
    if len(names) != found.outputs:
        where = "teacher.external.classes" if said is not None else "its own metadata"
        raise ConfigError(
            f"{source.path}: {found.outputs} channels of logits, but {where} names {len(names)} classes ({', '.join(names)})",
            remedy="expected one name per channel, in order",
        )
    return names


@torch.no_grad()
def _try(found: Found, sizes: Sequence[tuple[int, int]], fixed: tuple[int, int] | None, place: str) -> Outputs:
    """What it answers for an image of the first size; every size is tried."""
    body = found.body.eval()
    answers: list[Outputs] = []
    for size in dict.fromkeys(sizes):
        try:
            answers.append(body(fitted(torch.zeros(1, 3, *size), found.multiple, fixed)))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(
                f"{place}: it does not take images of {size[0]} x {size[1]} ({reason})",
                remedy="where it insists on one size, set teacher.external.size to it",
            ) from error
        logits = answers[-1].logits
        if logits.dim() != 4 or logits.shape[1] != found.outputs:
            raise ArtifactError(f"{place}: logits of shape {tuple(logits.shape)}, expected (1, {found.outputs}, h, w)")
        if not bool(torch.isfinite(logits).all()):
            raise ArtifactError(f"{place}: its logits of a grey image are not finite", remedy="check the checkpoint")
    return answers[0]


def _stride(images: torch.Tensor, seen: Outputs) -> int:
    return max(1, round(images.shape[-2] / seen.logits.shape[-2]))


def _preprocess(source: Source, found: Found, spec: PreprocessSpec) -> PreprocessSpec:
    if source.mean is not None and source.std is not None:
        own = Normalisation(source.mean, source.std, found.normalisation.channel_order if found.normalisation is not None else "rgb")
    elif found.normalisation is not None:
        own = found.normalisation
    else:
        raise ConfigError(
            f"teacher.external.mean: {source.path} does not say how it normalises images",
            remedy="set teacher.external.mean and .std, in RGB order, of pixel / 255",
        )
    order = source.channel_order or own.channel_order
    said = {**spec.model_dump(mode="json"), "mean": own.mean, "std": own.std, "channel_order": order}
    return parse(PreprocessSpec, said, "teacher.external")
