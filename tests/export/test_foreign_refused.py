"""Files that cannot become ours: each is explained by name and remedy, nothing is written, and the sound partner passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from gddctl.core.artifact.foreign_card import ForeignClass
from gddctl.core.errors import ArtifactError, UsageError
from gddctl.core.preprocess import PreprocessSpec
from gddctl.export import foreign, foreign_body
from gddctl.export.foreign import import_onnx
from tests.export.foreign_nets import SIZE, Net, card, edited, export

OPEN: Any = {"dynamic_axes": {"x": {0: "n", 2: "h", 3: "w"}}}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return export(Net(), tmp_path_factory.mktemp("sound") / "x.onnx").read_bytes()


def write(folder: Path, data: bytes) -> Path:
    (folder / "theirs.onnx").write_bytes(data)
    return folder / "theirs.onnx"


def refused(path: Path, words: str, **changes: Any) -> None:
    out = path.parent / "out" / "ours.onnx"
    with pytest.raises(ArtifactError, match=words):
        import_onnx(path, card(**changes), out)
    assert not out.parent.exists()


def behind_image(kind: str, domain: str = "", **attributes: Any) -> Callable[[Any], None]:
    """Put one node between the image and everything that reads it."""

    def change(model: Any) -> None:
        for node in model.graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = "between" if name == "x" else name
        model.graph.node.insert(0, helper.make_node(kind, ["x"], ["between"], name="odd", domain=domain, **attributes))
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def test_the_sound_file_passes(sound: bytes, tmp_path: Path) -> None:
    """Partner of everything below."""
    artifact, findings = import_onnx(write(tmp_path, sound), card(), tmp_path / "ours.onnx")
    assert artifact.path.is_file() and {finding.severity for finding in findings} == {"fixed"}


def test_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        import_onnx(tmp_path / "none.onnx", card(), tmp_path / "ours.onnx")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_cut_off_file(sound: bytes, tmp_path: Path, share: float) -> None:
    refused(write(tmp_path, sound[: int(share * len(sound))]), "not a whole ONNX file|not an ONNX model")


def test_something_else_by_that_name(tmp_path: Path) -> None:
    refused(write(tmp_path, b"PK\x03\x04 a zip file, as torch.save writes"), "not a whole ONNX file|not an ONNX model")


def test_weights_beside_the_file_are_missing_or_short(sound: bytes, tmp_path: Path) -> None:
    path = write(tmp_path, sound)
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="w.data", size_threshold=0)
    weights = (tmp_path / "w.data").read_bytes()
    (tmp_path / "w.data").write_bytes(weights[: len(weights) // 2])
    refused(path, "weights cannot be read|is cut off")
    (tmp_path / "w.data").unlink()
    refused(path, "its weights lie in 'w.data', which is not beside it; copy both files")


@pytest.mark.parametrize(("kind", "domain"), [("Gelu", "com.microsoft"), ("MyWarp", "acme.ops")])
def test_operators_outside_the_standard(sound: bytes, tmp_path: Path, kind: str, domain: str) -> None:
    path = edited(write(tmp_path, sound), behind_image(kind, domain))
    refused(path, f"odd: the operator {domain}::{kind} is not part of the ONNX standard")


def test_the_same_operator_inside_the_standard_passes(sound: bytes, tmp_path: Path) -> None:
    path = edited(write(tmp_path, sound), behind_image("Sigmoid"))
    assert import_onnx(path, card(), tmp_path / "ours.onnx")


def test_a_graph_without_outputs_or_with_broken_names(sound: bytes, tmp_path: Path) -> None:
    def no_output(model: Any) -> None:
        del model.graph.output[:]

    refused(edited(write(tmp_path, sound), no_output), "the graph has no output")
    assert sound.count(b"/head/Conv") >= 1
    refused(write(tmp_path, sound.replace(b"/head/Conv", b"/head/\xff\xfe\xfdv")), "names in it are not UTF-8")


def test_loose_but_readable_files_pass(sound: bytes, tmp_path: Path) -> None:
    """The long spelling of the standard's domain, one name for all nodes, an output that does not tell its shape."""

    def loosen(model: Any) -> None:
        model.opset_import[0].domain = "ai.onnx"
        for node in model.graph.node:
            node.name = "node"
        model.graph.output[0].type.tensor_type.ClearField("shape")

    artifact, _ = import_onnx(edited(write(tmp_path, sound), loosen), card(), tmp_path / "ours.onnx")
    assert artifact.info.census["conv.float"] == 4


def test_random_numbers_inside(sound: bytes, tmp_path: Path) -> None:
    def noise(model: Any) -> None:
        behind_image("RandomNormalLike", dtype=TensorProto.FLOAT)(model)

    refused(edited(write(tmp_path, sound), noise), "answers the same image otherwise the second time.*model.eval")


def test_operators_that_no_target_compiles(sound: bytes, tmp_path: Path) -> None:
    """A NonZero whose result reaches the logits (times zero)."""

    def count(model: Any) -> None:
        nodes = [
            helper.make_node("NonZero", ["x"], ["places"], name="where_not_zero"),
            helper.make_node("ReduceMax", ["places"], ["last"], keepdims=0),
            helper.make_node("Cast", ["last"], ["last_float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["last_float", "nothing"], ["zero"]),
            helper.make_node("Add", ["x", "zero"], ["between"]),
        ]
        for node in model.graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = "between" if name == "x" else name
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
        for place, node in enumerate(nodes):
            model.graph.node.insert(place, node)

    refused(edited(write(tmp_path, sound), count), "NonZero needs control flow, random numbers or shapes that depend on values")


@pytest.mark.parametrize(
    ("names", "words"), [(4, "5 channels for 4 class names: 0 a, .*4 \\(no name\\)"), (6, "5 channels for 6 class names")]
)
def test_channels_and_names_that_do_not_match(sound: bytes, tmp_path: Path, names: int, words: str) -> None:
    refused(write(tmp_path, sound), words, classes=tuple(ForeignClass(name=letter) for letter in "abcdef"[:names]))


def test_one_channel_is_a_binary_network(tmp_path: Path) -> None:
    net = Net()
    net.head = nn.Conv2d(16, 1, 1)
    classes = tuple(ForeignClass(name=name) for name in ("background", "object"))
    refused(export(net, tmp_path / "one.onnx"), "1 channels for 2 class names.*export two channels", classes=classes)


def test_a_file_for_another_size(sound: bytes, tmp_path: Path) -> None:
    other = PreprocessSpec(size=(64, 64))
    refused(
        write(tmp_path, sound),
        r"exported for 48 x 80, the card says 64 x 64.*set preprocess.size in the card to \[48, 80\]",
        preprocess=other,
    )


class Baked(Net):
    """Height and width are open, and yet one layer was fixed at the size of the example."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.down(self.stem(image))
        x = torch.relu(x + self.block(x))  # 12 x 20
        if self.how == "pool":
            pooled = nn.functional.avg_pool2d(x, 4)
            x = x + nn.functional.interpolate(pooled, size=x.shape[-2:], mode="bilinear")
        if self.how == "matrix":
            x = x @ torch.eye(20)
        x = self.head(x)
        size = SIZE if self.how == "resize" else image.shape[-2:]
        return nn.functional.interpolate(x, size=size, mode="bilinear")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("pool", "4 x 4 bins do not divide its 13 x 21 map; its kernel was fixed for another size than 52 x 84"),
        ("matrix", "it does not run at 52 x 84.*set preprocess.size in the card to the one it was exported at"),
        ("resize", "answers 48 x 80 to an image of 52 x 84: a size is fixed inside"),
    ],
)
def test_open_sizes_with_a_layer_for_another(tmp_path: Path, how: str, words: str) -> None:
    path = export(Baked(how).eval(), tmp_path / "baked.onnx", **OPEN)
    refused(path, words, preprocess=PreprocessSpec(size=(52, 84)))
    artifact, _ = import_onnx(path, card(), tmp_path / "ours.onnx")  # the size that it was exported at is right
    assert artifact.info.preprocess.size == SIZE


def test_unrolled_adaptive_pooling(tmp_path: Path) -> None:
    """Bins of 5 do not divide 12 x 20; bins of 4 do, and become one AveragePool."""
    refused(
        export(Net(pool=5), tmp_path / "five.onnx", dynamo=True, batch=2, dynamic_shapes=({0: "n"},)),
        "pooling it was unrolled into [0-9]+ Gather and [0-9]+ Add nodes.*two matrix products",
    )
    artifact, _ = import_onnx(export(Net(pool=4), tmp_path / "four.onnx"), card(), tmp_path / "four" / "ours.onnx")
    assert "AveragePool" in [node.op_type for node in onnx.load(str(artifact.path)).graph.node]


class TwoAtOnce(Net):
    """Images of a batch see each other: no batch but the exported one answers the same."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.down(self.stem(image))
        x = x - x.mean(dim=0, keepdim=True) * 0.5
        return nn.functional.interpolate(self.head(x), size=image.shape[-2:], mode="bilinear")


def test_a_batch_that_is_not_free(tmp_path: Path) -> None:
    refused(export(TwoAtOnce(), tmp_path / "two.onnx"), "2 at once .alone they agree: some layer is fixed to the batch.*dynamic batch")


@pytest.mark.parametrize(
    ("change", "words"), [("half", "the output 'y' is FLOAT16.*export the network in FP32"), ("gray", r"\[1, 1, 48, 80\]")]
)
def test_types_and_channels_that_gddctl_does_not_feed(tmp_path: Path, change: str, words: str) -> None:
    net, example = Net(), torch.zeros(1, 3, *SIZE)
    if change == "half":
        net, example = net.half(), example.half()
    else:
        net.stem[0], example = nn.Conv2d(1, 8, 3, 2, 1), example[:, :1]
    refused(export(net, tmp_path / "x.onnx", example=example), words)


def test_weights_with_nan(sound: bytes, tmp_path: Path) -> None:
    def spoil(model: Any) -> None:
        tensor = next(item for item in model.graph.initializer if item.name == "head.weight")
        value = numpy_helper.to_array(tensor).copy()
        value[0, 0] = np.nan
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))

    refused(edited(write(tmp_path, sound), spoil), "answers NaN or infinity to random images")


def test_a_file_that_is_quantised_already(psp: Any, tmp_path: Path) -> None:
    model = onnx.load(str(psp.int8.path))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "x.onnx"))
    info = psp.int8.info
    classes = tuple(ForeignClass(name=name) for name in info.classes.names)
    refused(tmp_path / "x.onnx", "the graph is quantised already", classes=classes, preprocess=info.preprocess)


def test_a_rewrite_that_changes_answers_is_caught(sound: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partner of the comparison: one bias moved by a hundredth of a logit after folding."""
    honest = foreign_body.finish

    def careless(model: Any) -> None:
        tensor = next(item for item in model.graph.initializer if item.name == "head.bias")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.01), tensor.name))
        honest(model)

    monkeypatch.setattr(foreign, "finish", careless)
    refused(write(tmp_path, sound), "answers otherwise on random images, alone: [0-9]+ dB, at least 80 expected")
