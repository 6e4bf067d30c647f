"""Whole networks of segmentation_models_pytorch: any architecture and encoder that it names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from gddctl.core.artifact.network import SmpNetwork
from gddctl.core.config.external import SmpSource
from gddctl.core.errors import ArtifactError, ConfigError
from gddctl.core.files import read_json
from gddctl.core.lazy import require
from gddctl.models.found import Found
from gddctl.models.licence import licence_in
from gddctl.models.pickled import read_checkpoint, with_counters
from gddctl.models.protocol import HEAD, STAGES, Outputs
from gddctl.models.weights import load_strictly

_CLASSIFIER = "segmentation_head.0.weight"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a folder; the second as old versions wrote it
_GIVEN = ("encoder_name", "encoder_weights", "classes", "in_channels", "activation", "aux_params")  # of a folder's config.json


class SmpBody(nn.Module):
    """Encoder, decoder and the head's convolution; the head's upsampling, with aligned corners, is left to whoever reads the logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.encoder = cast(nn.Module, model.encoder)
        self.decoder = cast(nn.Module, model.decoder)
        self.segmentation_head = cast(nn.Sequential, model.segmentation_head)
        self.align_corners = any(isinstance(part, nn.Upsample) and bool(part.align_corners) for part in self.segmentation_head)

    def forward(self, images: Tensor) -> Outputs:
        """Shape: (B, 3, H, W) float, normalised -> logits at the decoder's stride."""
        features = self.encoder(images)
        read = self.decoder(features)
        stages = dict(zip(STAGES, features[-len(STAGES) :], strict=True)) if len(features) > len(STAGES) else {}
        return Outputs(logits=self.segmentation_head[0](read), features={**stages, HEAD: read})


def build_smp(arch: str, encoder: str, outputs: int, options: Mapping[str, Any]) -> nn.Module:
    """The network with random weights.

    Raises:
        ConfigError: the library does not know such an architecture or encoder, or such options of it.
    """
    return SmpBody(_model(arch, encoder, outputs, options))


def read_smp(source: SmpSource) -> Found:
    """A state dict of ``arch`` on ``encoder``, or a folder that says both.

    Raises:
        ConfigError: neither the settings nor the folder say arch and encoder; or the library does not know them; or a DPT.
        UsageError, ArtifactError: no such file; damaged; other keys or shapes than this network's; not made for RGB and logits.
    """
    said: Mapping[str, Any] = {}
    file = source.path
    if source.path.is_dir():
        said, file = _config(source), next((path for name in _WEIGHTS if (path := source.path / name).is_file()), source.path / _WEIGHTS[0])
    arch = source.arch or str(said.get("_model_class", "")).lower() or None
    encoder = source.encoder or said.get("encoder_name")
    if arch is None or encoder is None:
        raise ConfigError(
            "teacher.external: a state dict does not say which network it belongs to",
            remedy="set teacher.external.arch and .encoder as smp.create_model names them, e.g. unetplusplus and resnet101",
        )
    if arch == "dpt":  # its decoder is asked in another way, and its head is another
        raise ConfigError(
            "teacher.external.arch: smp's dpt is not read",
            remedy="any other architecture of smp is, and so is a DPT of transformers (kind: transformers); see docs/teachers.md",
        )
    options = {key: value for key, value in said.items() if key not in _GIVEN and not key.startswith("_")} | source.options
    checkpoint = read_checkpoint(file)
    classifier = checkpoint.state.get(_CLASSIFIER)
    outputs = classifier.shape[0] if classifier is not None else 1
    model = _model(arch, encoder, outputs, options)
    load_strictly(model, with_counters(checkpoint.state, model), place=str(file), expected=f"smp's {arch} on {encoder}")
    stride = int(getattr(model.encoder, "output_stride", 32))
    return Found(
        body=SmpBody(model),
        outputs=outputs,
        describe=lambda common: SmpNetwork(arch=arch, encoder=encoder, options=options, **common),
        multiple=stride if getattr(model, "requires_divisible_input_shape", True) else 1,
        licence=licence_in(source.path) if source.path.is_dir() else None,
    )


def _config(source: SmpSource) -> Mapping[str, Any]:
    path = source.path / "config.json"
    said = read_json(path)
    if not isinstance(said, dict) or "_model_class" not in said:
        raise ArtifactError(f"{path}: not what smp's save_pretrained writes (no _model_class)", remedy="check teacher.external.kind")
    if said.get("in_channels", 3) != 3 or said.get("activation") is not None or said.get("aux_params") is not None:
        raise ArtifactError(
            f"{path}: in_channels {said.get('in_channels', 3)}, activation {said.get('activation')}, aux_params {said.get('aux_params')}; "
            "a teacher here takes RGB images and answers with logits alone",
            remedy="expected in_channels 3 and neither activation nor aux_params",
        )
    return said


def _model(arch: str, encoder: str, outputs: int, options: Mapping[str, Any]) -> nn.Module:
    smp = require("segmentation_models_pytorch", extra="train", why=f"a teacher from segmentation_models_pytorch ({arch})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library about itself
            model: nn.Module = smp.create_model(arch, encoder_name=encoder, encoder_weights=None, classes=outputs, **options)
    except (KeyError, ValueError, TypeError, NotImplementedError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).strip("\"'").split())[:200]
        raise ConfigError(f"teacher.external: smp makes no '{arch}' on '{encoder}' with {dict(options)} ({reason})") from error
    return model
