"""Which colour a model has in every figure: Okabe and Ito's set, told apart with colour-blind eyes too."""

from __future__ import annotations

from collections.abc import Iterable

TEACHER, BASELINE, STUDENT = "#5b6370", "#e08a00", "#0072b2"
_OTHERS = ("#56b4e9", "#d55e00", "#cc79a7", "#009e73", "#7a5195", "#8c6d31")
_FIXED = {"teacher": TEACHER, "baseline": BASELINE, "student": STUDENT}


def colour_by_model(names: Iterable[str]) -> dict[str, str]:
    """A colour per model name; roles keep theirs, files take the others in order.

    >>> colour_by_model(["student", "student-fp32-any.logits"])
    {'student': '#0072b2', 'student-fp32-any.logits': '#56b4e9'}
    """
    colours: dict[str, str] = {}
    files = 0
    for name in names:
        if name in _FIXED:
            colours[name] = _FIXED[name]
        elif name not in colours:
            colours[name] = _OTHERS[files % len(_OTHERS)]
            files += 1
    return colours
