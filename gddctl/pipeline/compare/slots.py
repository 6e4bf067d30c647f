"""Where cells run: one slot per CUDA device, or several on the processor."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gddctl.core.config.sections import TrainConfig
from gddctl.core.errors import UsageError
from gddctl.runtime.cpu import usable_cores


def slots_for(train: TrainConfig, devices: str | None, jobs: int | None) -> tuple[Mapping[str, str], ...]:
    """Environment variables of the children, one mapping per cell at a time.

    Args:
        train: its device says whether cells train on CUDA.
        devices: a number of CUDA devices, or their indices separated by commas; None: one.
        jobs: cells at a time on the processor, which share its cores; None: one.

    Raises:
        UsageError: devices that are not there, or a choice that does not fit the device.
        EnvironmentMissing: CUDA is asked for and missing.
    """
    if train.device != "cpu":  # PyTorch is loaded in this process only where it must be asked
        from gddctl.distill.places import cuda_devices, pick_device

        if pick_device(train) == "cuda":
            if jobs is not None and jobs > 1:
                raise UsageError(f"--jobs {jobs}: cells train on CUDA, one per device", remedy="use --devices, or --set train.device=cpu")
            return _on_devices(devices, cuda_devices())
    if devices is not None:
        raise UsageError(f"--devices {devices}: no CUDA device is used here", remedy="use --jobs N for cells side by side on the processor")
    count = jobs or 1
    if count == 1:
        return ({},)
    threads = train.threads or max(1, usable_cores() // count)
    return ({"OMP_NUM_THREADS": str(threads)},) * count


def _on_devices(wanted: str | None, there: int) -> tuple[Mapping[str, str], ...]:
    try:
        numbers = [int(part) for part in (wanted or "1").split(",")]
    except ValueError as error:
        raise UsageError(f"--devices {wanted}: expected a number of devices, or indices such as 0,2") from error
    indices = list(range(numbers[0])) if len(numbers) == 1 else numbers
    if not indices or len(set(indices)) < len(indices) or min(indices) < 0 or max(indices) >= there:
        raise UsageError(f"--devices {wanted}: expected up to {there} different devices, 0 to {there - 1}", remedy="see: gddctl doctor")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(index) for index in range(there)]  # indices count what this process may see
    return tuple({"CUDA_VISIBLE_DEVICES": names[index].strip()} for index in indices)
