"""A teacher that sees the label, on PyTorch: images and labels in, logits out. It can be scored, and is no runtime of a deployment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import assert_never

from gddctl.core.artifact.card import Card
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.label_assisted import TeacherKind
from gddctl.core.errors import ArtifactError, EnvironmentMissing
from gddctl.core.reports.assisted import Plane
from gddctl.models.checkpoint import load_bundle, load_smoothed_labels
from gddctl.models.label_assisted import LabelNoising, beside, no_label, planes_of
from gddctl.runtime.cpu import usable_cores
from gddctl.runtime.describe import info_of_card
from gddctl.runtime.protocol import check_input
from gddctl.runtime.torch_runtime import cpu_threads, honest_fp32


class TorchTeacher:
    """A bundle whose card says ``label_assisted`` or ``smoothed_labels``, in FP32, eval.

    Raises:
        EnvironmentMissing: no CUDA device here.
        UsageError, ArtifactError: no such bundle, damaged, or of a plain network.
    """

    def __init__(self, folder: Path, *, device: Literal["cpu", "cuda"] = "cpu", threads: int | None = None) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise EnvironmentMissing(f"PyTorch {torch.__version__} sees no CUDA device here", remedy="choose the device cpu")
        card = read_card(folder)
        if card.kind == "network":
            raise ArtifactError(f"{folder}: a plain network, which sees no label", remedy="open it as any other model")
        self._folder, self._device, self._threads = folder, torch.device(device), threads or usable_cores()
        self.info, self.sha256 = info_of_card(card), card.weights_sha256
        self.kind: TeacherKind = card.kind
        self._noising: dict[Plane, LabelNoising] = {}
        if card.kind == "label_assisted":
            self._network = load_bundle(folder)[0].to(self._device)
            self._noising = _noising_of(card, folder)
        else:
            self._labels = load_smoothed_labels(folder)[0]

    @property
    def planes(self) -> tuple[Plane, ...]:
        """The ways in which it can be shown a label: as it teaches first; no more than once where they are the same."""
        if not self._noising:
            return ("teaching",)
        return (*self._noising, "zero")

    def run(self, images: NDArray[Any], labels: NDArray[np.uint8], indices: Sequence[int], plane: Plane) -> NDArray[np.float32]:
        """Logits at the images' size.

        Args:
            images: (B, 3, h, w) float32, normalised.
            labels: (B, h, w) uint8, 255 = ignore.
            indices: of the images in their split: they decide what is drawn.
            plane: how the label is shown.

        Returns:
            (B, K, h, w) float32.
        """
        images = check_input(images, self.info, self._folder.name)
        with torch.inference_mode(), cpu_threads(self._threads), honest_fp32():
            shown = torch.from_numpy(labels).long()
            logits = self._answer(torch.from_numpy(images), shown, indices, plane)
            answer: NDArray[np.float32] = logits.float().cpu().numpy()
        return answer

    def _answer(self, images: Tensor, labels: Tensor, indices: Sequence[int], plane: Plane) -> Tensor:
        match self.kind:
            case "label_assisted":
                beside_it = no_label(images) if plane == "zero" else planes_of(self._noising[plane], labels, indices)
                return self._network.predict_logits(beside(images, beside_it).to(self._device))
            case "smoothed_labels":
                return self._labels.predict_logits(labels)
            case "network":
                raise AssertionError("refused when it was opened")
            case other:
                assert_never(other)


def _noising_of(card: Card, folder: Path) -> dict[Plane, LabelNoising]:
    if card.noising is None:
        raise ArtifactError(f"{folder}: a label-assisted teacher whose card lacks 'noising'", remedy="restore the card or train it again")
    noising, classes = card.noising, len(card.classes)
    scale = noising.scale_for(card.preprocess.std)
    found: dict[Plane, LabelNoising] = {"teaching": LabelNoising(classes, noising.codes, noising.sigma, scale)}
    if (noising.train_codes, noising.train_sigma) != (noising.codes, noising.sigma):
        found["training"] = LabelNoising(classes, noising.train_codes, noising.train_sigma, scale)
    return found
