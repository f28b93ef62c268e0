"""The writing of numbers, against texts worked out by hand."""

from __future__ import annotations

import pytest

from grpo.evaluation.estimates import Interval
from grpo.report.formats import bounds, shown, signed


@pytest.mark.parametrize(
    ("value", "percent", "expected"),
    [
        (0.1234, True, "12.3%"),
        (0.6249, False, "0.625"),
        (1.2, False, "1.20"),
        (31.44, False, "31.4"),
        (1234.5, False, "1,234"),
        (0.0, False, "0"),
        (-0.00002, False, "\u22122.0e-5"),
    ],
)
def test_shown(value: float, percent: bool, expected: str) -> None:
    assert shown(value, percent) == expected


def test_signed() -> None:
    assert [signed(0.125, True), signed(-0.5, True), signed(-49.0)] == [
        "+12.5 points",
        "\u221250.0 points",
        "\u221249.0",
    ]


def test_bounds_are_percent_and_those_of_a_change_have_signs() -> None:
    assert bounds(Interval(0.3, 0.25, 0.3456)) == "25.0 to 34.6"
    assert bounds(Interval(0.0, -0.05, 0.1), signs=True) == "\u22125.0 to +10.0"
