"""Settings of how latency is measured."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from gddctl.core.section import Section

BenchDevice = Literal["cpu", "cuda", "tensorrt", "openvino"]
ScenarioName = Literal["one-at-a-time", "offered-load"]
# Settings that came after the first files with this section.
_LATER = ("devices", "scenarios", "arrival", "seed", "rate", "max_p99_ms", "cuda_graph", "probe")


class BenchConfig(Section):
    """How latency is measured."""

    threads: PositiveInt = 2
    batch: PositiveInt | tuple[PositiveInt, ...] = 1  # one row for each
    samples: PositiveInt = 200  # at least, per row and scenario
    seconds: NonNegativeFloat = 10.0  # at least, per row and scenario
    rounds: PositiveInt = 3  # turns each row takes
    torch: bool = True  # also time the PyTorch student
    devices: tuple[BenchDevice, ...] = ("cpu",)  # each file on each of them that it is for; engines run on the GPU whatever this says
    scenarios: tuple[ScenarioName, ...] = ("one-at-a-time",)
    arrival: Literal["poisson", "fixed"] = "poisson"  # of calls in the scenario offered-load
    seed: NonNegativeInt = 0  # of the Poisson arrivals
    rate: PositiveFloat | None = None  # calls per second; null: the highest rate that keeps p99 is searched for
    max_p99_ms: PositiveFloat | None = None  # the bound; null: three times the median of one call
    cuda_graph: Literal["off", "on", "both"] = "off"  # of engines
    probe: bool = True  # also find what the machine reaches in a matrix product and a copy

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes, each once, in the order given."""
        return tuple(dict.fromkeys((self.batch,) if isinstance(self.batch, int) else self.batch))

    @model_validator(mode="after")
    def _something_to_measure(self) -> BenchConfig:
        if not self.batches or not self.devices or not self.scenarios:
            raise ValueError("batch, devices and scenarios: expected at least one of each")
        return self

    @model_serializer(mode="wrap")
    def _plain_without_later_settings(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings from before there were these keys read, and are named by their digest, as they always were."""
        settings: dict[str, Any] = handler(self)
        unused = [key for key in _LATER if getattr(self, key) == type(self).model_fields[key].default]
        return {key: value for key, value in settings.items() if key not in unused}
