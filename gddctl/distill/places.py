"""Where a training runs: device, processes, precision; a Fabric made from that."""

from __future__ import annotations

import logging
import os
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from gddctl.core.config.sections import TrainConfig
from gddctl.core.errors import ConfigError, EnvironmentMissing

Device = Literal["cpu", "cuda"]
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def under_torchrun() -> bool:
    """Whether this process is one of those that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def local_processes() -> int:
    """Processes of this training on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if under_torchrun() else 1


def pick_device(train: TrainConfig) -> Device:
    """``cpu`` or ``cuda``.

    Raises:
        EnvironmentMissing: CUDA was asked for and does not load.
        ConfigError: fp16 on a CPU, where it is not supported.
    """
    if train.device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentMissing(
            "train.device is 'cuda', but PyTorch sees no CUDA device here",
            remedy="see gddctl doctor, or train with --device cpu",
        )
    device: Device = "cuda" if train.device != "cpu" and torch.cuda.is_available() else "cpu"
    if device == "cpu" and train.precision == "fp16":
        raise ConfigError("train.precision: 'fp16' trains on CUDA only", remedy="use bf16 or fp32 on a CPU")
    return device


def cuda_devices() -> int:
    """CUDA devices that this process may use."""
    return torch.cuda.device_count()


def make_fabric(train: TrainConfig) -> Fabric:
    """The Fabric of this process, launched. Under torchrun its processes are used, else this one alone.

    Raises:
        ConfigError: the batch does not divide over the processes.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces what the settings already say
    device = pick_device(train)
    environment: ClusterEnvironment = LightningEnvironment()
    local, nodes = local_processes(), 1
    if under_torchrun():
        environment = TorchElasticEnvironment()
        world = int(os.environ["WORLD_SIZE"])
        nodes = world // local
        if train.batch_size % world:
            raise ConfigError(f"train.batch_size: {train.batch_size} does not divide over {world} processes")
        if device == "cuda" and local > torch.cuda.device_count():
            raise EnvironmentMissing(f"{local} processes on this machine, but PyTorch sees {torch.cuda.device_count()} CUDA devices")
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=nodes,
        strategy="ddp" if local * nodes > 1 else "auto",
        precision=PRECISIONS[train.precision],  # type: ignore[arg-type]
        plugins=[environment],
    )
    fabric.launch()
    return fabric
