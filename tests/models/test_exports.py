"""The networks leave torch as small static graphs that answer the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gddctl.core.config.sections import Architecture, NetworkConfig
from gddctl.models.segmenter import Segmenter, build_segmenter

MAX_NODES = 120  # PSPNet 80 and DeepLabV3 69 were seen
SAME = 1e-4  # float32 kernels in another order
ODD = (90, 122)  # at stride 8 a map of 12 x 16, which PSP's six bins do not divide


class Logits(nn.Module):
    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.predict_logits(image)


def export(module: nn.Module, image: Tensor, path: Path) -> Counter[str]:
    shapes = {"image": {0: torch.export.Dim("batch", min=1, max=64)}}
    program = torch.onnx.export(
        module, (image,), dynamo=True, opset_version=20, dynamic_shapes=shapes, input_names=["image"], verbose=False
    )
    assert program is not None
    program.save(path)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.filterwarnings("ignore")  # of the exporter about itself
@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3"])
def test_graph_is_small_and_answers_the_same(arch: Architecture, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_segmenter(NetworkConfig(arch=arch, output_stride=8), 4, aux=False).train()
    model(torch.randn(2, 3, *ODD))  # statistics of a real batch
    model.eval()
    model(torch.randn(1, 3, *ODD))  # and matrices already kept
    census = export(Logits(model), torch.randn(2, 3, *ODD), tmp_path / "model.onnx")
    assert census.total() < MAX_NODES, census
    assert census["Gather"] == census["Slice"] == census["GatherND"] == 0, census
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = torch.randn(count, 3, *ODD)
        with torch.no_grad():
            expected = model.predict_logits(images).numpy()
        found = session.run(None, {"image": images.numpy()})[0]
        assert expected.std() > 10 * SAME  # an answer, not a plain of zeros
        assert np.abs(found - expected).max() < SAME


@pytest.mark.filterwarnings("ignore")
def test_adaptive_pooling_would_be_seen(tmp_path: Path) -> None:
    class Adaptive(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return F.adaptive_avg_pool2d(image, 6)

    census = export(Adaptive().eval(), torch.randn(2, 3, 12, 16), tmp_path / "model.onnx")
    assert census["Gather"] > 0, census
