"""From what was typed to one RunConfig: file, flags, overrides, or the embedded demo."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from gddctl.core.artifact.card import is_bundle
from gddctl.core.artifact.card_io import read_card
from gddctl.core.config.load import load_config, merge
from gddctl.core.config.sections import RunConfig
from gddctl.core.errors import ConfigError, UsageError
from gddctl.core.files import read_json
from gddctl.data.detect import detect_layout


@dataclass(frozen=True)
class Flags:
    """Flags of ``train`` and ``distill``; None means: not given. Enum members stand for their values."""

    data: Path | None = None
    layout: Enum | None = None
    teacher: Path | None = None
    student: str | None = None
    method: Enum | None = None
    iterations: int | None = None
    time_limit: float | None = None
    batch_size: int | None = None
    device: Enum | None = None
    devices: int | None = None
    precision: Enum | None = None
    seed: int | None = None
    init: Path | None = None
    skip_bad: int | None = None
    quantize: Enum | None = None


def resolve(config: Path | None, overrides: Sequence[str], flags: Flags | None = None) -> RunConfig:
    """The settings of a command.

    Without a file and without ``--data`` the embedded demo is the base; with ``--data`` alone, the defaults, with preprocessing from the
    teacher's card where a teacher is given. Flags win over the file, ``--set`` over both.
    """
    flags = flags or Flags()
    base = demo_settings() if config is None and flags.data is None else None
    if config is None and flags.teacher is not None and external_at(flags.teacher) is None:
        base = merge(base or {}, {"data": {"preprocess": read_card(flags.teacher).preprocess.model_dump(mode="json")}})
    # What the file says of its own teacher (classes, mean, licence) is nothing that holds for the flag's, though they be of one kind.
    instead = {"teacher": {"external": None, "drop_classes": False}} if flags.teacher is not None else None
    return load_config(config, overrides, base=base, over=_flag_settings(flags), instead=instead)


def demo_settings() -> dict[str, Any]:
    """The embedded demo: drawn street scenes at a size that two CPU cores finish in minutes."""
    text = resources.files("gddctl.pipeline").joinpath("demo.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def default_out(config: RunConfig) -> Path:
    """``runs/NAME`` under the current folder."""
    return Path("runs") / config.name


def refuse_torchrun() -> None:
    """A whole run is one process that starts others where it needs them.

    Raises:
        UsageError: this process was started by torchrun.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "gddctl run: started under torchrun, but export, parity and latency are the work of one process",
            remedy="use: torchrun ... -m gddctl train CONFIG, then torchrun ... -m gddctl distill CONFIG; or gddctl run --set train.devices=N",  # noqa: E501
        )


def parse_network(text: str) -> dict[str, Any]:
    """``ARCH-ENCODER[-sSTRIDE]`` as settings.

    >>> parse_network("deeplabv3-resnet18-s16")
    {'arch': 'deeplabv3', 'encoder': 'resnet18', 'output_stride': 16}
    """
    matched = re.fullmatch(r"([a-z0-9]+)-(.+?)(?:-s(8|16|32))?", text)
    if matched is None:
        raise ConfigError(f"--student {text}: expected ARCH-ENCODER[-s8|-s16|-s32]", remedy="for example pspnet-resnet18-s8")
    arch, encoder, stride = matched.groups()
    return {"arch": arch, "encoder": encoder, **({"output_stride": int(stride)} if stride else {})}


def external_at(path: Path) -> dict[str, Any] | None:
    """Settings of ``teacher.external`` for a folder that tells by itself whose model it holds; None for anything else.

    Raises:
        UsageError: a file, which does not.
    """
    if path.is_file():
        raise UsageError(
            f"--teacher {path}: a file, expected a bundle folder",
            remedy="a checkpoint of another library needs to be told whose it is, e.g. --set teacher.external.kind=mmseg "
            f"--set teacher.external.path={path} (see docs/teachers.md)",
        )
    config = path / "config.json"
    if is_bundle(path) or not config.is_file():
        return None
    said = read_json(config)
    kind = "smp" if isinstance(said, dict) and "_model_class" in said else "transformers"
    return {"kind": kind, "path": str(path.resolve())}


def _flag_settings(flags: Flags) -> dict[str, Any]:
    value: dict[str, Any] = {}

    def put(section: str | None, key: str, given: Any) -> None:
        if given is not None:
            plain = given.value if isinstance(given, Enum) else str(given.resolve()) if isinstance(given, Path) else given
            target = value if section is None else value.setdefault(section, {})
            target[key] = plain

    put("data", "root", flags.data)
    if flags.data is not None:
        put("data", "layout", flags.layout or detect_layout(flags.data))
    else:
        put("data", "layout", flags.layout)
    put("data", "skip_bad", flags.skip_bad)
    if flags.teacher is not None:
        external = external_at(flags.teacher)
        bundle = str(flags.teacher.resolve()) if external is None else None
        value["teacher"] = {"bundle": bundle, "external": external}  # both: what the file says of its own teacher is set aside
    if flags.student is not None:
        value["student"] = parse_network(flags.student)
    put("student", "init", flags.init)
    if flags.method is not None:
        value["distill"] = {"method": {"kind": flags.method.value}}
    if flags.quantize is not None:
        value.setdefault("distill", {})["quantize"] = {"target": flags.quantize.value}
    for key in ("iterations", "time_limit", "batch_size", "device", "devices", "precision"):
        put("train", key, getattr(flags, key))
    put(None, "seed", flags.seed)
    return value
