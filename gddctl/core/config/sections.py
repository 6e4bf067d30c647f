"""The sections of a run's settings, with their defaults and where those come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from gddctl.core.config.bench import BenchConfig
from gddctl.core.config.compare import CompareConfig, HoldoutConfig
from gddctl.core.config.external import External
from gddctl.core.config.label_assisted import NoisingConfig, SmoothingConfig, TeacherKind
from gddctl.core.config.methods import Gdd, Method
from gddctl.core.preprocess import PreprocessSpec, Side
from gddctl.core.section import Section, without_younger

Layout = Literal["synthetic", "camvid", "cityscapes", "voc", "ade20k", "cocostuff", "folder"]
Architecture = Literal["pspnet", "deeplabv3", "deeplabv3plus", "fpn", "upernet"]
Graph = Literal["logits", "deploy"]
Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["any", "ort-cpu", "ort-cuda", "openvino", "tensorrt"]
Int8Target = Literal["ort-cpu", "openvino", "tensorrt"]
Builder = Literal["auto", "tensorrt", "rtx"]
CalibrationMethod = Literal["auto", "minmax", "entropy", "percentile", "mse"]
Tracker = Literal["mlflow", "wandb"]
TeacherPrecision = Literal["same", "fp32", "bf16", "fp16"]
TeacherCache = Literal["none", "exact", "float16"]


class SyntheticConfig(Section):
    """Drawn street scenes: how many, how large."""

    train_images: PositiveInt = 256
    val_images: PositiveInt = 64
    height: Side = 128
    width: Side = 192
    seed: NonNegativeInt = 7


class DataConfig(Section):
    """Labelled images and how they reach the network."""

    layout: Layout = "synthetic"
    root: Path | None = None  # folder of the dataset; null only for synthetic
    train_split: str = "train"
    val_split: str = "val"
    preprocess: PreprocessSpec = PreprocessSpec(size=(128, 192))
    synthetic: SyntheticConfig = SyntheticConfig()
    skip_bad: NonNegativeInt = 0  # training refuses a set with more than this many bad pairs
    cache: Literal["none", "ram"] = "ram"  # keep decoded, resized pairs in memory (uint8)
    holdout: HoldoutConfig | None = None  # null: every image of the training split trains

    @model_serializer(mode="wrap")
    def _plain_without_holdout(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_younger(self, handler(self), ("holdout",))

    @model_validator(mode="after")
    def _real_data_has_a_root(self) -> DataConfig:
        if self.layout != "synthetic" and self.root is None:
            raise ValueError(f"layout '{self.layout}' needs 'root', the folder of the dataset")
        if self.train_split == self.val_split:
            raise ValueError(f"train_split and val_split are both '{self.val_split}': scores would be measured on training images")
        return self


class NetworkConfig(Section):
    """An architecture from segmentation_models_pytorch on an encoder from it or from timm."""

    arch: Architecture = "pspnet"
    encoder: str = "resnet18"
    output_stride: Literal[8, 16, 32] = 8  # 8 as in the papers; fpn and upernet ignore it
    encoder_weights: Literal["none", "imagenet"] | Path = "none"  # or a local .safetensors file of encoder weights


class TeacherConfig(NetworkConfig):
    """The teacher: trained here, or a ready bundle, which knows its own kind."""

    kind: TeacherKind = "network"
    encoder: str = "resnet50"  # the published label-assisted teacher is as large as its student: set it
    bundle: Path | None = None  # a finished teacher bundle; then nothing is trained
    drop_classes: bool = False  # of a bundle: leave out its classes that the dataset lacks, instead of refusing it
    external: External | None = None  # a checkpoint of another library: imported as a bundle; then nothing is trained
    iterations: PositiveInt | None = None  # null: train.iterations
    time_limit: PositiveFloat | None = None  # seconds; null: train.time_limit
    noising: NoisingConfig = NoisingConfig()  # of kind label_assisted
    smoothing: SmoothingConfig = SmoothingConfig()  # of kind smoothed_labels; its logits have this network's output_stride

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> TeacherConfig:
        if self.external is not None and (self.bundle is not None or self.kind != "network"):
            raise ValueError("'external' brings a network from elsewhere: expected no 'bundle' and no 'kind' beside it")
        if self.external is not None and self.drop_classes:
            raise ValueError("'drop_classes' is of a bundle; of what 'external' brings it is external.drop_classes")
        return self

    @model_validator(mode="after")
    def _settings_are_of_its_kind(self) -> TeacherConfig:
        own: dict[TeacherKind, tuple[str, Section]] = {
            "label_assisted": ("noising", NoisingConfig()),
            "smoothed_labels": ("smoothing", SmoothingConfig()),
        }
        for kind, (key, default) in own.items():
            if self.kind != kind and getattr(self, key) != default:
                raise ValueError(f"'{key}' belongs to kind '{kind}', and kind is '{self.kind}'")
        return self

    @model_serializer(mode="wrap")
    def _keys_of_its_kind(self, serialise: Any) -> dict[str, Any]:
        """A plain teacher has no more keys than before there were other kinds: runs from then are still the same run."""
        found: dict[str, Any] = serialise(self)
        unused = {"network": ("kind", "noising", "smoothing"), "label_assisted": ("smoothing",), "smoothed_labels": ("noising",)}
        imported = () if self.external is not None else ("external",)
        younger = () if self.drop_classes else ("drop_classes",)
        return {key: value for key, value in found.items() if key not in (*unused[self.kind], *imported, *younger)}


class StudentConfig(NetworkConfig):
    """The compact student."""

    init: Path | None = None  # a student bundle to start from


class TrainConfig(Section):
    """The optimisation, shared by teacher, baseline and student."""

    iterations: PositiveInt = 40_000
    time_limit: PositiveFloat | None = None  # seconds of training after which it ends early
    batch_size: PositiveInt = 8  # over all processes together
    crop: tuple[Side, Side] = (128, 192)  # (height, width), pixels at network scale
    scale: tuple[PositiveFloat, PositiveFloat] = (0.5, 2.0)  # random resize before the crop; CIRKD and mmseg recipes
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5  # probability of a horizontal flip
    color: bool = True  # photometric distortion, as mmseg
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveFloat = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    poly_power: NonNegativeFloat = 0.9
    min_lr: NonNegativeFloat = 1e-4  # mmseg floor
    warmup: NonNegativeInt = 0  # iterations of linear warm-up
    aux_weight: NonNegativeFloat = 0.4  # FCN head on stage 3, training only
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    clip_norm: PositiveFloat | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None  # decay of the weight average that is validated and shipped
    class_weights: Literal["none", "inverse_log"] | tuple[PositiveFloat, ...] = "none"
    channels_last: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: PositiveInt = 1
    workers: NonNegativeInt = 1  # loader processes per training process
    threads: PositiveInt | None = None  # CPU threads per process; null: torch's choice
    val_every: PositiveInt = 4000
    checkpoint_every: PositiveInt = 1000
    log_every: PositiveInt = 50
    compile: bool = False  # torch.compile the student and its teacher: minutes at the start for faster steps; needs a compiler
    track: tuple[Tracker, ...] = ()  # also tell these of the numbers: into the run folder, or where their own environment variables say

    @model_serializer(mode="wrap")
    def _plain_without_extras(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_younger(self, handler(self), ("compile", "track"))

    @model_validator(mode="after")
    def _batch_splits_over_devices(self) -> TrainConfig:
        if self.batch_size % self.devices:
            raise ValueError(f"batch_size {self.batch_size} does not divide over {self.devices} devices")
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale {list(self.scale)} is not [smallest, largest]")
        return self


class QuantizeConfig(Section):
    """Quantisation-aware training: the student learns through the INT8 graph of its target."""

    target: Int8Target
    images: PositiveInt = 64  # training images that set the activation ranges before the first step


class DistillConfig(Section):
    """What the student learns from its teacher besides the labels."""

    method: Method = Gdd()
    quantize: QuantizeConfig | None = None  # needs student.init: a trained student to go on from
    teacher_precision: TeacherPrecision = "same"  # of the teacher's forward pass; same: train.precision
    cache_teacher: TeacherCache = "none"  # keep its answers on disk, as they are or in float16; only where training pairs repeat
    cache_limit_gb: PositiveFloat = 20.0  # 10^9 bytes; a cache that would be larger is refused before training

    @model_serializer(mode="wrap")
    def _plain_without_extras(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_younger(self, handler(self), ("teacher_precision", "cache_teacher", "cache_limit_gb"))


class CalibrationConfig(Section):
    """Which training images set the INT8 ranges, and how."""

    images: PositiveInt = 128
    method: CalibrationMethod = "auto"
    seed: NonNegativeInt = 0
    balanced: bool = True  # draw images so that rare classes are seen; false: by seed alone
    scored_on: PositiveInt = 32  # held-out training images on which ``auto`` and recovery compare


class EngineConfig(Section):
    """How TensorRT engines are built."""

    builder: Builder = "auto"
    min_batch: PositiveInt = 1
    opt_batch: PositiveInt = 1
    max_batch: PositiveInt = 8
    workspace_mb: PositiveInt = 1024  # most scratch memory that a layer may take; 1 GiB also fits an 8 GB Orin
    optimization_level: Annotated[int, Field(ge=0, le=5)] = 3  # TensorRT's own default
    compute_capabilities: tuple[str, ...] = ()  # TensorRT-RTX only, e.g. ("8.6", "8.9"); empty: its portable default
    cache: bool = True  # keep timing results and finished engines for the next build of the same

    @model_validator(mode="after")
    def _batches_are_ordered(self) -> EngineConfig:
        if not self.min_batch <= self.opt_batch <= self.max_batch:
            raise ValueError(
                f"min_batch {self.min_batch}, opt_batch {self.opt_batch}, max_batch {self.max_batch}: expected min <= opt <= max"
            )
        return self


class ExportConfig(Section):
    """The files to make."""

    precisions: tuple[Precision, ...] = ("fp32", "int8")
    targets: tuple[Target, ...] = ("ort-cpu",)  # of the int8 artifacts; fp32 and fp16 serve any
    graphs: tuple[Graph, ...] = ("logits", "deploy")
    opset: Annotated[int, Field(ge=18, le=22)] = 20  # TensorRT 10.3 reads up to 20
    calibration: CalibrationConfig = CalibrationConfig()
    recover: bool = True  # where the INT8 gate fails on held-out training images, leave the worst blocks in high precision
    engines: bool = False  # also build TensorRT engines
    engine: EngineConfig = EngineConfig()

    @model_validator(mode="after")
    def _can_be_made(self) -> ExportConfig:
        # Refused before the training, not after it.
        if "int8" in self.precisions and "ort-cuda" in self.targets:
            raise ValueError(
                "int8 for 'ort-cuda' is not made: ONNX Runtime's CUDA provider computes float between Q and DQ; "
                "use fp16 there, or the target tensorrt"
            )
        if self.engines and "int8" in self.precisions and "tensorrt" not in self.targets:
            raise ValueError("engines from int8 need the target 'tensorrt' among export.targets")
        return self


class Limits(Section):
    """Limits of one parity rung; null means: reported, not judged."""

    min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None  # share of labelled pixels with the same class
    max_miou_drop: NonNegativeFloat | None = None  # points of mIoU
    max_class_drop: NonNegativeFloat | None = None  # points of IoU of the worst class
    min_sqnr_db: float | None = None  # logits against the reference's
    max_abs_diff: NonNegativeFloat | None = None  # logits
    min_boundary_agreement: Annotated[float, Field(ge=0, le=1)] | None = None  # within a few pixels of a class border
    min_confident_agreement: Annotated[float, Field(ge=0, le=1)] | None = None  # where the reference's top two are far apart
    max_p95_ms: PositiveFloat | None = None  # latency, where it was measured
    max_size_mb: PositiveFloat | None = None  # the file, in 10^6 bytes


class GatesConfig(Section):
    """The gate of each precision."""

    fp32: Limits = Limits(min_agreement=0.9999, max_miou_drop=0.05, min_sqnr_db=90.0, max_abs_diff=1e-3)
    fp16: Limits = Limits(min_agreement=0.995, max_miou_drop=0.1, min_sqnr_db=55.0)
    int8: Limits = Limits(min_agreement=0.975, max_miou_drop=1.0, max_class_drop=3.0, min_sqnr_db=20.0)


class RunConfig(Section):
    """Everything a run is: its digest names it."""

    name: Annotated[str, Field(pattern=r"^[^./\x00][^/\x00]*$")] = "run"  # also a folder's name: runs/NAME
    seed: NonNegativeInt = 0
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    train: TrainConfig = TrainConfig()
    distill: DistillConfig = DistillConfig()
    export: ExportConfig = ExportConfig()
    gates: GatesConfig = GatesConfig()
    bench: BenchConfig = BenchConfig()
    compare: CompareConfig = CompareConfig()

    @model_serializer(mode="wrap")
    def _plain_without_comparison(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A run that compares nothing reads, and is named by its digest, as before there were comparisons."""
        settings: dict[str, Any] = handler(self)
        return settings if self.compare != CompareConfig() else {key: value for key, value in settings.items() if key != "compare"}

    @model_validator(mode="after")
    def _quantised_training_has_a_start(self) -> RunConfig:
        if self.distill.quantize is not None and self.student.init is None:
            raise ValueError("distill.quantize goes on from a trained student: name its bundle with --init, or set student.init")
        if self.distill.quantize is not None and self.train.compile:
            raise ValueError("distill.quantize and train.compile: the INT8 graph does not compile; leave one of them out")
        return self
