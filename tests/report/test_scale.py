"""Ticks, pixels and the writing of numbers, against values worked out by hand."""

from __future__ import annotations

import pytest

from grpo.report.scale import Scale, log_ticks, shown, signed, step_scale, tick_label, ticks, value_scale


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0, 7, [0, 2, 4, 6, 8]),
        (-0.3, 0.9, [-0.5, 0, 0.5, 1.0]),
        (0, 3.1e-5, [0, 1e-5, 2e-5, 3e-5, 4e-5]),
        (0, 0, [0, 1]),
        (5, 5, [5, 6]),
    ],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    found = ticks(low, high)
    assert found == pytest.approx(expected)
    assert found[0] <= low <= high <= found[-1]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.002, 5.0, [0.001, 0.01, 0.1, 1, 10]), (1.0, 1.0, [1, 10]), (1e-9, 1.0, [1e-9, 1e-6, 1e-3, 1])],
)
def test_log_ticks(low: float, high: float, expected: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(expected)


def test_straight_and_logarithmic_pixels() -> None:
    assert [Scale(0, 10, 100, 0)(v) for v in (0, 2.5, 10)] == [100, 75, 0]
    assert [Scale(0.01, 100, 0, 40, log=True)(v) for v in (0.01, 0.1, 1, 100)] == pytest.approx([0, 10, 20, 40])
    assert [Scale(0, 10, 0, 100)(v) for v in (-5, 50)] == [0, 100]


def test_a_logarithmic_axis_only_where_it_is_allowed_and_useful() -> None:
    assert value_scale([1e-5, 1e-2], 0, 100, may_log=True)[0].log
    assert not value_scale([1e-5, 1e-2], 0, 100, may_log=False)[0].log
    assert not value_scale([0.0, 1e-2], 0, 100, may_log=True)[0].log
    assert not value_scale([0.1, 5.0], 0, 100, may_log=True)[0].log


def test_step_ticks_are_whole_steps_inside_the_run() -> None:
    assert step_scale(1, 80, 0, 100)[1] == [20, 40, 60, 80]
    assert step_scale(0, 3, 0, 100)[1] == [0, 1, 2, 3]
    assert step_scale(7, 7, 0, 100)[1] == [7]
    assert step_scale(7, 7, 0, 100)[0](7) == 50


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


def test_tick_labels() -> None:
    assert [tick_label(v) for v in (0, 0.05, 2000, 15000, 1e-5, -0.2)] == [
        "0",
        "0.05",
        "2000",
        "15k",
        "1e-5",
        "\u22120.2",
    ]
    assert tick_label(0.2, percent=True) == "20%"
