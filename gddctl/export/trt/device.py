"""For which device an engine is built: the GPU that is here, or for TensorRT-RTX those that were named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gddctl.core.artifact.engine import PORTABLE
from gddctl.core.errors import EnvironmentMissing, UsageError
from gddctl.runtime.cuda import Cuda
from gddctl.runtime.probe import nvidia_driver
from gddctl.runtime.trt_bindings import Bindings


@dataclass(frozen=True)
class BuildDevice:
    """A device, or several."""

    name: str
    compute_capabilities: tuple[str, ...]  # empty: TensorRT-RTX's portable default


def build_device(bindings: Bindings, wanted: tuple[str, ...], open_cuda: Callable[[], Cuda] = Cuda) -> BuildDevice:
    """Which device ``bindings`` will build for.

    Args:
        bindings: the builder.
        wanted: compute capabilities by number ("8.6"), for TensorRT-RTX alone.
        open_cuda: how the GPU is asked.

    Raises:
        EnvironmentMissing: TensorRT proper on a machine without a GPU; no object of it is made then.
        UsageError: ``wanted`` names what this builder cannot build for.
    """
    if bindings.is_rtx:
        unknown = [item for item in wanted if capability_name(item) not in known_capabilities(bindings)]
        if unknown:
            known = ", ".join(sorted(known_capabilities(bindings)))
            raise UsageError(f"compute capability {', '.join(unknown)}: {bindings.name} builds for {known} alone")
        return BuildDevice("TensorRT-RTX targets" if wanted else PORTABLE, wanted)
    if wanted:
        raise UsageError(
            f"compute_capabilities {list(wanted)}: {bindings.name} builds for the GPU that is here and no other",
            remedy="leave the setting out, or use the builder rtx",
        )
    driver = nvidia_driver()
    if not driver.devices:
        raise EnvironmentMissing(
            f"{bindings.name} builds engines only on the GPU they are for, and none is usable here: {driver.reason}",
            remedy="run there: gddctl export FILE.onnx --trt; or build for RTX GPUs here: --builder rtx",
        )
    cuda = open_cuda()
    try:
        return BuildDevice(cuda.name(), (cuda.compute_capability(),))
    finally:
        cuda.close()


def capability_name(number: str) -> str:
    """The name in TensorRT-RTX's enum.

    >>> capability_name("8.6")
    'SM86'
    """
    return f"SM{number.replace('.', '')}"


def known_capabilities(bindings: Bindings) -> set[str]:
    """Names of the devices that this TensorRT-RTX builds for."""
    return {name for name in bindings.trt.ComputeCapability.__members__ if name.startswith("SM")}
