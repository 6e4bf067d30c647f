"""The run folder as a run sees it: config.yaml, env.json, and a ledger of finished stages."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gddctl import __version__
from gddctl.core.config.load import digest_of, load_config, to_settings, to_yaml
from gddctl.core.config.sections import RunConfig
from gddctl.core.digest import sha256_file, sha256_json
from gddctl.core.errors import ArtifactError
from gddctl.core.files import read_json, write_json, write_text
from gddctl.core.invocation import command_line
from gddctl.core.workspace import claim, is_run

LEDGER = "stages.json"
_PACKAGES = (
    "torch", "torchvision", "segmentation-models-pytorch", "timm", "lightning-fabric", "albumentations", "onnx", "onnxscript",
    "onnxruntime", "onnxruntime-gpu", "numpy", "opencv-python-headless", "pillow", "pydantic", "safetensors",
    "tensorrt", "tensorrt_rtx_cu13_libs",
)  # fmt: skip


def prepare(folder: Path, config: RunConfig, *, force: bool) -> bool:
    """Claim ``folder`` for ``config`` and write ``config.yaml`` and ``env.json``; True when the run goes on. Hold the folder first."""
    goes_on = claim(folder, digest=digest_of(config), settings=to_settings(config), force=force)
    if not (folder / "config.yaml").exists():
        write_text(folder / "config.yaml", to_yaml(config))
    write_json(folder / "env.json", environment(folder))
    return goes_on


def settings_of(folder: Path) -> RunConfig | None:
    """The settings of the run in ``folder``; None where no run claimed it, for any folder may hold a config.yaml."""
    path = folder / "config.yaml"
    return load_config(path) if is_run(folder) and path.is_file() else None


def environment(folder: Path | None = None) -> dict[str, Any]:
    """Versions, machine, command and git state; earlier sittings of the same run are kept under ``earlier``."""
    packages = {name: version for name in _PACKAGES if (version := _version(name)) is not None}
    now = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": ["gddctl", *sys.argv[1:]],
        "gddctl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": packages,
        "git": _git_state(),
    }
    earlier: list[Any] = []
    if folder is not None and (folder / "env.json").exists():
        before = read_json(folder / "env.json")
        earlier = [*before.pop("earlier", []), before]
    return {**now, "earlier": earlier[-20:]}


@dataclass(frozen=True)
class Stage:
    """One step of a run: what decides it (``inputs``) and the files it makes, relative to the run folder."""

    name: str
    what: str
    inputs: Any  # JSON-like; gddctl's version is added
    outputs: tuple[str, ...]
    work: Callable[[], None]

    @property
    def digest(self) -> str:
        """Names the stage's result: the same inputs under the same version give the same digest."""
        return sha256_json({"stage": self.name, "inputs": self.inputs, "gddctl": __version__})


def state_of(folder: Path, stage: Stage) -> str:
    """``done``, ``todo``, or ``again`` when it was done with other inputs or its files have changed."""
    row = _ledger(folder).get(stage.name)
    if row is None:
        return "todo"
    if row["digest"] != stage.digest:
        return "again"
    return "done" if _fingerprints(folder, stage.outputs) == row["outputs"] else "again"


def complete(folder: Path, stage: Stage, seconds: float) -> None:
    """Note in the ledger that ``stage`` is done, when, and by which command: the page says so beside every figure."""
    rows = _ledger(folder)
    done = {"seconds": round(seconds, 3), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "command": command_line()}
    rows[stage.name] = {"digest": stage.digest, "outputs": _fingerprints(folder, stage.outputs), **done}
    write_json(folder / LEDGER, {"schema": 1, "stages": rows})


def set_aside(folder: Path, names: Iterable[str]) -> None:
    """Move the named members of ``folder`` out of the way, never deleting them."""
    aside = folder / f"old-{time.strftime('%Y%m%d-%H%M%S')}"
    for name in names:
        if (folder / name).exists():
            aside.mkdir(exist_ok=True)
            shutil.move(folder / name, aside / name.replace("/", "-"))


def _ledger(folder: Path) -> dict[str, Any]:
    path = folder / LEDGER
    if not path.exists():
        return {}
    value = read_json(path)
    rows = value.get("stages") if isinstance(value, dict) else None
    if not isinstance(rows, dict) or not all(isinstance(row, dict) and {"digest", "outputs"} <= row.keys() for row in rows.values()):
        raise ArtifactError(f"{path}: not a ledger of stages", remedy="remove it: finished trainings are kept, the rest is done anew")
    return rows


def _fingerprints(folder: Path, outputs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in outputs:
        path = folder / name
        members = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
        for member in members:
            found[str(member.relative_to(folder))] = sha256_file(member) if member.is_file() else "missing"
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit and cleanliness of the working folder's repository, if it is one."""
    if shutil.which("git") is None:
        return None
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (subprocess.SubprocessError, OSError):
        return None
    return {"commit": commit, "dirty": bool(dirty)}
