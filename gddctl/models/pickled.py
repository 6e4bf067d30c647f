"""Checkpoints of other libraries: safetensors, or torch files of tensors and plain values; pickled objects are never loaded."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gddctl.core.errors import ArtifactError, UsageError
from gddctl.models.weights import read_weights

_WRAPPERS = ("state_dict", "model")  # keys under which mmsegmentation, Lightning and torchvision's own scripts put the weights
# From what is pickled, wrapped under one of these keys or not, weights or a whole module, to weights alone.
_RESAVE = (
    'c = torch.load("FILE", weights_only=False); c = c.get("state_dict", c.get("model", c)) if isinstance(c, dict) else c; '
    'torch.save(c.state_dict() if isinstance(c, torch.nn.Module) else c, "NEW")'
)
_PARALLEL = "module."  # what DataParallel and DistributedDataParallel put before every key


@dataclass(frozen=True)
class Checkpoint:
    """Weights by key, without wrappers, and what else the file said of itself."""

    state: dict[str, Tensor]
    meta: Mapping[str, Any]


def read_checkpoint(path: Path) -> Checkpoint:
    """The weights in a ``.safetensors`` file, or in what ``torch.save`` wrote of them.

    Raises:
        UsageError: no such file.
        ArtifactError: damaged, holding Python objects besides tensors and plain values, or holding no weights.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint file", remedy="check teacher.external.path")
    if path.suffix == ".safetensors":
        return Checkpoint(_unwrapped(read_weights(path)), {})
    loaded = _load(path)
    if not isinstance(loaded, Mapping):
        raise ArtifactError(f"{path}: holds a {type(loaded).__name__}, expected weights by key", remedy="save model.state_dict() instead")
    meta = loaded.get("meta")
    for key in _WRAPPERS:
        if isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    state = {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not state or len(state) != len(loaded):
        others = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
        raise ArtifactError(
            f"{path}: expected weights by key, found {len(state)} tensors and {len(others)} other entries ({', '.join(others[:3])})",
            remedy="save the weights alone, or under the key 'state_dict'",
        )
    return Checkpoint(_unwrapped(state), meta if isinstance(meta, Mapping) else {})


def with_counters(state: Mapping[str, Tensor], module: torch.nn.Module) -> dict[str, Tensor]:
    """``state`` with the batch norms' counters that old versions of torch did not save; they play no part in eval mode."""
    counters = {key: value for key, value in module.state_dict().items() if key.endswith("num_batches_tracked") and key not in state}
    return {**state, **counters}


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the unpickler about itself
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise ArtifactError(f"{path}: not a checkpoint that torch reads ({_short(error)})", remedy="check the path") from error
        raise ArtifactError(
            f"{path}: holds a Python object ({found[1]}) besides the weights; unpickling one could run any code, so it is not loaded",
            remedy=f"where you trust its source and can import that object, save the weights alone: {_RESAVE}",
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OSError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path}: damaged, or not a checkpoint ({_short(error)})", remedy="fetch it again") from error


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(_PARALLEL): value for key, value in state.items()}


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
