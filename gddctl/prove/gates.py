"""Which limits a precision is held to."""

from __future__ import annotations

from typing_extensions import assert_never

from gddctl.core.config.sections import GatesConfig, Limits, Precision


def limits_for(precision: Precision, gates: GatesConfig) -> Limits:
    """The limits of one precision; the defaults and their sources are in :class:`GatesConfig`.

    >>> limits_for("int8", GatesConfig()).min_agreement
    0.975
    """
    match precision:
        case "fp32":
            return gates.fp32
        case "fp16":
            return gates.fp16
        case "int8":
            return gates.int8
        case _:
            assert_never(precision)
