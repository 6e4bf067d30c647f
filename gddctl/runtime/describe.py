"""What a model says of itself, read from a bundle's card, an ONNX file's metadata or an engine's record; no runtime is started."""

from __future__ import annotations

import json
from pathlib import Path

from gddctl.core.artifact.card import Card, is_bundle
from gddctl.core.artifact.card_io import read_card
from gddctl.core.artifact.engine import read_record
from gddctl.core.artifact.info import METADATA_KEY, ModelInfo
from gddctl.core.artifact.network import architecture_of, stride_of
from gddctl.core.config.load import parse
from gddctl.core.errors import ArtifactError, ConfigError, UsageError
from gddctl.runtime.onnx_header import read_header

ENGINE_SUFFIX = ".engine"
_NAMED = "name a bundle folder, an .onnx or an .engine file"


def read_info(path: Path) -> ModelInfo:
    """The description of a bundle folder or an exported file.

    Raises:
        UsageError: nothing there, or neither a bundle nor an ONNX file nor an engine by its name.
        ArtifactError: it is broken, or does not describe itself.
    """
    require_model(path)
    if path.is_dir():
        return info_of_card(read_card(path))
    return read_record(path).info if path.suffix == ENGINE_SUFFIX else read_onnx_info(path)


def require_model(path: Path) -> None:
    """Refuse a path that is not there or is no model by its looks (UsageError)."""
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder", remedy=_NAMED)
    if path.is_dir() and not is_bundle(path):
        raise UsageError(f"{path}: a folder without card.json is no bundle", remedy=_NAMED)
    if path.is_file() and path.suffix not in (".onnx", ENGINE_SUFFIX):
        raise UsageError(f"{path}: no runtime here opens '{path.suffix or 'no suffix'}' files", remedy=_NAMED)


def info_of_card(card: Card) -> ModelInfo:
    """A bundle's description: it answers as a logits graph in FP32, anywhere."""
    return ModelInfo(
        name=card.name,
        graph="logits",
        precision="fp32",
        target="any",
        classes=card.classes,
        preprocess=card.preprocess,
        architecture=architecture_of(card.network),
        output_stride=stride_of(card.network),
        weights_sha256=card.weights_sha256,
        licence=card.licence,
        gddctl_version=card.gddctl_version,
    )


def read_onnx_info(path: Path) -> ModelInfo:
    """The description in an ONNX file's metadata.

    Raises:
        ArtifactError: not whole, or no description of ours in it.
    """
    text = read_header(path).metadata.get(METADATA_KEY)
    if text is None:
        raise ArtifactError(
            f"{path}: an ONNX file without gddctl's description (metadata '{METADATA_KEY}')",
            remedy="its classes and preprocessing are unknown; make it with: gddctl export BUNDLE",
        )
    try:
        return parse(ModelInfo, json.loads(text))
    except (ConfigError, ValueError) as error:
        raise ArtifactError(f"{path}: gddctl's description in it is broken ({error})", remedy="export it again") from error
