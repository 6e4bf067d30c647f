"""Small networks as others would train them, exported as others would export them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from gddctl.core.artifact.foreign_card import ForeignCard, ForeignClass
from gddctl.core.preprocess import PreprocessSpec

SIZE = (48, 80)  # a stride of 4 gives 12 x 20
CLASSES = ("road", "sky", "tree", "car", "sign")


class Net(nn.Module):
    """A stem, a residual block, a head and an auxiliary head: what a segmentation network usually brings."""

    def __init__(self, *, aux: bool = False, resize: bool = True, end: str = "", pool: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Conv2d(16, len(CLASSES), 1)
        self.pool = nn.AdaptiveAvgPool2d(pool) if pool else None
        self.resize, self.end = resize, end
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):  # statistics that folding has to move
                nn.init.normal_(module.get_buffer("running_mean"), 0, 0.2)
                nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
        self.aux = nn.Conv2d(8, len(CLASSES), 1) if aux else None  # last: it must not change what the others draw
        self.eval()

    def forward(self, image: torch.Tensor) -> Any:
        first = self.stem(image)
        x = self.down(first)
        x = torch.relu(x + self.block(x))
        if self.pool is not None:
            x = x + nn.functional.interpolate(self.pool(x), size=x.shape[-2:], mode="bilinear")
        x = self.head(x)
        if self.resize:
            x = nn.functional.interpolate(x, size=image.shape[-2:], mode="bilinear", align_corners=False)
        x = {"": lambda: x, "softmax": lambda: x.softmax(1), "argmax": lambda: x.argmax(1)}[self.end]()
        return x if self.aux is None else (x, self.aux(first))


def card(**changes: Any) -> ForeignCard:
    given: dict[str, Any] = {"name": "theirs", "classes": tuple(ForeignClass(name=name) for name in CLASSES)}
    return ForeignCard(**{**given, "preprocess": PreprocessSpec(size=SIZE), **changes})


def export(
    net: nn.Module,
    path: Path,
    *,
    dynamo: bool = False,
    batch: int = 1,
    outputs: tuple[str, ...] = ("y",),
    example: torch.Tensor | None = None,
    **options: Any,
) -> Path:
    """By TorchScript's exporter, which is the faster, or by torch.export's."""
    logging.disable(logging.WARNING)
    options = {"external_data": False, **options} if dynamo else {"opset_version": 17, **options}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            given = (torch.zeros(batch, 3, *SIZE) if example is None else example,)
            torch.onnx.export(net, given, str(path), dynamo=dynamo, input_names=["x"], output_names=list(outputs), **options)
    finally:
        logging.disable(logging.NOTSET)
    return path


def pixels(count: int = 3) -> Any:
    return np.random.default_rng(7).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def edited(path: Path, change: Callable[[Any], None]) -> Path:
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(path))
    return path
