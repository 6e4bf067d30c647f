"""Which tensors an exported file takes and gives: names, types and shapes, for everybody who speaks to one over a wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from typing_extensions import assert_never

from gddctl.core.artifact.info import ModelInfo
from gddctl.core.config.sections import Graph

TensorType = Literal["uint8", "float32"]  # NumPy's names
ANY = -1  # a free axis, as the Open Inference Protocol and Triton write it

INPUT_NAME = "image"
OUTPUT_NAMES: dict[Graph, str] = {"logits": "logits", "deploy": "mask"}


@dataclass(frozen=True)
class TensorSpec:
    """One tensor at a file's door."""

    name: str
    dtype: TensorType
    shape: tuple[int, ...]  # the batch first, ``ANY`` where that is free
    axes: str  # one letter per axis: B batch, C colour, K classes, H height, W width

    @property
    def datatype(self) -> str:
        """The type as the Open Inference Protocol names it (KServe V2, "Tensor Data Types"): ``UINT8``, ``FP32``."""
        match self.dtype:
            case "uint8":
                return "UINT8"
            case "float32":
                return "FP32"
            case _ as never:
                assert_never(never)

    @property
    def triton_type(self) -> str:
        """The type as a value of ``inference.DataType`` in Triton's model_config.proto: ``TYPE_UINT8``, ``TYPE_FP32``."""
        return f"TYPE_{self.datatype}"

    @property
    def item_shape(self) -> tuple[int, ...]:
        """The shape of one image's tensor, without the batch: what ``dims`` means in Triton when ``max_batch_size`` is not 0."""
        return self.shape[1:]

    @property
    def item_bytes(self) -> int:
        """Bytes of one image's tensor."""
        total = {"uint8": 1, "float32": 4}[self.dtype]
        for side in self.item_shape:
            total *= side
        return total

    def to_json(self) -> dict[str, object]:
        """As the Open Inference Protocol's metadata answer has it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class TensorSpecs:
    """All of a file's tensors. Ours have one input and one output; the protocols speak of lists."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def tensor_specs(info: ModelInfo, batch: int = ANY) -> TensorSpecs:
    """The tensors of the file that ``info`` describes, answering batches of ``batch`` images (``ANY``: the batch is free).

    ``logits`` graph: ``image`` float32 (B, 3, H, W), normalised -> ``logits`` float32 (B, K, H, W).
    ``deploy`` graph: ``image`` uint8 (B, H, W, 3), RGB -> ``mask`` uint8 (B, H, W), class ids.

    Tests hold this against the graph inside real files, so what a server says here is what the file does.
    """
    height, width = info.preprocess.size
    match info.graph:
        case "logits":
            image = TensorSpec(INPUT_NAME, "float32", (batch, 3, height, width), "BCHW")
            answer = TensorSpec(OUTPUT_NAMES["logits"], "float32", (batch, len(info.classes), height, width), "BKHW")
        case "deploy":
            image = TensorSpec(INPUT_NAME, "uint8", (batch, height, width, 3), "BHWC")
            answer = TensorSpec(OUTPUT_NAMES["deploy"], "uint8", (batch, height, width), "BHW")
        case _ as never:
            assert_never(never)
    return TensorSpecs((image,), (answer,))
