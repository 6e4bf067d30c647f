"""Numbers in words: the one form that each kind of number has on the page."""

from __future__ import annotations

MISSING = "n/a"  # what was not measured is never estimated


def percent(value: float | None) -> str:
    """A score 0..1 in percent.

    >>> percent(0.56789), percent(None)
    ('56.79', 'n/a')
    """
    return MISSING if value is None else f"{100 * value:.2f}"


def points(value: float | None) -> str:
    """A difference in points, with its sign; a true minus, as in print.

    >>> points(-0.314), points(0.0), points(1.5)
    ('−0.31', '0.00', '+1.50')
    """
    if value is None:
        return MISSING
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text.replace("-", "−")


def difference(after: float | None, before: float | None) -> float | None:
    """Points between two scores 0..1."""
    return None if after is None or before is None else 100 * (after - before)


def milliseconds(value: float | None) -> str:
    """Milliseconds with three to four significant digits.

    >>> milliseconds(0.0423), milliseconds(3.14159), milliseconds(123.4)
    ('0.042', '3.14', '123.4')
    """
    if value is None:
        return MISSING
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def megabytes(size: int | None) -> str:
    """Bytes as MB (10**6)."""
    return MISSING if size is None else f"{size / 1e6:.2f}"


def millions(count: int | None) -> str:
    """A count in millions."""
    return MISSING if count is None else f"{count / 1e6:.2f}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them.

    >>> duration(75), duration(3725), duration(8.4)
    ('1 min 15 s', '1 h 2 min', '8 s')
    """
    if seconds is None:
        return MISSING
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def decibels(value: float | None) -> str:
    """A ratio in dB."""
    return MISSING if value is None else f"{value:.1f}".replace("-", "−")


def scientific(value: float | None) -> str:
    """A small magnitude.

    >>> scientific(0.000123)
    '1.23e-04'
    """
    return MISSING if value is None else f"{value:.2e}"


def model_title(name: str, condition: str = "") -> str:
    """What a row of ``eval.json`` is called on the page; ``condition`` is what its scores are subject to.

    >>> model_title("student-int8-ort-cpu.deploy"), model_title("baseline")
    ('Student INT8, deploy graph', 'Baseline')
    """
    if condition:
        return f"{model_title(name)} {condition}"
    role, _, rest = name.partition("-")
    title = role.capitalize()
    if not rest:
        return title
    precision, _, target = rest.partition("-")
    target, _, graph = target.rpartition(".")
    title += f" {precision.upper()}"
    if target not in ("", "any", "ort-cpu"):
        title += f" for {target}"
    return f"{title}, deploy graph" if graph == "deploy" else f"{title}, ONNX"
