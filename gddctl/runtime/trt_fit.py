"""Does an engine fit this machine? Its record against the TensorRT and the GPU that are here, before anything is loaded."""

from __future__ import annotations

import logging
from pathlib import Path

from gddctl.core.artifact.engine import EngineRecord, read_record
from gddctl.core.artifact.manifest import verify_file
from gddctl.core.errors import ArtifactError
from gddctl.runtime.cuda import Cuda
from gddctl.runtime.trt_bindings import Bindings, version_tuple

log = logging.getLogger(__name__)

_PORTABLE_FROM = (8, 0)  # compute capability from which TensorRT-RTX's default engines run


def check_engine_file(path: Path) -> EngineRecord:
    """The record beside an engine whose bytes are those that it, and the manifest if there is one, name.

    Raises:
        UsageError: no such file.
        ArtifactError: no record, or the engine was changed or exchanged.
    """
    found, record = verify_file(path), read_record(path)
    if found != record.engine_sha256:
        raise ArtifactError(
            f"{path}: not the engine that its record describes (sha256 {found[:12]}…, expected {record.engine_sha256[:12]}…)",
            remedy=f"copy both files again, or build it here: {record.rebuild}",
        )
    return record


def check_fit(path: Path, record: EngineRecord, bindings: Bindings, cuda: Cuda) -> None:
    """Refuse an engine of another builder, version or device.

    Raises:
        ArtifactError: naming what it was built with and what is here.
    """
    here = bindings.name
    built = f"{'TensorRT-RTX' if record.builder == 'tensorrt-rtx' else 'TensorRT'} {record.version}"
    if record.builder != bindings.builder or version_tuple(record.version) != version_tuple(bindings.version):
        raise ArtifactError(
            f"{path}: built with {built}, here is {here}; an engine runs on the version that built it alone",
            remedy=f"build it here: {record.rebuild}",
        )
    capability = cuda.compute_capability()
    if record.compute_capabilities:
        fits = capability in record.compute_capabilities
    else:
        fits = version_tuple(capability) >= _PORTABLE_FROM
    if not fits:
        raise ArtifactError(
            f"{path}: built for {record.built_for}, here is {cuda.name()} (compute capability {capability})",
            remedy=f"build it here: {record.rebuild}",
        )
    if record.builder == "tensorrt" and cuda.name() != record.device:
        log.warning("%s was built on %s and runs on %s: same architecture, kernels tuned for the other", path, record.device, cuda.name())
