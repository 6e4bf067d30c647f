"""What a comparison says, in sentences: computed from its numbers, each with its interval, and what it does not show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gddctl.core.reports.comparison import LEVEL, REFERENCE, SAME_SECONDS, Arm, Comparison, MethodRow, Pair, StepTimes, Teacher

DEARER = 1.05  # a step that takes this many times the undistilled one's is said to be dearer
WAITING = 0.03  # a method whose step waits for data for this share of its time is named: below, it is noise


def verdicts(comparison: Comparison) -> tuple[str, ...]:
    """Every sentence that a reader should not miss, the most important first."""
    return (
        *(sentence for group in comparison.groups() for sentence in _of_group(comparison, group)),
        *(pair_sentence(comparison, pair) for pair in comparison.pairs if pair.kind == "equal seconds"),
        *_waiting(comparison),
        *_teachers(comparison),
        *_failures(comparison),
        *_reach(comparison),
    )


def measured(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """How the numbers were got: (what, how), for the terminal and the page alike."""
    yield "scored", f"{comparison.protocol}, on {comparison.images or 'an unknown number of'} images ({comparison.split})"
    bootstrap = comparison.bootstrap
    alone = "; images count as independent, which frames of one video are not" if bootstrap.neighbours == 1 else ""
    yield "intervals", f"{100 * LEVEL:.0f} %, {bootstrap.name}, {bootstrap.draws:,} draws from seed {bootstrap.seed}{alone}"
    yield (
        "several comparisons",
        (
            "Holm's method over each kind of pair apart: all methods against none, all pairs of methods, all pairs of equal seconds, "
            "all pairs of lengths of one method"
        ),
    )
    if comparison.step_times is not None:
        times = ", ".join(
            f"{time.method} {1000 * time.seconds:.1f} ({1000 * time.low:.1f} to {1000 * time.high:.1f})"
            for time in comparison.step_times.times
        )
        budget, of = comparison.step_times.budget_seconds, comparison.step_times.budget_of
        became = "" if budget is None else f"; by them {budget:g} s{f', the time of {of},' if of else ''} became each method's iterations"
        yield "milliseconds per step", f"{times}; {comparison.step_times.how}{became}"


def names_of(comparison: Comparison) -> dict[Arm, str]:
    """What each arm is called: its method, and its length where the method stands more than once."""
    arms = [row.arm for row in comparison.rows]
    names = {}
    for arm in arms:
        alike = [other for other in arms if other.method == arm.method]
        more = f", equal {arm.budget}" if sum(other.iterations == arm.iterations for other in alike) > 1 else ""
        names[arm] = arm.method if len(alike) == 1 else f"{arm.method} ({arm.iterations} iterations{more})"
    return names


def pair_sentence(comparison: Comparison, pair: Pair) -> str:
    """What is known of one pair.

    One seed gives no "better": another training could turn it around, so only what this one scored is told.
    """
    names = names_of(comparison)
    one, other = names[pair.first], names[pair.second]
    if pair.kind == "equal seconds":
        longer = f"at most {100 * (SAME_SECONDS - 1):.0f} % longer"
        one = f"{REFERENCE}, trained for {pair.first.iterations} iterations, by the clock {longer} than {other},"
    outcome = comparison.outcome(pair)
    if outcome == "not judged":
        return f"{one} and {other} differ by {figure(pair.difference_points)} points with {_basis(pair)}."
    if outcome == "not told apart":
        these = "these seeds" if pair.covers_seeds else "this seed"
        shown = f"difference {figure(pair.difference_points)}, interval {interval(pair)}, {_basis(pair)}"
        return f"{one} and {other} are not told apart by {these} ({shown})."
    up = pair.difference_points > 0
    sure = outcome in ("better", "worse")
    words = ("is better than" if up else "is worse than") if sure else ("scored above" if up else "scored below")
    by = figure(abs(pair.difference_points))
    shown = f"95 % interval {interval(pair, turned=not up)}, {_basis(pair)}"
    return f"{one} {words} {other} by {by} points ({shown}){_holm(comparison, pair)}."


def figure(value: float) -> str:
    """A difference in points: one decimal, two where one would hide on which side of zero it is.

    >>> figure(1.84), figure(-0.42), figure(0.03), figure(-0.001)
    ('1.8', '-0.4', '0.03', '0.00')
    """
    text = f"{value:.1f}" if abs(value) >= 0.05 or value == 0 else f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text


def interval(pair: Pair, *, turned: bool = False) -> str:
    """The interval's ends; ``turned``: of the second over the first. Empty where there is none."""
    if pair.low_points is None or pair.high_points is None:
        return ""
    low, high = (-pair.high_points, -pair.low_points) if turned else (pair.low_points, pair.high_points)
    return f"{figure(low)} to {figure(high)}"


def waiting(times: StepTimes) -> str:
    """Which methods waited for data while their steps were timed, in a sentence; empty where none did for long.

    In them the loader sets the pace: what the method itself costs beside another does not show in full.
    """
    shares = [(time.method, time.data_wait) for time in times.times if time.data_wait is not None and time.data_wait >= WAITING]
    if not shares:
        return ""
    shown = _and([f"{method} for {100 * share:.0f} %" for method, share in shares])
    return (
        f"While steps were timed, {shown} of the time waited for data: there the loader sets the pace, "
        "and more train.workers, or data.cache, would change what equal seconds are."
    )


def _basis(pair: Pair) -> str:
    """What the interval stands on, and what it leaves out."""
    parts = [f"{len(pair.seeds)} seeds"]
    if not pair.covers_seeds:
        parts = ["one seed: the interval does not cover seeds" if pair.p is not None else "one seed: how sure that is, is not known"]
    if pair.left_out:
        parts.append(f"without {_seeds(pair.left_out)} that only one of them has")
    if not pair.images and pair.p is not None:
        parts.append("no counts: the interval does not cover images")
    return ", ".join(parts)


def _holm(comparison: Comparison, pair: Pair) -> str:
    """What is left of it beside the other comparisons of its kind."""
    adjusted = comparison.p_holm(pair)
    if pair.p is None or adjusted is None or not pair.p <= 1 - LEVEL < adjusted:
        return ""
    return f"; allowing for {len(comparison.family(pair))} such comparisons (Holm, p {adjusted:.3f}) they are not told apart"


def _of_group(comparison: Comparison, group: Sequence[MethodRow]) -> Iterator[str]:
    names, scored = names_of(comparison), [row for row in group if row.mean is not None]
    if len(scored) < 2:
        return
    yield _first(comparison, scored)
    reference = next((row for row in scored if row.arm.method == REFERENCE), None)
    if reference is None:
        yield f"No undistilled student stands beside these: whether any method helps is not said {_where(comparison, group)}."
    for row in scored:
        pair = comparison.against_none(row)
        if pair is not None:
            yield pair_sentence(comparison, pair)
        elif reference is not None and row != reference:
            yield f"{names[row.arm]} and {REFERENCE} have no seed in common and are not compared."
    yield from _behind(comparison, scored)
    if reference is not None:
        yield from _cost(names, scored, reference)


def _behind(comparison: Comparison, scored: Sequence[MethodRow]) -> Iterator[str]:
    """Where the other methods stand to the first: those that are plainly behind together, those with a reservation one by one."""
    names, told = names_of(comparison), []
    for row in scored[1:]:
        pair = comparison.pair(scored[0].arm, row.arm)
        if pair is None or pair.kind != "between methods":
            continue
        if pair.images and not pair.left_out and comparison.outcome(pair) == "better":
            told.append((names[row.arm], pair))
        else:
            yield pair_sentence(comparison, pair)
    if len(told) == 1:
        yield pair_sentence(comparison, told[0][1])
    elif told:
        shown = [f"{name} by {figure(pair.difference_points)} ({interval(pair)})" for name, pair in told]
        yield f"{names[scored[0].arm]} is better than {_and(shown)} points."


def _first(comparison: Comparison, scored: Sequence[MethodRow]) -> str:
    names, best = names_of(comparison), scored[0]
    score = f"{100 * (best.mean or 0):.2f} % mIoU"
    if comparison.is_first(best):
        return f"{names[best.arm]} is first {_where(comparison, scored)}, with {score}: better than every other."
    words = f"{names[best.arm]} has the highest mean {_where(comparison, scored)}, {score}, but that it is first is not established"
    pairs = {row: comparison.pair(best.arm, row.arm) for row in scored[1:]}
    if all(pair is not None and not pair.covers_seeds for pair in pairs.values()):
        return f"{words}: one seed cannot."
    open_ = [names[row.arm] for row, pair in pairs.items() if pair is None or not _ahead(comparison, pair, best)]
    return f"{words} against {_and(open_)}."


def _ahead(comparison: Comparison, pair: Pair, best: MethodRow) -> bool:
    return comparison.outcome(pair) == ("better" if pair.first == best.arm else "worse")


def _where(comparison: Comparison, group: Sequence[MethodRow]) -> str:
    arm = group[0].arm
    if arm.budget == "iterations":
        return f"at {arm.iterations} iterations"
    times = comparison.step_times
    return "at equal seconds" + ("" if times is None or times.budget_seconds is None else f" ({times.budget_seconds:g} s each)")


def _cost(names: dict[Arm, str], scored: Sequence[MethodRow], reference: MethodRow) -> Iterator[str]:
    """Equal iterations flatter what is dear."""
    if reference.arm.budget == "seconds" or not reference.step_seconds:
        return
    times = [(names[row.arm], row.step_seconds / reference.step_seconds) for row in scored if row.step_seconds is not None]
    dearer = [f"{name} {ratio:.2f} times" for name, ratio in sorted(times, key=lambda item: -item[1]) if ratio >= DEARER]
    if dearer:
        yield f"Equal iterations are not equal cost: beside {REFERENCE}'s, a step takes with {_and(dearer)} the seconds."


def _waiting(comparison: Comparison) -> Iterator[str]:
    if comparison.step_times is not None and (words := waiting(comparison.step_times)):
        yield words


def _teachers(comparison: Comparison) -> Iterator[str]:
    if comparison.teacher is not None:
        yield from _teacher(comparison, comparison.teacher)
    for teacher in comparison.own_teachers:
        yield from _teacher(comparison, teacher)


def _teacher(comparison: Comparison, teacher: Teacher) -> Iterator[str]:
    own = teacher.methods
    who, best_of = (f"The teacher of {_and(own)}", "its best student") if own else ("The teacher", "the best student")
    privileged = f" {teacher.condition}, which no student is shown" if teacher.condition else ""
    score = "was not scored on these images" if teacher.miou is None else f"has {100 * teacher.miou:.2f} % mIoU{privileged}"
    score += f" ({teacher.protocol})" if teacher.protocol and not teacher.condition else ""
    cost = "" if teacher.seconds is None else f"; its own training took {teacher.seconds:.0f} s, which no row counts"
    yield f"{who}, {teacher.name}, {score}{cost}."
    if teacher.condition:
        return
    students = [row for row in comparison.rows if row.mean is not None and (not own or row.arm.method in own)]
    best = max(students, key=lambda row: row.mean or 0, default=None)
    if best is not None and best.mean is not None and teacher.miou is not None and teacher.miou <= best.mean:
        student = f"{names_of(comparison)[best.arm]}, {100 * best.mean:.2f} %"
        yield f"{who} is no better than {best_of} ({student}): what a better teacher would give is not seen here."


def _failures(comparison: Comparison) -> Iterator[str]:
    names = names_of(comparison)
    for row in comparison.rows:
        for seed, error in row.failed:
            yield f"{names[row.arm]} failed with seed {seed}: {error.rstrip('.')}."
        if row.failed and not row.scores:
            yield f"{names[row.arm]} has no score: none of its trainings came through."


def _reach(comparison: Comparison) -> Iterator[str]:
    if comparison.split.startswith("held-out"):
        yield f"Scored on {comparison.split}: that is for choosing, not for reporting."


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {_and([str(seed) for seed in seeds])}"


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
