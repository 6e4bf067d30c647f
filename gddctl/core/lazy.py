"""Heavy or optional modules, imported where they are used; a missing one is an error with the pip line."""

from __future__ import annotations

import importlib
from types import ModuleType

from gddctl.core.errors import EnvironmentMissing


def require(module: str, *, extra: str, why: str) -> ModuleType:
    """Import ``module`` or raise :class:`EnvironmentMissing` naming the extra that brings it.

    Args:
        module: dotted module name, e.g. ``"onnx"``.
        extra: the gddctl extra that installs it, e.g. ``"export"``.
        why: what needs it, for the message: ``"exporting a bundle"``.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EnvironmentMissing(
            f"{why} needs the module '{module}', which does not import here ({error})",
            remedy=f'install it with: pip install "gddctl[{extra}]"',
        ) from error
