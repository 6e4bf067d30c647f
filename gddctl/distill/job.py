"""One training, said in plain values: what the pipeline hands over, and what worker processes read from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveFloat, field_validator, model_validator

from gddctl.core.artifact.card import Role
from gddctl.core.config.label_assisted import NoisingConfig, SmoothingConfig, TeacherKind
from gddctl.core.config.load import to_settings
from gddctl.core.config.methods import Method, NoMethod
from gddctl.core.config.sections import DataConfig, NetworkConfig, QuantizeConfig, TeacherCache, TeacherPrecision, TrainConfig
from gddctl.core.section import Section


class TrainJob(Section):
    """Train one network; :func:`gddctl.distill.run.run_job` does it."""

    role: Role
    kind: TeacherKind = "network"  # what the bundle will be
    noising: NoisingConfig | None = (
        None  # of label_assisted: how it trains; of a student: how its teacher's labels are noised, if not as its card says
    )
    smoothing: SmoothingConfig | None = None  # of smoothed_labels
    name: str = ""  # of the bundle; empty: its role
    network: NetworkConfig
    data: DataConfig
    train: TrainConfig
    seed: NonNegativeInt = 0
    method: Method | None = None  # None and NoMethod: labels only
    teacher: Path | None = None  # bundle
    drop_classes: bool = False  # leave out classes that only the teacher has, instead of refusing it
    init: Path | None = None  # bundle to start from
    quantize: QuantizeConfig | None = None  # train through the INT8 graph; needs init
    teacher_precision: TeacherPrecision = "same"
    cache_teacher: TeacherCache = "none"
    cache_limit_gb: PositiveFloat = 20.0
    keep: Literal["best", "last"] = "best"  # which weights the bundle holds: of the best validation, or of the last step
    out: Path
    config_digest: str = ""

    @field_validator("network", mode="before")
    @classmethod
    def _plain_network(cls, value: Any) -> Any:
        """Only what describes the network: a teacher's or student's section has more keys, which do not belong here."""
        if isinstance(value, NetworkConfig) and type(value) is not NetworkConfig:
            return NetworkConfig(**{key: getattr(value, key) for key in NetworkConfig.model_fields})
        return value

    @model_validator(mode="after")
    def _method_has_a_teacher(self) -> TrainJob:
        if self.distils and self.teacher is None:
            raise ValueError("a distillation method needs 'teacher', the folder of a teacher bundle")
        return self

    @model_validator(mode="after")
    def _quantised_training_has_a_start(self) -> TrainJob:
        if self.quantize is not None and self.init is None:
            raise ValueError("'quantize' needs 'init', the folder of a trained student's bundle")
        return self

    @model_validator(mode="after")
    def _quantised_training_is_not_compiled(self) -> TrainJob:
        if self.quantize is not None and self.train.compile:
            raise ValueError("'train.compile' and 'quantize': the INT8 graph does not compile; leave one of them out")
        return self

    @model_validator(mode="after")
    def _kind_has_its_settings(self) -> TrainJob:
        if (self.kind == "label_assisted" and self.noising is None) or (self.kind == "smoothed_labels" and self.smoothing is None):
            raise ValueError(f"kind '{self.kind}' needs its settings: 'noising' of label_assisted, 'smoothing' of smoothed_labels")
        return self

    @property
    def distils(self) -> bool:
        """Whether a teacher takes part."""
        return self.method is not None and not isinstance(self.method, NoMethod)

    @property
    def bundle(self) -> Path:
        """Where the finished bundle stands."""
        return self.out / self.role

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints stand."""
        return self.out / "checkpoints" / self.role

    def identity(self) -> dict[str, Any]:
        """What must not change between two sittings of the same training, as JSON values."""
        settings = to_settings(self)
        for key in ("out", "name", "config_digest", "cache_limit_gb"):
            settings.pop(key)
        settings["train"].pop("track", None)  # who is told of a training is no part of it
        if self.cache_teacher != "float16":  # an exact cache changes nothing but the time
            settings.pop("cache_teacher")
        if self.teacher_precision == "same":
            settings.pop("teacher_precision")
        if self.quantize is None:
            settings.pop("quantize")  # checkpoints from before there was such a key are still the same training
        if self.keep == "best":
            settings.pop("keep")
        if not self.drop_classes:
            settings.pop("drop_classes")
        for key, default in (("kind", "network"), ("noising", None), ("smoothing", None)):
            if settings[key] == default:
                settings.pop(key)
        return settings
