"""ONNX to a TensorRT engine, by TensorRT 10.3 to 11.x or TensorRT-RTX on one path. Needs neither torch nor onnx."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gddctl.core.artifact.engine import EngineRecord, write_record
from gddctl.core.artifact.info import ModelInfo
from gddctl.core.artifact.manifest import Artifact
from gddctl.core.config.sections import EngineConfig
from gddctl.core.digest import sha256_file
from gddctl.core.errors import ArtifactError, RunFailed
from gddctl.core.files import atomic_path
from gddctl.export.trt import cache
from gddctl.export.trt.census import check_engine_census, count_layers, engine_census
from gddctl.export.trt.device import BuildDevice, build_device, capability_name
from gddctl.export.trt.network import Parsed, parse_network
from gddctl.export.trt.progress import Progress, held_interrupts, logged_progress, make_monitor
from gddctl.export.trt.resources import check_resources
from gddctl.runtime.onnx_header import read_header
from gddctl.runtime.trt_bindings import Bindings, find_bindings, last_errors

log = logging.getLogger(__name__)

_RECIPE = 1  # raised when the way engines are built changes, so that older ones in the cache are left alone
_FLAGS = ("STRONGLY_TYPED", "TF32 off")


def build_engine(artifact: Artifact, out: Path, config: EngineConfig, *, progress: Progress | None = None) -> Artifact:
    """Build ``out`` and its sidecar from an ONNX artifact; both are written whole, or nothing is.

    Args:
        artifact: an ONNX file of ours, of any precision that TensorRT runs; precision is taken from the file, never added here.
        out: the ``.engine`` file.
        config: builder, batch profile, limits.
        progress: told the phase and its steps while the builder works; None writes them to the log now and then.

    Raises:
        ArtifactError: the file was changed, is INT8 for another runtime, does not parse, or is not of the precision it is called.
        EnvironmentMissing: no TensorRT, or TensorRT proper without a GPU.
        RunFailed: too little memory or disk, or the builder failed.
        UsageError: a compute capability that this builder does not know.
    """
    _check_source(artifact)
    bindings = find_bindings(config.builder)
    device = build_device(bindings, config.compute_capabilities)
    check_resources(artifact.path.stat().st_size, out.parent, tunes=not bindings.is_rtx)
    key = cache.engine_key(_key_parts(artifact, bindings, device, config))
    record = cache.fetch(key, out) if config.cache else None
    if record is not None:
        log.info("engine cache: %s taken from there", out.name)
        record = record.model_copy(update={"onnx": artifact.path.name, "info": _engine_info(artifact, dict(record.info.census))})
    else:
        log.info("engine: building %s with %s for %s", out.name, bindings.name, device.name)
        record = _build(artifact, out, config, bindings, device, progress or logged_progress())
        if config.cache:
            cache.store(key, out, record)
    write_record(out, record)
    return Artifact(path=out, sha256=record.engine_sha256, format="engine", info=record.info)


def _check_source(artifact: Artifact) -> None:
    path, info = artifact.path, artifact.info
    if artifact.format != "onnx":
        raise ArtifactError(f"{path}: an engine is built from an ONNX file, this is an {artifact.format}", remedy="name the .onnx file")
    if not path.is_file() or sha256_file(path) != artifact.sha256:
        raise ArtifactError(f"{path}: gone, or changed since it was made ({artifact.sha256[:12]}…)", remedy="export it again")
    if info.precision == "int8" and info.target != "tensorrt":
        raise ArtifactError(
            f"{path}: quantised for '{info.target}'; TensorRT takes symmetric codes and float biases only",
            remedy="export the INT8 file for it: gddctl export BUNDLE --precision int8 --target tensorrt",
        )
    read_header(path)  # a file that ends too early is named as such, before a parser says it in its own words


def _build(
    artifact: Artifact, out: Path, config: EngineConfig, bindings: Bindings, device: BuildDevice, progress: Progress
) -> EngineRecord:
    with held_interrupts():
        parsed = parse_network(bindings, artifact.path, artifact.info)
    census = engine_census(parsed.network)
    check_engine_census(census, artifact.info.precision, str(out), kept=len(artifact.info.kept))
    batches = _Batches.of(parsed, config)
    start = time.monotonic()
    plan = _serialize(parsed, config, device, batches, progress)
    seconds = time.monotonic() - start
    with atomic_path(out) as temporary:
        temporary.write_bytes(plan)
        sha256, size = sha256_file(temporary), temporary.stat().st_size
    return EngineRecord(
        info=_engine_info(artifact, census),
        builder=bindings.builder,
        version=bindings.version,
        device=device.name,
        compute_capabilities=device.compute_capabilities,
        flags=_FLAGS,
        min_batch=batches.smallest,
        opt_batch=batches.usual,
        max_batch=batches.largest,
        workspace_mb=config.workspace_mb,
        optimization_level=config.optimization_level,
        onnx=artifact.path.name,
        onnx_sha256=artifact.sha256,
        engine_sha256=sha256,
        engine_bytes=size,
        layers=count_layers(parsed.network),
        build_seconds=round(seconds, 3),
    )


@dataclass(frozen=True)
class _Batches:
    """The batch sizes an engine answers."""

    smallest: int
    usual: int
    largest: int
    fixed: bool

    @classmethod
    def of(cls, parsed: Parsed, config: EngineConfig) -> _Batches:
        fixed = parsed.fixed_batch
        return cls(config.min_batch, config.opt_batch, config.max_batch, False) if fixed is None else cls(fixed, fixed, fixed, True)


def _serialize(parsed: Parsed, config: EngineConfig, device: BuildDevice, batches: _Batches, progress: Progress) -> Any:
    """The engine's bytes, as a buffer of the library."""
    trt, logger = parsed.bindings.trt, parsed.logger
    settings = _settings(parsed, config, device, batches)
    timings = None if parsed.bindings.is_rtx else _use_timings(parsed, settings, config, device)  # RTX times nothing while it builds
    with held_interrupts() as state:
        monitor = make_monitor(trt, state, progress)
        if monitor is not None:
            settings.progress_monitor = monitor
        plan = parsed.builder.build_serialized_network(parsed.network, settings)
    if plan is None or plan.nbytes == 0:
        raise RunFailed(f"{parsed.bindings.name} could not build the engine: {last_errors(logger)}", remedy=_remedy(logger.errors))
    if timings is not None:
        cache.write_timings(timings, bytes(settings.get_timing_cache().serialize()))
    return plan


def _settings(parsed: Parsed, config: EngineConfig, device: BuildDevice, batches: _Batches) -> Any:
    """The builder's settings. No precision among them: a strongly typed network has its own."""
    trt = parsed.bindings.trt
    settings = parsed.builder.create_builder_config()
    settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, config.workspace_mb * 2**20)
    settings.clear_flag(trt.BuilderFlag.TF32)  # FP32 means 23 bits of mantissa
    settings.builder_optimization_level = config.optimization_level
    if not batches.fixed:
        profile = parsed.builder.create_optimization_profile()
        shapes = [(size, *parsed.image_shape) for size in (batches.smallest, batches.usual, batches.largest)]
        profile.set_shape("image", *shapes)
        if settings.add_optimization_profile(profile) < 0:
            raise RunFailed(f"{parsed.bindings.name} refuses the batch profile {shapes}: {last_errors(parsed.logger)}")
    if device.compute_capabilities and parsed.bindings.is_rtx:
        settings.num_compute_capabilities = len(device.compute_capabilities)
        for place, number in enumerate(device.compute_capabilities):
            if not settings.set_compute_capability(getattr(trt.ComputeCapability, capability_name(number)), place):
                raise RunFailed(f"{parsed.bindings.name} refuses compute capability {number}: {last_errors(parsed.logger)}")
    return settings


def _use_timings(parsed: Parsed, settings: Any, config: EngineConfig, device: BuildDevice) -> str | None:
    """Hand the builder what it measured before on this very device; its name, when it may be kept again."""
    if not config.cache:
        return None
    bindings = parsed.bindings
    name = cache.engine_key(
        {"builder": bindings.builder, "version": bindings.version, "device": device.name, "sm": device.compute_capabilities}
    )
    for data in (cache.read_timings(name), b""):  # one that is damaged or of another build is refused: then an empty one
        timings = settings.create_timing_cache(data)
        if timings is not None and settings.set_timing_cache(timings, False):
            return name
    return None


def _key_parts(artifact: Artifact, bindings: Bindings, device: BuildDevice, config: EngineConfig) -> dict[str, Any]:
    return {
        "recipe": _RECIPE,
        "onnx": artifact.sha256,
        "checked_as": (artifact.info.precision, len(artifact.info.kept)),  # what its census was held against
        "builder": bindings.builder,
        "version": bindings.version,
        "device": device.name,
        "compute_capabilities": device.compute_capabilities,
        "flags": _FLAGS,
        "batches": (config.min_batch, config.opt_batch, config.max_batch),
        "workspace_mb": config.workspace_mb,
        "optimization_level": config.optimization_level,
    }


def _engine_info(artifact: Artifact, census: dict[str, int]) -> ModelInfo:
    return artifact.info.model_copy(update={"target": "tensorrt", "parent_sha256": artifact.sha256, "census": census})


def _remedy(errors: list[str]) -> str:
    text = " ".join(errors).lower()
    if "memory" in text or "workspace" in text:
        return "give it more with --workspace MB (export.engine.workspace_mb), or close other programs on the GPU"
    return "see: gddctl doctor; a smaller largest batch (--batch) may help"
