"""The parts of a latency row: the split, the load, sensors, memory, work and limits. None and () mean: not measured."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from typing_extensions import Self

Arrival = Literal["poisson", "fixed"]


@dataclass(frozen=True)
class Span:
    """One stage of the way from a file to a mask, per batch."""

    p50_ms: float
    p95_ms: float
    mean_ms: float
    samples: int

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read back ``dataclasses.asdict``."""
        return cls(**value)


@dataclass(frozen=True)
class Split:
    """Where the time goes. The stages were timed apart, in the same turns; their sum is not the end-to-end time to the microsecond."""

    decode: Span | None = None  # compressed files in memory to pixels
    preprocess: Span | None = None  # pixels to the network's input
    host_to_device: Span | None = None
    inference: Span | None = None  # computing alone; on a CPU that is the runtime's whole call
    device_to_host: Span | None = None
    postprocess: Span | None = None  # the network's output to masks of the images' own sizes
    by: str = "wall clock"  # how copies and computing were told apart: "wall clock" or "CUDA events"

    @property
    def stages(self) -> dict[str, Span | None]:
        """The stages in order, by name."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "by"}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read back ``dataclasses.asdict``."""
        given: dict[str, Any] = {name: Span.from_json(found) if isinstance(found, dict) else found for name, found in value.items()}
        return cls(**given)


@dataclass(frozen=True)
class Load:
    """Calls that arrive by a schedule, whether or not the one before was answered."""

    arrival: Arrival
    seed: int
    rate: float  # calls per second that arrive, each of one batch
    throughput: float  # images per second that were answered
    service_p50_ms: float  # median of the call itself, without waiting
    searched: bool = False  # whether ``rate`` is the highest one found to keep the bound, or was given
    bound_ms: float | None = None  # limit on p99; None: none was set
    kept: bool | None = None  # whether p99 of all turns stayed within the bound
    trials: tuple[tuple[float, float | None], ...] = ()  # (rate, p99 in ms) of each trial of the search; None: given up, over the bound

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read back ``dataclasses.asdict``."""
        return cls(**{**value, "trials": tuple((rate, p99) for rate, p99 in value.get("trials", ()))})


@dataclass(frozen=True)
class Range:
    """Smallest, median and largest of what a sensor said."""

    low: float
    median: float
    high: float

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read back ``dataclasses.asdict``."""
        return cls(**value)


@dataclass(frozen=True)
class Sensed:
    """What the sensors said while this row's turns ran."""

    cpu_mhz: Range | None = None  # of the CPUs that the process was pinned to
    gpu_mhz: Range | None = None
    memory_mhz: Range | None = None  # of the GPU's memory
    throttle: tuple[str, ...] | None = None  # reasons seen; (): looked, and there was none; None: nobody tells
    temperature_c: dict[str, tuple[float, float]] | None = None  # sensor -> (at the start, at the end)
    power_w: float | None = None  # mean over the timed calls, of what ``power_source`` covers
    power_source: str = ""  # "NVML, the board of GPU 0", "VDD_IN, the module's input", "RAPL, package-0"
    rails_w: dict[str, float] | None = None  # every rail by its label; they overlap, and are never added
    energy_per_image_j: float | None = None  # integral of the power over the timed calls, by images; steady runs alone
    energy_why_not: str = ""  # where power is known and energy is not

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read back ``dataclasses.asdict``."""
        given = dict(value)
        for name in ("cpu_mhz", "gpu_mhz", "memory_mhz"):
            if given.get(name) is not None:
                given[name] = Range.from_json(given[name])
        if given.get("throttle") is not None:
            given["throttle"] = tuple(given["throttle"])
        if given.get("temperature_c") is not None:
            given["temperature_c"] = {name: (float(pair[0]), float(pair[1])) for name, pair in given["temperature_c"].items()}
        return cls(**given)


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    peak_rss: int | None = None  # of the process that ran it, Python and its libraries included
    device: int | None = None  # by which the device's used memory grew from before the process to after warm-up
    device_source: str = ""  # "NVML" or "MemAvailable" (Jetson: one memory for both)
    activations: int | None = None  # what a TensorRT engine says it needs beside its weights

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read back ``dataclasses.asdict``."""
        return cls(**value)


@dataclass(frozen=True)
class Work:
    """What one call, of one batch, computes and moves."""

    macs: int | None = None  # multiply-accumulates of convolutions and matrix products
    bytes: int | None = None  # read and written by the kernels, tensor by tensor, weights included
    source: str = ""  # how they were counted

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read back ``dataclasses.asdict``."""
        return cls(**value)


@dataclass(frozen=True)
class Limit:
    """The best that a short probe reached on the same device with the same threads: a yardstick, not a peak from a data sheet."""

    macs_per_s: float | None = None  # of a matrix product
    arithmetic: str = ""  # "fp32 MatMul 512 on ONNX Runtime cpu, 2 threads"
    bytes_per_s: float | None = None  # read plus written by a copy
    copy: str = ""  # "64 MB by numpy, 2 threads"

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read back ``dataclasses.asdict``."""
        return cls(**value)
