"""Which limits a precision is held to."""

from __future__ import annotations

from typing_extensions import assert_never

from gddctl.core.artifact.info import ModelInfo
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


def gate_of(reference: ModelInfo, candidate: ModelInfo) -> Precision:
    """Whose limits ``candidate`` is held to against ``reference``.

    A deploy graph against logits of its own precision is held to the FP32 limits, whatever is inside: wrapping changes nothing.
    """
    wraps = candidate.graph == "deploy" and reference.graph == "logits" and reference.precision == candidate.precision
    return "fp32" if wraps else candidate.precision


def limits_of_pair(reference: ModelInfo, candidate: ModelInfo, gates: GatesConfig) -> Limits:
    """The limits of :func:`gate_of`; what the candidate may cost is its own precision's, whatever it is compared with."""
    own = limits_for(candidate.precision, gates)
    costs = {"max_p95_ms": own.max_p95_ms, "max_size_mb": own.max_size_mb}
    return limits_for(gate_of(reference, candidate), gates).model_copy(update=costs)


def without_costs(limits: Limits) -> Limits:
    """The limits on answers alone."""
    return limits.model_copy(update={"max_p95_ms": None, "max_size_mb": None})
