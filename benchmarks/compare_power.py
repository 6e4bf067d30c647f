"""How often ``bench --compare`` cries wolf, and which slowdowns it finds: simulated machines, the real test.

    python benchmarks/compare_power.py [--trials 400]

A turn's median is the row's time, times what the session does to it (clocks, memory layout: one factor for all turns of a session), times
what the turn does (a few percent), times 1.3 in a turn that other work disturbs. The sessions' factor is what no test within a session can
see; the allowed slowdown has to cover it.
"""

from __future__ import annotations

import argparse

import numpy as np

from gddctl.core.reports.regression import LEVEL
from gddctl.prove.rank_test import holm, p_larger

ROWS, ALLOWED = 4, 0.05
DISTURBED, BY = 0.1, 1.3  # share of turns, and how much longer they take


def medians(rng: np.random.Generator, turns: int, session: float, turn: float, slow: float) -> np.ndarray:
    """(ROWS, turns): medians of one session; row 0 is slower by ``slow``."""
    found = np.exp(rng.normal(0, session) + rng.normal(0, turn, (ROWS, turns)))
    found *= np.where(rng.random((ROWS, turns)) < DISTURBED, BY, 1.0)
    found[0] *= 1.0 + slow
    return found


def fires(rng: np.random.Generator, turns: int, session: float, turn: float, slow: float) -> np.ndarray:
    """(ROWS,): which rows are called a regression."""
    old, new = medians(rng, turns, session, turn, 0.0), medians(rng, turns, session, turn, slow)
    p_values = [p_larger((now / (1 + ALLOWED)).tolist(), before.tolist()) for before, now in zip(old, new, strict=True)]
    return np.array(holm(p_values)) <= LEVEL


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="How often bench --compare cries wolf, and which slowdowns it finds: simulated.")
    parser.add_argument("--trials", type=int, default=400, help="pairs of sessions")
    trials = parser.parse_args().trials
    rng = np.random.default_rng(0)
    print(f"{ROWS} rows, allowed {100 * ALLOWED:.0f} %, level {LEVEL}, {trials} pairs of sessions; {100 * DISTURBED:.0f} % of turns x {BY}")
    print("turns  session  turn    any false alarm   finds +10 %  +15 %  +20 %  +30 %")
    for turns in (5, 8, 12, 16):
        for session, turn in ((0.0, 0.02), (0.01, 0.02), (0.03, 0.05), (0.05, 0.10)):
            false = np.mean([fires(rng, turns, session, turn, 0.0).any() for _ in range(trials)])
            found = [np.mean([fires(rng, turns, session, turn, slow)[0] for _ in range(trials)]) for slow in (0.1, 0.15, 0.2, 0.3)]
            print(
                f"{turns:5d}  {100 * session:5.0f} %  {100 * turn:2.0f} %  {100 * false:12.2f} %   "
                + "  ".join(f"{100 * share:8.0f} %" for share in found)
            )


if __name__ == "__main__":
    main()
