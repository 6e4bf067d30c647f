"""Which colour a model has in every figure, in a light and a dark theme. Each stands out from its paper as text does, and never alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Names of the custom properties of the page's style: "var(--NAME)" in a drawing follows the theme.
LIGHT: Mapping[str, str] = {
    "ink": "#1c1f23", "faint": "#5b6370", "rule": "#dfe3e8", "paper": "#ffffff", "wash": "#f4f6f8",
    "good": "#1a7f4b", "bad": "#b42318", "warn": "#9a5b00", "link": "#0b5cad",
    "teacher": "#5b6370", "baseline": "#9a5b00", "student": "#0069ab",
    "s0": "#00796b", "s1": "#c03d00", "s2": "#a8327e", "s3": "#6a4fb3", "s4": "#756300", "s5": "#8a4630",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "ink": "#e6e9ed", "faint": "#a3acb8", "rule": "#343b45", "paper": "#14171b", "wash": "#1f242a",
    "good": "#5fd08f", "bad": "#ff8f80", "warn": "#f0b357", "link": "#7cb8f7",
    "teacher": "#a3acb8", "baseline": "#f0b357", "student": "#5cb6f5",
    "s0": "#4fd0c0", "s1": "#ff8f5e", "s2": "#f08cc8", "s3": "#b6a0f5", "s4": "#d3c04f", "s5": "#d69a80",
}  # fmt: skip

TEACHER, BASELINE, STUDENT = "var(--teacher)", "var(--baseline)", "var(--student)"
OTHERS = tuple(f"var(--{name})" for name in LIGHT if name[0] == "s" and name[1:].isdigit())
_FIXED = {"teacher": TEACHER, "baseline": BASELINE, "student": STUDENT}


def colour_by_model(names: Iterable[str]) -> dict[str, str]:
    """A colour per model name; roles keep theirs, files take the others in order.

    >>> colour_by_model(["student", "student-fp32-any.logits"])
    {'student': 'var(--student)', 'student-fp32-any.logits': 'var(--s0)'}
    """
    colours: dict[str, str] = {}
    files = 0
    for name in names:
        if name in _FIXED:
            colours[name] = _FIXED[name]
        elif name not in colours:
            colours[name] = OTHERS[files % len(OTHERS)]
            files += 1
    return colours


def theme() -> str:
    """The style sheet's custom properties: light, dark where the reader's system asks for it, light again on paper."""
    light, dark = (";".join(f"--{name}:{value}" for name, value in colours.items()) for colours in (LIGHT, DARK))
    return (
        f":root{{color-scheme:light dark;{light}}}"
        f"@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}"
        "@media print{:root{color-scheme:light}}"
    )
