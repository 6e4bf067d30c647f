"""A bundle to an FP32 ONNX logits graph: exported, checked, compared with torch, and only then given its name."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from gddctl.core.artifact.card_io import read_card, require_plain
from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, RunFailed
from gddctl.core.files import atomic_path
from gddctl.core.lazy import require
from gddctl.export.census import census_of
from gddctl.export.graph_file import check_graph, save_model
from gddctl.export.onnx_ops import name_tensors
from gddctl.export.simplify import simplify
from gddctl.models.checkpoint import load_bundle
from gddctl.runtime.describe import info_of_card

if TYPE_CHECKING:
    from gddctl.models.segmenter import Segmenter

MIN_SQNR_DB = 80.0  # of ONNX Runtime against torch on a random image: both FP32, they differ by the order of sums (100 dB and more)
_CHATTY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")


class _LogitsGraph(nn.Module):
    """The part of a segmenter that ships: image in, logits at input size out."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32, normalised -> (B, K, H, W) float32."""
        return self.segmenter.predict_logits(image)


def export_logits(bundle: Path, out: Path, *, opset: int = 20) -> Artifact:
    """Write the logits graph of ``bundle`` to ``out``: static height and width, any batch, weights inside, BN folded.

    Args:
        bundle: a student bundle.
        out: the .onnx file; written whole, or not at all.
        opset: of the standard domain, 18 to 22.

    Raises:
        ArtifactError: the bundle is broken, or the exported graph is not what it must be.
        RunFailed: the exporter failed, or its graph answers differently from torch.
    """
    require("onnx", extra="train", why="exporting a bundle")
    require("onnxscript", extra="train", why="exporting a bundle")
    require_plain(bundle, read_card(bundle), what="exported")
    model, card = load_bundle(bundle)
    network = _LogitsGraph(model).eval()
    info = info_of_card(card).model_copy(update={"opset": opset, "parent_sha256": card.weights_sha256})
    with atomic_path(out) as temporary:
        proto = _trace(network, card.preprocess.size, opset)
        simplify(proto)
        name_tensors(proto)
        check_graph(proto, info)
        info = info.model_copy(update={"census": census_of(proto)})
        save_model(proto, info, temporary)
        _compare(network, temporary, info)
        sha256 = sha256_file(temporary)
    return Artifact(path=out, sha256=sha256, format="onnx", info=info)


def _trace(network: nn.Module, size: tuple[int, int], opset: int) -> Any:
    """The exporter's ModelProto. Batch is dynamic (traced with 2, since 1 would be taken for a constant)."""
    example = torch.zeros(2, 3, *size)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=({0: "batch"},),
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # the exporter's errors share no narrower base
        line = " ".join(str(error).split())[:300]
        raise RunFailed(f"torch.onnx.export failed at opset {opset} ({type(error).__name__}: {line})") from error
    if program is None:
        raise RunFailed(f"torch.onnx.export gave no program at opset {opset}")
    return program.model_proto


def _compare(network: nn.Module, path: Path, info: ModelInfo) -> None:
    """One random image and one batch of two through both; a smoke test of the export, no parity gate."""
    from gddctl.runtime.ort_runtime import OrtRuntime

    images = np.random.default_rng(0).standard_normal((2, 3, *info.preprocess.size)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    runtime = OrtRuntime(path, info, sha256="")
    for count in (1, 2):
        found, wanted = runtime.run(images[:count]), expected[:count]
        if found.shape != wanted.shape:
            raise ArtifactError(f"the exported graph gives {found.shape} for a batch of {count}; torch gives {wanted.shape}")
        noise, signal = float(np.square(found - wanted, dtype=np.float64).sum()), float(np.square(wanted, dtype=np.float64).sum())
        if not noise <= signal * 10 ** (-MIN_SQNR_DB / 10):  # NaN fails too
            raise RunFailed(
                f"the exported graph answers differently from torch on a random image (SQNR under {MIN_SQNR_DB:.0f} dB)",
                remedy="nothing was written; try another opset, and report it with the versions that gddctl doctor prints",
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells its progress by print, logging and warnings; failures reach us as exceptions and checks."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
