"""What ``train`` and ``distill`` share: flags to settings, one training, its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gddctl.commands.output import Output, percent

if TYPE_CHECKING:
    from gddctl.core.artifact.card import Role
    from gddctl.pipeline.settings import Flags


def train_and_tell(
    output: Output,
    role: Role,
    config: Path | None,
    overrides: Sequence[str],
    flags: Flags,
    *,
    out: Path | None,
    force: bool,
    following: Callable[[Path, Path], str],
) -> None:
    """Train ``role`` and print its bundle and score. ``following``: (run folder, bundle) to the next useful command."""
    from gddctl.pipeline.settings import default_out, resolve
    from gddctl.pipeline.training import train_one

    settings = resolve(config, overrides, flags)
    folder = out or default_out(settings)
    trained = train_one(settings, folder, role, force=force)
    if trained is None:
        return  # another rank speaks
    condition = f" {trained.condition}" if trained.condition else ""
    output.say(f"{trained.bundle}: {trained.network}, mIoU {percent(trained.miou)}{condition} on {settings.data.val_split}")
    result: dict[str, Any] = {"bundle": str(trained.bundle), "miou": trained.miou, "card": trained.card.model_dump(mode="json")}
    if trained.condition:
        result["condition"] = trained.condition  # of ``miou``
    if trained.warnings:
        result["warnings"] = list(trained.warnings)
    output.done(result, following=following(folder, trained.bundle))
