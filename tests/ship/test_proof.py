"""The chain from a file to its student: whole, broken, failed, or in a circle."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from gddctl.core.config.sections import Limits
from gddctl.core.errors import VerdictError
from gddctl.core.reports.parity import ParityReport, Rung
from gddctl.ship.proof import proof_of

STUDENT, FP32, INT8, DEPLOY = "a" * 64, "b" * 64, "c" * 64, "d" * 64


def rung(reference: str, candidate: str, **changes: Any) -> Rung:
    plain = Rung(
        reference=reference[0], candidate=candidate[0], reference_sha256=reference, candidate_sha256=candidate, precision="int8", images=4,
        agreement=0.99, reference_miou=0.5, candidate_miou=0.5, worst_class=None, worst_class_delta_points=None, sqnr_db=None, cosine=None,
        max_abs_diff=None, p999_abs_diff=None, nan=0, limits=Limits(min_agreement=0.9),
    )  # fmt: skip
    return replace(plain, **changes)


def chain(*rungs: Rung) -> tuple[str, ...]:
    deploy: Any = SimpleNamespace(sha256=DEPLOY, info=SimpleNamespace(weights_sha256=STUDENT))
    return proof_of(deploy, [ParityReport(rungs)] if rungs else [], FP32).chain


def test_up_to_the_students_weights() -> None:
    assert chain(rung(STUDENT, FP32), rung(FP32, INT8), rung(INT8, DEPLOY)) == ("d", "c", "b", "a")
    assert chain(rung(INT8, DEPLOY), rung(FP32, INT8), rung(STUDENT, FP32)) == ("d", "c", "b", "a"), "in any order"


def test_somebody_elses_network_starts_at_its_first_file() -> None:
    assert chain(rung(FP32, INT8), rung(INT8, DEPLOY)) == ("d", "c", "b")


def test_nothing_below_the_first_file_is_a_beginning() -> None:
    assert chain(rung(INT8, DEPLOY)) == (), "the deploy graph answers like INT8 logits that nobody compared with the student"
    assert chain(rung("e" * 64, DEPLOY)) == (), "the first model of the report is another student's"


def test_a_link_that_is_missing_proves_nothing() -> None:
    assert chain() == ()
    assert chain(rung(STUDENT, FP32), rung(FP32, INT8)) == (), "the deploy graph itself was not judged"
    assert chain(rung(STUDENT, FP32), rung(INT8, DEPLOY)) == (), "nobody compared INT8 with FP32"
    assert chain(rung(INT8, DEPLOY), rung(DEPLOY, INT8)) == (), "two that vouch for each other"


@pytest.mark.parametrize("broken", range(3))
def test_one_failed_rung_anywhere_above_is_a_no(broken: int) -> None:
    rungs = [rung(STUDENT, FP32), rung(FP32, INT8), rung(INT8, DEPLOY)]
    rungs[broken] = replace(rungs[broken], agreement=0.5)
    with pytest.raises(VerdictError, match=r"agreement 50\.0000% < 90\.0000%"):
        chain(*rungs)


def test_emulation_is_handed_down() -> None:
    deploy: Any = SimpleNamespace(sha256=DEPLOY, info=SimpleNamespace(weights_sha256=STUDENT))
    report = ParityReport((rung(STUDENT, FP32), rung(FP32, INT8, emulated=True), rung(INT8, DEPLOY)))
    assert proof_of(deploy, [report], FP32).emulated
    assert not proof_of(deploy, [ParityReport((rung(STUDENT, FP32), rung(FP32, INT8), rung(INT8, DEPLOY)))], FP32).emulated
