"""Which TensorRT is here: TensorRT proper (10.3 to 11.x) or TensorRT-RTX, found by importing it."""

from __future__ import annotations

import importlib
import logging
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from typing_extensions import assert_never

from gddctl.core.artifact.engine import EngineBuilder
from gddctl.core.config.sections import Builder
from gddctl.core.errors import EnvironmentMissing

log = logging.getLogger(__name__)

FLOOR = (10, 3)  # JetPack 6.1; older ones lack strong typing or cannot read opset 20
_MODULES: dict[EngineBuilder, tuple[str, ...]] = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_REMEDIES: dict[EngineBuilder, str] = {
    "tensorrt": (
        "on a Jetson install the system's package (apt install python3-libnvinfer) and make the environment with --system-site-packages; "
        'elsewhere: pip install "gddctl[trt]"'
    ),
    "tensorrt-rtx": 'pip install "gddctl[rtx]"',
}


@dataclass(frozen=True)
class Bindings:
    """An imported TensorRT. Its names are reached through ``trt``; both builders spell them alike."""

    trt: ModuleType
    builder: EngineBuilder
    version: str

    @property
    def is_rtx(self) -> bool:
        """TensorRT-RTX: builds without a GPU, for devices named ahead, and compiles the rest where it runs."""
        return self.builder == "tensorrt-rtx"

    @property
    def can_be_weak(self) -> bool:
        """Whether networks may be weakly typed, so that TensorRT would choose precisions: before 11, and never in RTX."""
        return not self.is_rtx and version_tuple(self.version) < (11,)

    @property
    def name(self) -> str:
        """Builder and version, for people."""
        return f"{'TensorRT-RTX' if self.is_rtx else 'TensorRT'} {self.version}"


def find_bindings(choice: Builder = "auto") -> Bindings:
    """Import the TensorRT that ``choice`` names; ``auto`` takes TensorRT proper where both are.

    Raises:
        EnvironmentMissing: none imports, or only one older than :data:`FLOOR`.
    """
    match choice:
        case "auto":
            wanted: tuple[EngineBuilder, ...] = ("tensorrt", "tensorrt-rtx")
        case "tensorrt":
            wanted = ("tensorrt",)
        case "rtx":
            wanted = ("tensorrt-rtx",)
        case _ as never:
            assert_never(never)
    reasons: list[str] = []
    for builder in wanted:
        for module in _MODULES[builder]:
            found = _load(module, builder, reasons)
            if found is not None:
                return found
    raise EnvironmentMissing(
        f"no usable {' or '.join('TensorRT-RTX' if item == 'tensorrt-rtx' else 'TensorRT' for item in wanted)} here: {'; '.join(reasons)}",
        remedy="; or ".join(_REMEDIES[builder] for builder in wanted),
    )


def _load(module: str, builder: EngineBuilder, reasons: list[str]) -> Bindings | None:
    try:
        trt = importlib.import_module(module)
    except Exception as error:  # beside ImportError, a half-installed one raises OSError, RuntimeError or what its loader likes
        first = str(error).strip().splitlines()[:1]
        reasons.append(f"'{module}' does not import ({first[0] if first else type(error).__name__})")
        return None
    version = str(getattr(trt, "__version__", "0"))
    if builder == "tensorrt" and version_tuple(version)[:2] < FLOOR:
        reasons.append(f"TensorRT {version} is older than {FLOOR[0]}.{FLOOR[1]} (JetPack 6.1), the first that is supported")
        return None
    return Bindings(trt, builder, version)


def version_tuple(version: str) -> tuple[int, ...]:
    """The numbers of a version.

    >>> version_tuple("10.3.0.26")
    (10, 3, 0, 26)
    """
    return tuple(int(part) for part in re.findall(r"\d+", version)[:4])


def make_logger(trt: ModuleType) -> Any:
    """A logger for builder, parser and runtime that keeps errors in ``errors`` and passes the rest to :mod:`logging`.

    Made here and not as a class of ours, because its base exists only once the bindings are imported.
    """
    severity = trt.ILogger.Severity

    class _Logger(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self._said: set[str] = set()  # the builder says the same of every layer

        def log(self, kind: Any, text: str) -> None:
            if kind in (severity.INTERNAL_ERROR, severity.ERROR):
                self.errors.append(" ".join(text.split()))
            chatter = kind in (severity.INFO, severity.VERBOSE) or text in self._said
            self._said.add(text)
            log.log(logging.DEBUG if chatter else logging.INFO, "TensorRT: %s", text)

    return _Logger()


def last_errors(logger: Any, count: int = 3) -> str:
    """The last errors a logger of ours kept, in one line."""
    return "; ".join(dict.fromkeys(logger.errors[-count:])) or "it gave no reason"
