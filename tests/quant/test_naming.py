"""Lasting names of tensors."""

from __future__ import annotations

from gddctl.quant.choice import Op
from gddctl.quant.naming import tensor_names


def test_names_follow_modules_and_not_the_exporter() -> None:
    def graph(prefix: str) -> list[Op]:
        return [
            Op("Conv", ("image",), f"{prefix}1", "segmenter.stem.weight"),
            Op("Relu", (f"{prefix}1",), f"{prefix}2"),
            Op("Conv", (f"{prefix}2",), f"{prefix}3", "segmenter.block.0.conv.weight"),
            Op("Add", (f"{prefix}3", f"{prefix}2"), f"{prefix}4"),
            Op("Resize", (f"{prefix}4",), "logits"),
        ]

    expected = ["stem", "stem.relu", "block.0.conv", "block.0.conv.add"]
    for prefix in ("getitem_", "conv2d_"):
        assert list(tensor_names(graph(prefix), ["image", "logits"]).values()) == expected


def test_two_of_a_kind_are_told_apart_and_sizes_are_left_alone() -> None:
    ops = [
        Op("Shape", ("image",), "size"),
        Op("Concat", ("size",), "sizes"),
        Op("MatMul", ("image",), "a"),
        Op("MatMul", ("image",), "b"),
        Op("Add", ("a", "b"), "logits"),
    ]
    assert tensor_names(ops, ["image", "logits"]) == {"a": "image.matmul", "b": "image.matmul_2"}


def test_a_kernel_read_twice_names_two_tensors() -> None:
    ops = [Op("Conv", ("image",), "a", "c.weight"), Op("Conv", ("a",), "b", "c.weight"), Op("Relu", ("b",), "logits")]
    assert tensor_names(ops, ["image", "logits"]) == {"a": "c", "b": "c_2"}
