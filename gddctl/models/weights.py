"""Safetensors files into modules: every key, every shape, or a clear error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from gddctl.core.errors import ArtifactError
from gddctl.core.lazy import require

_SHOWN = 3  # keys named in a message before "and N more"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        ArtifactError: truncated or not safetensors.
    """
    safetensors = require("safetensors.torch", extra="train", why="reading weights")
    base = require("safetensors", extra="train", why="reading weights")
    try:
        state: dict[str, Tensor] = safetensors.load_file(path)
    except (base.SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not a whole safetensors file ({error})", remedy="restore the file or make it again") from error
    return state


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, place: str, expected: str) -> None:
    """Load ``state`` into ``module``: every key, every shape, or an error that names the first that differ."""
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    wrong = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in sorted(own.keys() & state.keys())
        if state[key].shape != own[key].shape
    ]
    found = [f"{word}: {_few(keys)}" for word, keys in (("missing", missing), ("unexpected", unexpected), ("shape", wrong)) if keys]
    if found:
        raise ArtifactError(
            f"{place}: not the weights of {expected} ({'; '.join(found)})", remedy="check which network they were trained as"
        )
    nn.Module.load_state_dict(module, dict(state), strict=True)


def _few(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
