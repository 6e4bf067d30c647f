"""``teacher.external`` to a network with its weights: one reader per family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import assert_never

from gddctl.core.artifact.network import MmsegNetwork
from gddctl.core.config.external import External, MmsegSource, SmpSource, TorchvisionSource, TransformersSource
from gddctl.models import mmseg
from gddctl.models.found import Found
from gddctl.models.from_smp import read_smp
from gddctl.models.from_torchvision import read_torchvision
from gddctl.models.from_transformers import read_transformers
from gddctl.models.pickled import read_checkpoint, with_counters
from gddctl.models.weights import load_strictly


def read_external(source: External) -> Found:
    """The checkpoint that ``source`` names.

    Raises:
        ConfigError, UsageError, ArtifactError, EnvironmentMissing: see the readers.
    """
    match source:
        case SmpSource():
            return read_smp(source)
        case TorchvisionSource():
            return read_torchvision(source)
        case TransformersSource():
            return read_transformers(source)
        case MmsegSource():
            return read_mmseg(source)
        case other:
            assert_never(other)


def read_mmseg(source: MmsegSource) -> Found:
    """A checkpoint of mmsegmentation, with or without the auxiliary head.

    Raises:
        UsageError, ArtifactError: no such file; damaged; other keys or shapes than this network's.
    """
    checkpoint = read_checkpoint(source.path)
    classifier = checkpoint.state.get(mmseg.CLASSIFIER)
    outputs = classifier.shape[0] if classifier is not None else 1
    has_aux = any(key.startswith(mmseg.AUX_PREFIX) for key in checkpoint.state)
    body = mmseg.MmsegNetwork(source.arch, source.depth, outputs, channels=source.channels, aux=has_aux)
    place, expected = str(source.path), f"mmsegmentation's {source.arch} on ResNetV1c-{source.depth}"
    load_strictly(body, with_counters(checkpoint.state, body), place=place, expected=expected)
    body.auxiliary_head = None
    return Found(
        body=body,
        outputs=outputs,
        describe=lambda common: MmsegNetwork(arch=source.arch, depth=source.depth, channels=source.channels, **common),
        names=_mmseg_names(checkpoint.meta),
    )


def _mmseg_names(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names as versions 0.x (``CLASSES``) and 1.x (``dataset_meta.classes``) write them."""
    dataset = meta.get("dataset_meta")
    found = meta.get("CLASSES")
    if found is None and isinstance(dataset, Mapping):
        found = dataset.get("classes", dataset.get("CLASSES"))
    if isinstance(found, list | tuple) and found and all(isinstance(name, str) for name in found):
        return tuple(found)
    return None
