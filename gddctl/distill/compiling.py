"""torch.compile, where it was asked for: what it needs is looked for before training, and what it cannot do is said in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from gddctl.core.errors import EnvironmentMissing

BACKEND = "inductor"
_OFF = "or leave train.compile out"


def require_compiler(device: str) -> None:
    """Look for what :func:`compile_network` will need on ``device``, "cpu" or "cuda".

    Raises:
        EnvironmentMissing: no C++ compiler that works, or no Triton.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    if device == "cuda" and not has_triton():
        raise EnvironmentMissing("train.compile: PyTorch finds no Triton that works on this device", remedy=f"pip install triton, {_OFF}")
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise EnvironmentMissing(
            "train.compile: no C++ compiler that works; CXX, g++ and clang++ were tried", remedy=f"install g++, {_OFF}"
        ) from error


def compile_network(network: nn.Module) -> None:
    """Compile every later call of ``network``, at its first one, for each size of input anew.

    In place and outside its state: keys, checkpoints and copies stay plain.
    """
    network.compile(backend=BACKEND, dynamic=False)


def uncompiled() -> AbstractContextManager[object]:
    """Within this block compiled networks run as they were written: other sizes and modes, which are not worth a compilation."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def explained() -> Iterator[None]:
    """Turn a failed compilation into an error that says what it was.

    Raises:
        EnvironmentMissing: it failed.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    try:
        yield
    except (TorchDynamoException, InductorError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise EnvironmentMissing(f"train.compile: this network does not compile here ({first.strip()[:200]})", remedy=_OFF[3:]) from error
