"""One tree of errors: each knows its exit code, and says place, value, expectation and remedy in its message."""

from __future__ import annotations


class GddctlError(Exception):
    """A failure a user can act on: one line on stderr, an exit code, never a traceback.

    ``message`` names the place, the value and what was expected; ``remedy`` says what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}; {self.remedy}"


class UsageError(GddctlError):
    """A command or config that cannot be meant as written; a path that is not there."""

    exit_code = 2


class ConfigError(UsageError):
    """A config key or value that does not fit."""


class VerdictError(GddctlError):
    """A gate failed: the work was done and the answer is no."""

    exit_code = 3


class EnvironmentMissing(GddctlError):
    """Something this machine lacks: a package, a provider, a driver."""

    exit_code = 4


class DataError(GddctlError):
    """A dataset that cannot be read or trained on."""

    exit_code = 5


class ImageTooLarge(DataError):
    """An image of more pixels than the caller allows, told from its header alone.

    Attributes:
        width, height: as the header has them, pixels.
        limit: of their product.
    """

    def __init__(self, place: str, width: int, height: int, limit: int) -> None:
        super().__init__(
            f"{place}: {width} x {height} = {width * height} pixels, expected at most {limit}",
            remedy="make it smaller, or raise the limit with --max-pixels",
        )
        self.width, self.height, self.limit = width, height, limit


class ArtifactError(GddctlError):
    """A bundle, checkpoint or exported file that is broken, tampered with, or for something else."""

    exit_code = 5


class RunFailed(GddctlError):
    """The run itself failed: disk, memory, NaN, engine build."""

    exit_code = 6


class Interrupted(GddctlError):
    """Stopped by the user; a checkpoint was written first where there was something to keep."""

    exit_code = 130
