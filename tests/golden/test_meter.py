"""The meter's bookkeeping, on a clock that the test moves."""

from __future__ import annotations

import pytest

from grpo.meter import Meter


class Clock:
    """Stands still until it is told to move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("grpo.meter.time.perf_counter", lambda: self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_phases_add_up_and_the_step_is_all_of_it(clock: Clock) -> None:
    meter = Meter()
    clock.wait(1)
    with meter.phase("generate"):
        clock.wait(4)
    with meter.phase("update"):
        clock.wait(2)
    with meter.phase("generate"):
        clock.wait(0.5)
    clock.wait(0.25)
    assert meter.lap() == {"time/generate_s": 4.5, "time/update_s": 2.0, "time/step_s": 7.75}


def test_a_lap_starts_from_nothing(clock: Clock) -> None:
    meter = Meter()
    with meter.phase("update"):
        clock.wait(2)
    meter.note("sync/gap_nats", 0.5)
    meter.lap()
    clock.wait(3)
    assert meter.notes() == {}
    assert meter.lap() == {"time/step_s": 3.0}


def test_a_phase_inside_another_belongs_to_the_outer(clock: Clock) -> None:
    meter = Meter()
    heard: list[str] = []
    meter.on_phase = heard.append
    with meter.phase("eval"):
        clock.wait(1)
        with meter.phase("generate"):
            clock.wait(5)
            meter.note("speed/tokens_per_s", 9.0)
        clock.wait(1)
    meter.note("speed/tokens_per_s", 7.0)
    assert meter.notes() == {"speed/tokens_per_s": 7.0}
    assert meter.lap() == {"time/eval_s": 7.0, "time/step_s": 7.0}
    assert heard == ["eval"]


def test_a_phase_that_fails_is_counted_and_closed(clock: Clock) -> None:
    meter = Meter()

    def fail() -> None:
        with meter.phase("score"):
            clock.wait(2)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    with meter.phase("update"):
        clock.wait(1)
    assert meter.lap() == {"time/score_s": 2.0, "time/update_s": 1.0, "time/step_s": 3.0}
