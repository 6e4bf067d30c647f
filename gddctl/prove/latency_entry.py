"""One case while it is being timed: what its process said, turn by turn, and the rows that come of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gddctl.core.artifact.card import WEIGHTS_NAME
from gddctl.core.config.bench import BenchConfig, ScenarioName
from gddctl.core.errors import UsageError, VerdictError
from gddctl.core.reports.latency import LatencyRow
from gddctl.core.reports.latency_parts import Load, Memory, Span, Split
from gddctl.prove.bench_plan import Case
from gddctl.prove.latency_channel import WorkerChannel
from gddctl.prove.load import search_rate
from gddctl.prove.regression import Key
from gddctl.prove.sampling import NS_PER_MS, summarise
from gddctl.prove.sensors.reading import Sensor
from gddctl.prove.sensors.sampler import Sampler, Trace
from gddctl.prove.sensors.summary import sensed

MIN_WARMUP_SECONDS = 2.0
PATIENCE = 10.0  # a turn may take this many times what warm-up promised
DEFAULT_BOUND = 3.0  # p99 under load, in medians of one call, where no bound was named: waiting at most twice as long as working
STEPS_DOWN = 3  # a rate that the turns do not confirm is lowered this often
STEP_DOWN = 0.9
_STAGES = ("decode", "preprocess", "host_to_device", "inference", "device_to_host", "postprocess")


@dataclass
class Turns:
    """What the turns of one scenario gave. Milliseconds."""

    scenario: ScenarioName
    samples: list[NDArray[np.float64]] = field(default_factory=list)  # per turn
    service: list[NDArray[np.float64]] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _STAGES})
    by: str = ""
    cpu_ns: int = 0
    waiting_ns: int | None = 0  # None: the kernel does not tell
    windows: list[list[tuple[int, int]]] = field(default_factory=list)  # of the timed calls, nanoseconds, per turn
    traces: list[Trace] = field(default_factory=list)

    def add(self, answer: dict[str, Any], trace: Trace) -> None:
        """One turn more."""
        self.samples.append(np.asarray(answer["inference_ns"], dtype=np.float64) / NS_PER_MS)
        if "service_ns" in answer:
            self.service.append(np.asarray(answer["service_ns"], dtype=np.float64) / NS_PER_MS)
        self.cpu_ns += answer.get("cpu_ns", 0)
        waited = answer.get("waiting_ns")
        self.waiting_ns = None if self.waiting_ns is None or waited is None else self.waiting_ns + waited
        for name, values in answer["parts"].items():
            if name == "by":
                self.by = values
            else:
                self.parts[name] += [value / NS_PER_MS for value in values]
        self.windows.append([(answer["window"][0], answer["window"][1])])
        self.traces.append(trace)

    @property
    def busy_cpus(self) -> float | None:
        """CPU seconds per second of the timed calls; under load the process sleeps in between, which says nothing."""
        wall = sum(end - start for spans in self.windows for start, end in spans)
        return self.cpu_ns / wall if self.scenario == "one-at-a-time" and wall else None

    @property
    def waiting_cpus(self) -> float | None:
        """Seconds that its threads waited for a CPU per second of the timed calls."""
        wall = sum(end - start for spans in self.windows for start, end in spans)
        return self.waiting_ns / wall if self.waiting_ns is not None and self.scenario == "one-at-a-time" and wall else None

    def split(self, backend: str) -> Split:
        """Where the time goes; on a CPU, computing is the whole call."""
        on_device = bool(self.parts["host_to_device"])
        calls = np.concatenate(self.service or self.samples)
        found = {name: _span(values) for name, values in self.parts.items()}
        found["inference"] = found["inference"] if on_device else None if not backend.endswith("-cpu") else _span(calls)
        return Split(**found, by=self.by or "wall clock")


@dataclass
class Entry:
    """One case and its process."""

    case: Case
    channel: WorkerChannel
    config: BenchConfig
    started: str
    before: Mapping[Key, float] = field(default_factory=dict)  # rates of rows to compare with, calls per second
    described: dict[str, Any] = field(default_factory=dict)
    finished: dict[str, Any] = field(default_factory=dict)
    warmup_samples: int = 0
    stable: bool = False
    call_seconds: float = 0.0  # median of one call, as warm-up left it
    rate: float = 0.0
    trials: list[tuple[float, float | None]] = field(default_factory=list)
    turns: dict[str, Turns] = field(default_factory=dict)
    device_memory: int | None = None
    device_memory_source: str = ""

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a device of its own."""
        return not self.described["backend"].endswith("-cpu")

    @property
    def given(self) -> float | None:
        """The rate under load, calls per second, where it is not searched for: as named, or that of the row to compare with."""
        return self.config.rate if self.config.rate is not None else self.before.get(self._key)

    @property
    def _key(self) -> Key:
        said, info, case = self.described, self.described["info"], self.case
        return Key(
            model=said["model"], graph=info["graph"], precision=info["precision"], target=info["target"], backend=said["backend"],
            batch=case.batch, input_size=(said["input_size"][0], said["input_size"][1]), scenario="offered-load",
            cuda_graph=case.cuda_graph if self.on_gpu else None,
        )  # fmt: skip

    def open(self, images: Path, files: Sequence[Path]) -> None:
        """Load the artifact and answer one batch."""
        case = self.case
        self.described = self.channel.ask(
            "open", path=str(case.path.absolute()), device=case.device, threads=self.config.threads, batch=case.batch,
            images=str(images), files=[str(path.absolute()) for path in files], cuda_graph=case.cuda_graph,
        )  # fmt: skip
        self.turns = {name: Turns(name) for name in self.config.scenarios}

    def warm(self) -> None:
        """Call until the median is stable."""
        seconds = max(MIN_WARMUP_SECONDS, self.config.seconds)
        answer = self.channel.ask("warm", patience=seconds, seconds=seconds)
        self.warmup_samples, self.stable = answer["samples"], answer["stable"]
        self.call_seconds = answer["median_ns"] / 1e9
        self._check_load()

    @property
    def bound_ms(self) -> float:
        """The limit on p99 under load."""
        return self.config.max_p99_ms if self.config.max_p99_ms is not None else DEFAULT_BOUND * self.call_seconds * 1000.0

    def find_rate(self) -> None:
        """Under load: the rate that is given, or the highest one that keeps the bound."""
        if "offered-load" not in self.config.scenarios:
            return
        if self.given is not None:
            self.rate = self.given
            return
        found = search_rate(self._trial, bound_ms=self.bound_ms, capacity=1.0 / self.call_seconds)
        self.trials += found.trials
        self.rate = found.rate or min(rate for rate, _ in found.trials)

    def turn(self, scenario: ScenarioName, sensors: Sequence[Sensor]) -> None:
        """One turn, with the sensors read meanwhile."""
        config = self.config
        with Sampler(sensors) as sampler:
            if scenario == "one-at-a-time":
                samples, seconds = math.ceil(config.samples / config.rounds), config.seconds / config.rounds
                patience = seconds + PATIENCE * samples * self.call_seconds
                answer = self.channel.ask("turn", patience=patience, samples=samples, seconds=seconds)
            else:
                answer = self._load(self._calls(config.rounds), seed=config.seed + len(self.turns[scenario].samples), trial=False)
        self.warmup_samples += answer["settle_samples"]
        self.turns[scenario].add(answer, sampler.trace)

    def step_down(self) -> bool:
        """Whether the searched rate was not confirmed by its turns, and was lowered: the turns are to be run again."""
        if "offered-load" not in self.turns or self.given is not None or self._kept():
            return False
        turns = self.turns["offered-load"]
        self.trials.append((self.rate, float(np.percentile(np.concatenate(turns.samples), 99))))
        self.turns["offered-load"] = Turns("offered-load")
        self.rate *= STEP_DOWN
        return True

    def finish(self) -> None:
        """What is known only after the runs."""
        self.finished = self.channel.ask("finish")

    def rows(self, mious: Mapping[str, float]) -> list[LatencyRow]:
        """One row per scenario."""
        return [self._row(turns, mious) for turns in self.turns.values()]

    def _row(self, turns: Turns, mious: Mapping[str, float]) -> LatencyRow:
        said, info, samples, config = self.described, self.described["info"], np.concatenate(turns.samples), self.config
        summary, path = summarise(samples), self.case.path
        environment = {**said["environment"], **self.finished["environment"]}
        return LatencyRow(
            model=said["model"], sha256=said["sha256"], backend=said["backend"], graph=info["graph"], precision=info["precision"],
            target=info["target"], batch=self.case.batch, input_size=(said["input_size"][0], said["input_size"][1]),
            p50_ms=summary.p50, p90_ms=summary.p90, p95_ms=summary.p95, p99_ms=summary.p99, mean_ms=summary.mean, std_ms=summary.std,
            min_ms=summary.min, samples=samples.size, warmup_samples=self.warmup_samples,
            preprocess_p50_ms=float(np.median(turns.parts["preprocess"])),
            rounds_p50_ms=tuple(float(np.median(turn)) for turn in turns.samples),
            rounds_p99_ms=tuple(float(np.percentile(turn, 99)) for turn in turns.samples),
            miou=mious.get(said["sha256"]),
            environment={**environment, "warm_up": "stable" if self.stable else "ended by time", "measured": self.started},
            scenario=turns.scenario, load=self._load_of(turns) if turns.scenario == "offered-load" else None,
            split=turns.split(said["backend"]), transfers=True if self.on_gpu else None, cuda_graph=self._graph(environment),
            stable=self.stable, threads=config.threads, busy_cpus=turns.busy_cpus, waiting_cpus=turns.waiting_cpus,
            file=path.name,
            file_bytes=(path / WEIGHTS_NAME if path.is_dir() else path).stat().st_size,
            verified="" if path.is_dir() else verified_words(info["census"]), weights_sha256=info["weights_sha256"],
            calibration_sha256=info["calibration_sha256"], opset=said["opset"], build_seconds=said["build_seconds"],
            max_ms=float(samples.max()),
            sensed=sensed(turns.traces, turns.windows, images=samples.size * self.case.batch, on_gpu=self.on_gpu, steady=self.stable),
            memory=Memory(
                self.finished["peak_rss"], self.device_memory, self.device_memory_source, _int(environment.get("activation bytes"))
            ),
        )  # fmt: skip

    def _load_of(self, turns: Turns) -> Load:
        answered = sum(turn.size for turn in turns.samples) * self.case.batch
        seconds = sum(end - start for spans in turns.windows for start, end in spans) / 1e9
        searched, service = self.given is None, float(np.median(np.concatenate(turns.service)))
        bounded = searched or self.config.max_p99_ms is not None
        return Load(
            arrival=self.config.arrival, seed=self.config.seed, rate=self.rate, throughput=answered / seconds, service_p50_ms=service,
            searched=searched, bound_ms=self.bound_ms if bounded else None, kept=self._kept() if bounded else None,
            trials=tuple(self.trials),
        )  # fmt: skip

    def _graph(self, environment: Mapping[str, str]) -> bool | None:
        if not self.on_gpu:
            return None
        return environment.get("cuda graph", "off") in ("recorded", "the library's own")

    def _kept(self) -> bool:
        turns = self.turns["offered-load"]
        return bool(np.percentile(np.concatenate(turns.samples), 99) <= self.bound_ms)

    def _trial(self, rate: float) -> float | None:
        self.rate = rate
        answer = self._load(self._calls(2), seed=self.config.seed + 1000 + len(self.trials), trial=True)
        self.warmup_samples += answer["settle_samples"] + len(answer["inference_ns"])
        return None if answer["given_up"] else float(np.percentile(answer["inference_ns"], 99)) / NS_PER_MS

    def _load(self, count: int, *, seed: int, trial: bool) -> dict[str, Any]:
        patience = PATIENCE * count * max(self.call_seconds, 1.0 / self.rate)
        return self.channel.ask(
            "load", patience=patience, arrival=self.config.arrival, rate=self.rate, count=count, seed=seed,
            bound_ns=self.bound_ms * NS_PER_MS if trial else None, trial=trial,
        )  # fmt: skip

    def _calls(self, parts: int) -> int:
        """Calls of one of ``parts`` turns: enough for the samples and the seconds asked for."""
        return math.ceil(max(self.config.samples, self.config.seconds * self.rate) / parts)

    def _check_load(self) -> None:
        """Refuse, before minutes of measuring, what cannot be kept.

        Raises:
            UsageError: a rate beyond what one call after another answers, or a bound below one call.
            VerdictError: the rate of before is beyond what is answered now.
        """
        if "offered-load" not in self.config.scenarios:
            return
        median_ms, rate, bound = self.call_seconds * 1000.0, self.given, self.config.max_p99_ms
        if rate is not None and rate * self.call_seconds >= 1.0:
            if self.config.rate is None:
                raise VerdictError(
                    f"{self.case}: slower than before, or other work has the machine: {rate:.4g} calls a second were answered then; "
                    f"one takes {median_ms:.2f} ms now, so that at most {1.0 / self.call_seconds:.1f} a second are",
                    remedy="bench it with --scenario one-at-a-time --compare to tell which",
                )
            raise UsageError(
                f"{self.case}: {rate:g} calls a second cannot last: one takes {median_ms:.2f} ms, so that at most "
                f"{1.0 / self.call_seconds:.1f} a second are answered and the queue would grow for as long as it is measured",
                remedy=f"a --rate below {0.95 / self.call_seconds:.3g}, or none, to search for the highest that keeps --max-p99",
            )
        if bound is not None and bound <= median_ms:
            raise UsageError(
                f"{self.case}: p99 within {bound:g} ms cannot be kept at any rate: one call alone takes {median_ms:.2f} ms",
                remedy=f"a --max-p99 above {median_ms:.3g} ms, a smaller batch, or a faster file",
            )


def verified_words(census: Mapping[str, int]) -> str:
    """What a file holds, by the census made of it: its convolutions by what they compute in.

    >>> verified_words({"conv.int8": 25, "conv.float": 1})
    'int8 25 of 26 convolutions'
    """
    convolutions = {name.removeprefix("conv."): count for name, count in census.items() if name.startswith("conv.") and count}
    total = sum(convolutions.values())
    if not total:
        return ""
    most = max(convolutions, key=lambda name: convolutions[name])
    return f"{'fp32' if most == 'float' else most} {convolutions[most]} of {total} convolutions"


def _span(values: Sequence[float] | NDArray[np.float64]) -> Span | None:
    array = np.asarray(values, dtype=np.float64)
    if not array.size:
        return None
    p50, p95 = np.percentile(array, (50, 95))
    return Span(float(p50), float(p95), float(array.mean()), array.size)


def _int(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
