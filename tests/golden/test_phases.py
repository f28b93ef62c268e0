"""The phases's bookkeeping, on a clock that the test moves."""

from __future__ import annotations

import pytest

from grpo.phases import PhaseClock


class Clock:
    """Stands still until it is told to move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("grpo.phases.time.perf_counter", lambda: self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_phases_add_up_and_the_step_is_all_of_it(clock: Clock) -> None:
    phases = PhaseClock()
    clock.wait(1)
    with phases.phase("generate"):
        clock.wait(4)
    with phases.phase("update"):
        clock.wait(2)
    with phases.phase("generate"):
        clock.wait(0.5)
    clock.wait(0.25)
    assert phases.lap() == {"time/generate_s": 4.5, "time/update_s": 2.0, "time/step_s": 7.75}


def test_a_lap_starts_from_nothing(clock: Clock) -> None:
    phases = PhaseClock()
    with phases.phase("update"):
        clock.wait(2)
    phases.note("sync/gap_nats", 0.5)
    phases.lap()
    clock.wait(3)
    assert phases.notes() == {}
    assert phases.lap() == {"time/step_s": 3.0}


def test_a_phase_inside_another_belongs_to_the_outer(clock: Clock) -> None:
    phases = PhaseClock()
    heard: list[str] = []
    phases.on_phase = heard.append
    with phases.phase("eval"):
        clock.wait(1)
        with phases.phase("generate"):
            clock.wait(5)
            phases.note("speed/tokens_per_s", 9.0)
        clock.wait(1)
    phases.note("speed/tokens_per_s", 7.0)
    assert phases.notes() == {"speed/tokens_per_s": 7.0}
    assert phases.lap() == {"time/eval_s": 7.0, "time/step_s": 7.0}
    assert heard == ["eval"]


def test_a_phase_that_fails_is_counted_and_closed(clock: Clock) -> None:
    phases = PhaseClock()

    def fail() -> None:
        with phases.phase("score"):
            clock.wait(2)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    with phases.phase("update"):
        clock.wait(1)
    assert phases.lap() == {"time/score_s": 2.0, "time/update_s": 1.0, "time/step_s": 3.0}
