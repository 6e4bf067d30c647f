"""Operators of the ONNX standard that a target cannot run."""

from __future__ import annotations

# Control flow, data-dependent shapes and values that are no tensors: no target compiles these inside a segmentation graph.
NOWHERE = frozenset(
    [
        "Loop",
        "If",
        "Scan",
        "NonZero",
        "Unique",
        "Compress",
        "NonMaxSuppression",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceLength",
        "SequenceMap",
        "SplitToSequence",
        "ConcatFromSequence",
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
        "StringConcat",
        "StringNormalizer",
        "StringSplit",
        "RegexFullMatch",
        "TfIdfVectorizer",
        "ImageDecoder",
    ]
)
# What TensorRT's ONNX parser does not take: supports_operator() of TensorRT-RTX 1.7, asked for every operator of opset 25.
# Those that stand in another list here are left out.
NOT_IN_TENSORRT = frozenset(
    [
        "AffineGrid",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "CenterCropPad",
        "Col2Im",
        "CumProd",
        "DFT",
        "DeformConv",
        "Det",
        "MaxRoiPool",
        "MaxUnpool",
        "MelWeightMatrix",
        "SwiGLU",
    ]
)
# Of graphs that are quantised already.
QUANTISED = frozenset(
    ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"]
)
