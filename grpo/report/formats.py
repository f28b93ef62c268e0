"""How numbers are written for people, in the report and on the screen."""

from __future__ import annotations

from grpo.evaluation.estimates import Interval

_MINUS = "\u2212"


def shown(value: float, percent: bool = False) -> str:
    """About three digits, with a real minus sign: 0.625, 31.4, 1,234, 2.0e-5, and 12.3% for a share."""
    size, sign = abs(value), _MINUS if value < 0 else ""
    if percent:
        return f"{sign}{100 * size:.1f}%"
    if size == 0:
        return "0"
    if size < 0.001:
        digits, power = f"{size:.1e}".split("e")
        return f"{sign}{digits}e{int(power)}"
    places = next((places for limit, places in ((1, 3), (10, 2), (100, 1)) if size < limit), 0)
    return f"{sign}{size:,.{places}f}"


def signed(value: float, percent: bool = False) -> str:
    """A change, with its sign; of a share in percentage points."""
    size = f"{100 * abs(value):.1f} points" if percent else shown(abs(value))
    return ("+" if value >= 0 else _MINUS) + size


def bounds(interval: Interval, signs: bool = False) -> str:
    """The ends of the interval of a share, in percent; of a change with their signs."""
    ends = (100 * interval.low, 100 * interval.high)
    return " to ".join(f"{end:+.1f}" if signs else f"{end:.1f}" for end in ends).replace("-", _MINUS)
