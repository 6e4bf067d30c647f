"""What an export does: the flags, and under them the settings of the run that the student lies in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from gddctl.core.config.load import merge, parse, to_settings
from gddctl.core.config.sections import ExportConfig, RunConfig
from gddctl.core.errors import ConfigError
from gddctl.pipeline.exporting import Order
from gddctl.pipeline.folder import settings_of
from gddctl.pipeline.gate_file import read_gates

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """Flags of ``export``; None and nothing mean: not given. Enum members stand for their values."""

    precisions: Sequence[Enum] | None = None
    targets: Sequence[Enum] | None = None
    opset: int | None = None
    images: int | None = None
    method: Enum | None = None
    recover: bool | None = None
    engines: bool = False
    builder: Enum | None = None
    batch: tuple[int, int, int] | None = None  # least, best, most
    workspace_mb: int | None = None
    gates: Path | None = None
    sensitivity: bool = False


def order_for(source: Path | None, asked: Asked) -> Order:
    """What to make of the bundle or file at ``source``; None: of somebody else's, which is in no run of ours.

    The same student exported by hand and by its run gives the same files, unless a flag says otherwise: what stands in the run's folder
    was proven and timed, and must not be replaced by something else that goes by the same name.

    Raises:
        UsageError: no such gate file.
        ConfigError: settings that cannot be made, or limits that are none.
    """
    run = _run_of(source) if source is not None else None
    base = to_settings(run.export if run is not None else ExportConfig())
    config = parse(ExportConfig, merge(base, _settings(asked, base)), place="export")
    gates = run.gates if run is not None and asked.gates is None else read_gates(asked.gates)
    return Order(config, gates, asked.sensitivity)


def _run_of(source: Path) -> RunConfig | None:
    """Settings of the run that ``source`` lies in: a bundle at its top, or a file in its ``artifacts``."""
    home = source.resolve().parent if source.is_dir() else source.resolve().parent.parent
    try:
        return settings_of(home)
    except ConfigError as error:  # of another version, perhaps: a student is whole without its run
        log.warning("%s: not read, so that the defaults hold (%s)", home / "config.yaml", error)
        return None


def _settings(asked: Asked, base: dict[str, Any]) -> dict[str, Any]:
    precisions, targets = _values(asked.precisions), _values(asked.targets)
    if asked.engines:
        precisions = precisions or ["fp16", "int8"]
        targets = [*(targets or ()), "tensorrt"]
    least, best, most = asked.batch or (None, None, None)
    engine = {
        "builder": _value(asked.builder),
        "min_batch": least,
        "opt_batch": best,
        "max_batch": most,
        "workspace_mb": asked.workspace_mb,
    }
    return {
        **_given(precisions=precisions, targets=targets, opset=asked.opset, recover=asked.recover),
        "engines": asked.engines or (base["engines"] and precisions is None and targets is None),
        "calibration": _given(images=asked.images, method=_value(asked.method)),
        "engine": _given(**engine),
    }


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _value(member: Enum | None) -> Any:
    return None if member is None else member.value


def _values(members: Sequence[Enum] | None) -> list[Any] | None:
    return list(dict.fromkeys(member.value for member in members)) if members else None
