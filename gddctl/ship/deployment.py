"""How a release is put to work beyond one process: Triton, KServe, containers, a Jetson. Text only; the models stay in ``models/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gddctl import __version__
from gddctl.ship.docker import write_docker
from gddctl.ship.jetson import write_jetson
from gddctl.ship.kserve import dns_name, write_kserve
from gddctl.ship.shipped import Shipped
from gddctl.ship.triton import write_triton


def write_deployment(folder: Path, models: Sequence[Shipped]) -> list[Path]:
    """Write ``triton/``, ``kserve/``, ``docker/``, ``jetson/`` and ``JETSON.md`` into the release ``folder``; their files, sorted.

    What no file of the release suits is not written: no Jetson's steps where TensorRT can build an engine from none.

    Args:
        folder: the release, in which ``models`` lie at their paths.
        models: what it ships, at least one.

    Raises:
        RunFailed: the disk is full or not writable.
    """
    name = models[0].info.name
    return sorted(
        [
            *write_triton(folder / "triton", models),
            *write_kserve(folder / "kserve", models, name=name, version=__version__),
            *write_docker(folder / "docker", models, tag=f"{dns_name(name)}:{__version__}", version=__version__),
            *write_jetson(folder, models, name=name, version=__version__),
        ]
    )
