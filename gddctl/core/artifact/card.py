"""The card of a bundle: everything about a trained model but its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, SerializerFunctionWrapHandler, model_serializer

from gddctl.core.artifact.network import AnyNetwork
from gddctl.core.classes import ClassTable
from gddctl.core.config.label_assisted import NoisingConfig, SmoothingConfig, TeacherKind
from gddctl.core.config.sections import DataConfig, Int8Target
from gddctl.core.preprocess import PreprocessSpec
from gddctl.core.section import Section, without_younger

CARD_NAME = "card.json"
WEIGHTS_NAME = "model.safetensors"

Role = Literal["teacher", "baseline", "student"]


class TrainingRecord(Section):
    """How the weights came about."""

    iterations: NonNegativeInt
    best_iteration: NonNegativeInt
    seconds: NonNegativeFloat  # wall-clock of training, all sittings together
    images_seen: NonNegativeInt
    seed: NonNegativeInt
    devices: NonNegativeInt
    precision: str
    method: dict[str, Any] | None = None  # settings of the distillation method
    teacher_weights_sha256: str | None = None
    teacher_kind: TeacherKind | None = None
    teacher_noising: NoisingConfig | None = None  # how the labels were noised that a label-assisted teacher read
    init_weights_sha256: str | None = None
    method_parameters: NonNegativeInt | None = None  # trained beside the student for the method, and thrown away


class RangeImage(Section):
    """One image that set activation ranges."""

    name: str
    sha256: str  # of its content


class QuantizationRecord(Section):
    """The INT8 graph that the weights were trained through."""

    target: Int8Target
    rule: NonNegativeInt  # version of the rule from ranges to codes
    activation: Literal["uint8", "int8"]
    weight_bits: Literal[7, 8]
    ranges: dict[str, tuple[float, float]]  # quantised tensor of the exported graph -> (low, high) that its code covers
    observed: dict[str, tuple[float, float]]  # every tensor -> (lowest, highest) value of the trained weights on the same images
    seed: NonNegativeInt
    images: tuple[RangeImage, ...]  # that set the ranges
    miou: NonNegativeFloat  # 0..1, on val, of the weights as that graph computes them; ``evaluation`` is of the weights in float
    start_miou: NonNegativeFloat  # the same before the first step


class Origin(Section):
    """Where an imported network came from."""

    kind: Literal["smp", "torchvision", "transformers", "mmseg"]
    file: str  # name of the file or folder
    sha256: str  # of the file, or of the folder's weights
    classes: tuple[str, ...]  # its own, in the order of its own logits
    dropped: tuple[str, ...] = ()  # those of them that the dataset lacks


class TeacherRecord(Section):
    """The teacher, in its student's card."""

    name: str
    source: Literal["gddctl", "smp", "torchvision", "transformers", "mmseg"]  # whose checkpoint it was
    licence: str  # "unknown" where nobody said
    sha256: str  # of the imported file; of one of ours: of its weights
    dropped: tuple[str, ...] = ()  # its classes that the student's dataset lacks

    @model_serializer(mode="wrap")
    def _plain_without_extras(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_younger(self, handler(self), ("dropped",))


class Card(Section):
    """``card.json``. The weights beside it hold exactly the plain network's keys: no auxiliary head, no distiller."""

    schema_version: Literal[1] = 1
    name: str
    role: Role
    kind: TeacherKind = "network"  # the others see the label: they teach, and can be neither run on an image nor exported
    noising: NoisingConfig | None = None  # of a label-assisted teacher
    smoothing: SmoothingConfig | None = None  # of smoothed labels; of ``network`` only the output stride is theirs
    network: AnyNetwork
    differs_from_paper: tuple[str, ...] = ()  # where our network is not the papers'
    parameters: NonNegativeInt  # count
    classes: ClassTable
    preprocess: PreprocessSpec
    data: DataConfig  # where it was trained; export calibrates from here
    weights_sha256: str  # of model.safetensors
    config_digest: str
    training: TrainingRecord
    quantization: QuantizationRecord | None = None
    origin: Origin | None = None  # of an imported network
    teacher: TeacherRecord | None = None  # of a distilled student
    evaluation: dict[str, Any] | None = None  # EvalReport as JSON
    licence: str = "unknown"
    gddctl_version: str


def as_teacher(card: Card, dropped: tuple[str, ...] = ()) -> TeacherRecord:
    """What the student's card says of the teacher with this ``card``, of whose classes ``dropped`` were left out of its answers."""
    if card.origin is None:
        return TeacherRecord(name=card.name, source="gddctl", licence=card.licence, sha256=card.weights_sha256, dropped=dropped)
    origin = card.origin
    return TeacherRecord(
        name=origin.file, source=origin.kind, licence=card.licence, sha256=origin.sha256, dropped=(*origin.dropped, *dropped)
    )


def is_bundle(path: Path) -> bool:
    """Whether ``path`` looks like a bundle folder."""
    return path.is_dir() and (path / CARD_NAME).is_file()
