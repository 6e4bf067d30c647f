"""ImageNet weights through the Hugging Face hub: fetched, taken from its cache, or a clear error at once."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from gddctl.core.errors import EnvironmentMissing
from gddctl.core.lazy import require

T = TypeVar("T")

_REACH_SECONDS = 5.0  # how long the hub may take to answer before it counts as away
_NETWORK_MODULES = {"httpx", "httpcore", "requests", "urllib3", "huggingface_hub"}  # whose errors mean: not fetched


def fetch_imagenet(name: str, create: Callable[[], T]) -> T:
    """Run ``create``, which asks the hub for the ImageNet weights of encoder ``name``.

    Raises:
        EnvironmentMissing: they are neither reachable nor in the hub's cache.
    """
    try:
        with _no_waiting_for_an_absent_hub():
            return create()
    except Exception as error:
        # The hub's errors come from several libraries and versions: told apart by where they are defined, the rest is not ours to judge.
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _NETWORK_MODULES:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise EnvironmentMissing(
                f"encoder '{name}': its ImageNet weights are not in the cache and cannot be fetched from the Hugging Face hub ({reason}…)",
                remedy="go online once (they are kept for later), or set encoder_weights to a local .safetensors file, or to none",
            ) from error
        raise


@contextmanager
def _no_waiting_for_an_absent_hub() -> Iterator[None]:
    """Offline mode for the time of the block when the hub does not answer: its own retries take up to a minute and then fail."""
    constants: Any = require("huggingface_hub.constants", extra="train", why="fetching ImageNet weights")
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # an answer, if not a welcome
    except (OSError, ValueError):
        return False
    return True
