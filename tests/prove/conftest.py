"""Small worlds to judge in: a dataset held in memory, a runtime that answers by a function, and real ONNX files of one convolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import Self

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.classes import ClassTable, SegClass
from gddctl.core.config.sections import Graph
from gddctl.core.digest import sha256_bytes
from gddctl.core.preprocess import PreprocessSpec
from gddctl.data.dataset import Sample

NAMES = ("sky", "road", "car")
COLOURS = ((70, 130, 180), (128, 64, 128), (0, 0, 142))


def class_table(names: tuple[str, ...] = NAMES) -> ClassTable:
    return ClassTable(classes=tuple(SegClass(name=name, color=color) for name, color in zip(names, COLOURS, strict=True)))


@dataclass
class World:
    """A dataset in memory."""

    samples: list[Sample]
    classes: ClassTable = field(default_factory=class_table)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def name(self, index: int) -> str:
        return self.samples[index].name

    def files(self, index: int) -> tuple[Path, Path] | None:
        return None

    def content_sha256(self, index: int) -> str:
        return sha256_bytes(self.samples[index].image.tobytes())


@dataclass
class Answering:
    """A runtime whose answer is a function of its input."""

    answer: Callable[[NDArray[Any]], NDArray[Any]]
    info: ModelInfo
    backend: str = "torch-cpu"
    sha256: str = "0" * 64

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        return self.answer(batch)

    def environment(self) -> dict[str, str]:
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def model_info(graph: Graph = "logits", size: tuple[int, int] = (16, 24), **changes: Any) -> ModelInfo:
    spec = PreprocessSpec(size=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    base = ModelInfo(
        name="student",
        graph=graph,
        precision="fp32",
        target="any",
        classes=class_table(),
        preprocess=spec,
        architecture="pspnet-resnet18-s8",
        output_stride=8,
        weights_sha256="1" * 64,
    )
    return base.model_copy(update=changes)


def make_world(count: int = 4, size: tuple[int, int] = (16, 24), seed: int = 0) -> World:
    """Images whose channel c is bright where the class is c, so that the pixels themselves are perfect logits; some pixels ignored."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        truth = rng.integers(0, 3, size=size)
        image = np.stack([np.where(truth == k, 255, rng.integers(0, 200, size=size)) for k in range(3)], axis=-1).astype(np.uint8)
        label = truth.astype(np.uint8)
        label[rng.random(size) < 0.2] = 255
        samples.append(Sample(image, label, f"scene{index}"))
    return World(samples)


def make_onnx(path: Path, graph: Graph = "logits", *, size: tuple[int, int] = (16, 24), gain: float = 1.0, **changes: Any) -> Path:
    """A real file whose logits are ``gain`` times the normalised image: one 1x1 convolution."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from gddctl.export.graph_file import save_model

    height, width = size
    weight = numpy_helper.from_array((gain * np.eye(3, dtype=np.float32)).reshape(3, 3, 1, 1), "weight")
    conv = helper.make_node("Conv", ["chw", "weight"], ["logits"])
    if graph == "logits":
        conv.input[0] = "image"
        nodes, initial = [conv], [weight]
        source = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, height, width])
        sink = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3, height, width])
    else:
        scale = numpy_helper.from_array(np.float32(1 / 255), "scale")
        nodes = [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["float"], ["bytes"], perm=[0, 3, 1, 2]),
            helper.make_node("Mul", ["bytes", "scale"], ["chw"]),
            conv,
            helper.make_node("ArgMax", ["logits"], ["wide"], axis=1, keepdims=0),
            helper.make_node("Cast", ["wide"], ["mask"], to=TensorProto.UINT8),
        ]
        initial = [weight, scale]
        source = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, 3])
        sink = helper.make_tensor_value_info("mask", TensorProto.UINT8, ["batch", height, width])
    model = helper.make_model(helper.make_graph(nodes, "g", [source], [sink], initial), opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    save_model(model, model_info(graph, size, **changes), path)
    return path


@pytest.fixture(scope="session")
def parts() -> Any:
    """What the tests build their worlds from; a fixture, because test folders are no packages."""
    return SimpleNamespace(World=World, Answering=Answering, world=make_world, info=model_info, onnx=make_onnx, classes=class_table)
