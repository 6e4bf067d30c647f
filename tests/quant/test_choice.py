"""Which tensors get codes, on small graphs drawn by hand."""

from __future__ import annotations

from gddctl.quant.choice import Op, choose


def test_a_convolution_and_its_relu_share_one_code() -> None:
    ops = [Op("Conv", ("image",), "a"), Op("Relu", ("a",), "b"), Op("Conv", ("b",), "c"), Op("Resize", ("c",), "logits")]
    choice = choose(ops, ["logits"])
    assert choice.tensors == ("image", "b")  # not "a": a pair between convolution and ReLU would part them
    assert choice.float_convs == {"c"}  # the classifier, and with it the resize of its logits, stay float


def test_a_residual_sum_stays_in_codes() -> None:
    ops = [
        Op("Conv", ("image",), "a"),
        Op("Relu", ("a",), "b"),
        Op("MaxPool", ("b",), "p"),
        Op("Conv", ("p",), "c"),
        Op("Add", ("c", "p"), "d"),
        Op("Relu", ("d",), "e"),
        Op("Conv", ("e",), "logits"),
    ]
    choice = choose(ops, ["logits"])
    assert choice.tensors == ("image", "b", "p", "c", "e")
    assert choice.code_of("p") == "b" and choice.code_of("e") == "e"  # pooling picks values: its codes mean the same


def test_an_unknown_operator_computes_in_float_between_codes() -> None:
    ops = [
        Op("Conv", ("image",), "a"),
        Op("Sigmoid", ("a",), "s"),
        Op("Add", ("a", "s"), "d"),
        Op("Conv", ("d",), "e"),
        Op("Conv", ("e",), "logits"),
    ]
    assert choose(ops, ["logits"]).tensors == ("image", "a", "d", "e")


def test_pyramid_pooling_by_products_stays_float_up_to_the_next_convolution() -> None:
    ops = [
        Op("Conv", ("image",), "a"),
        Op("MatMul", ("a",), "m"),
        Op("Conv", ("m",), "b"),
        Op("Resize", ("b",), "r"),
        Op("Concat", ("a", "r"), "j"),
    ]
    ops += [Op("Conv", ("j",), "logits")]
    choice = choose(ops, ["logits"])
    assert choice.tensors == ("image", "a", "m", "b", "r", "j") and choice.code_of("r") == "b"


def test_a_relu_read_twice_before_it() -> None:
    """The sum is also read beside its ReLU: then both carry codes."""
    ops = [Op("Conv", ("image",), "a"), Op("Relu", ("a",), "b"), Op("Add", ("a", "b"), "c"), Op("Conv", ("c",), "logits")]
    assert choose(ops, ["logits"]).tensors == ("image", "a", "b", "c")


RESIDUAL = [
    Op("Conv", ("image",), "a"),
    Op("Relu", ("a",), "b"),
    Op("MaxPool", ("b",), "p"),
    Op("Conv", ("p",), "c"),
    Op("Relu", ("c",), "d"),
    Op("Conv", ("d",), "e"),
    Op("Add", ("e", "p"), "f"),
    Op("Relu", ("f",), "g"),
    Op("Conv", ("g",), "h"),  # main branch of a block that changes the width
    Op("Conv", ("g",), "s"),  # its shortcut
    Op("Add", ("h", "s"), "i"),
    Op("Relu", ("i",), "j"),
    Op("Conv", ("j",), "logits"),
]


def test_tensorrt_placement_leaves_what_conv_add_and_relu_fuse_over() -> None:
    """Pairs on what convolutions read and on the shortcut; never on the main branch's convolution nor between it and its ReLU."""
    choice = choose(RESIDUAL, ["logits"], "inputs")
    assert choice.tensors == ("image", "b", "p", "d", "g", "s")
    assert choice.code_of("p") == "b"
    assert choice.float_convs == {"logits"}


def test_a_shortcut_on_the_left_is_found_too() -> None:
    ops = [
        Op("Conv", ("image",), "a"),
        Op("Relu", ("a",), "b"),
        Op("Conv", ("b",), "c"),
        Op("Add", ("b", "c"), "d"),
        Op("Conv", ("d",), "logits"),
    ]
    assert choose(ops, ["logits"], "inputs").tensors == ("image", "b")


def test_a_concatenation_gets_one_scale_only_where_nobody_else_reads_its_inputs() -> None:
    def graph(extra: list[Op]) -> list[Op]:
        return [
            Op("Conv", ("image",), "a"),
            Op("Relu", ("a",), "b"),
            Op("Conv", ("image",), "c"),
            Op("Concat", ("b", "c"), "j"),
            *extra,
            Op("Conv", ("j",), "k"),
            Op("Conv", ("k",), "logits"),
        ]

    alone = choose(graph([]), ["logits"], "inputs")
    assert alone.tensors == ("image", "b", "c", "j") and alone.code_of("b") == alone.code_of("c") == "j"
    shared = choose(graph([Op("Sigmoid", ("b",), "x")]), ["logits"], "inputs")
    assert shared.tensors == ("image", "j") and shared.code_of("j") == "j"


def test_a_kept_convolution_asks_for_no_codes() -> None:
    for placement in ("codes", "inputs"):
        choice = choose(RESIDUAL, ["logits"], placement, {"c", "e"})
        assert choice.float_convs == {"logits", "c", "e"}
        assert "d" not in choice.tensors and "g" in choice.tensors
