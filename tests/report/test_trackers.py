"""No tracker can stop or slow a run: fakes that raise, hang and lag, and TensorBoard for real."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from grpo.run import trackers
from grpo.run.trackers import Trackers, finite


class Fake:
    """A tracker that remembers, and may be told what to do first on each call."""

    def __init__(self, on_log: Callable[[], None] = lambda: None) -> None:
        self.rows: list[tuple[int, Mapping[str, float]]] = []
        self.closed = False
        self._on_log = on_log

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._on_log()
        self.rows.append((step, metrics))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """An event that nobody sets during the test: to wait for it is to hang."""
    event = threading.Event()
    yield event
    event.set()


def use(monkeypatch: pytest.MonkeyPatch, **fakes: Callable[..., Any]) -> None:
    for name, opener in fakes.items():
        monkeypatch.setitem(trackers.OPENERS, name, opener)


def open_all(tmp_path: Path, *names: str) -> Trackers:
    return Trackers(names, tmp_path, "a run", {"seed": 1})


def raising() -> None:
    raise ConnectionError("no network")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_finite_numbers_only() -> None:
    row = {"step": 3, "a": 1, "b": 0.5, "c": None, "d": "x", "e": float("nan"), "f": float("inf"), "g": True}
    assert finite(row) == {"a": 1.0, "b": 0.5}


def test_rows_arrive_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = Fake()
    use(monkeypatch, wandb=lambda *_: fake)
    open_trackers = open_all(tmp_path, "wandb")
    for step in range(50):
        open_trackers.log(step, {"step": step, "reward/mean": step / 2, "update/lr": None})
    open_trackers.close()
    assert fake.rows == [(step, {"reward/mean": step / 2}) for step in range(50)]
    assert fake.closed


def test_a_raising_tracker_is_named_once_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = Fake(), Fake(raising)
    use(monkeypatch, wandb=lambda *_: bad, trackio=lambda *_: good)
    open_trackers = open_all(tmp_path, "wandb", "trackio")
    for step in range(20):
        open_trackers.log(step, {"a": 1.0})
    open_trackers.close()
    assert [step for step, _ in good.rows] == list(range(20))
    assert len(warnings(caplog)) == 1
    assert "tracker wandb dropped: ConnectionError: no network" in warnings(caplog)[0]


def test_a_missing_package_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    open_trackers = open_all(tmp_path, "wandb")
    open_trackers.log(1, {"a": 1.0})
    open_trackers.close()
    assert len(warnings(caplog)) == 1
    assert "ModuleNotFoundError" in warnings(caplog)[0]


def test_a_tracker_that_exits_does_not_exit_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, wandb=lambda *_: sys.exit(3))
    open_all(tmp_path, "wandb").close()
    assert "SystemExit: 3" in warnings(caplog)[0]


def test_a_hanging_tracker_costs_no_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, never: threading.Event
) -> None:
    good = Fake()
    use(monkeypatch, wandb=lambda *_: Fake(lambda: void(never.wait())), trackio=lambda *_: good)
    open_trackers = open_all(tmp_path, "wandb", "trackio")
    began = time.monotonic()
    for step in range(100):
        open_trackers.log(step, {"a": 1.0})
    assert time.monotonic() - began < 0.2
    open_trackers.close(timeout_s=0.3)
    assert time.monotonic() - began < 1.0
    assert len(good.rows) == 100
    assert len(warnings(caplog)) == 1
    assert "did not finish in time" in warnings(caplog)[0]


def test_two_hanging_openers_share_one_time_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, never: threading.Event
) -> None:
    use(monkeypatch, wandb=lambda *_: never.wait(), trackio=lambda *_: never.wait())
    open_trackers = open_all(tmp_path, "wandb", "trackio")
    began = time.monotonic()
    open_trackers.close(timeout_s=0.3)
    assert time.monotonic() - began < 0.55


def test_a_long_call_is_noticed_during_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, never: threading.Event
) -> None:
    monkeypatch.setattr(trackers, "_MAX_CALL_S", 0.05)
    use(monkeypatch, wandb=lambda *_: Fake(lambda: void(never.wait())))
    open_trackers = open_all(tmp_path, "wandb")
    open_trackers.log(1, {"a": 1.0})
    time.sleep(0.2)
    for step in range(2, 10):
        open_trackers.log(step, {"a": 1.0})
    assert len(warnings(caplog)) == 1
    assert "one call has taken more than 0.05 s" in warnings(caplog)[0]


def test_a_long_pause_between_rows_is_no_hang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = Fake()
    monkeypatch.setattr(trackers, "_MAX_CALL_S", 0.05)
    use(monkeypatch, wandb=lambda *_: fake)
    open_trackers = open_all(tmp_path, "wandb")
    open_trackers.log(1, {"a": 1.0})
    time.sleep(0.2)
    for step in range(2, 30):
        open_trackers.log(step, {"a": 1.0})
    open_trackers.close()
    assert len(fake.rows) == 29


def test_waiting_rows_are_bounded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, never: threading.Event
) -> None:
    monkeypatch.setattr(trackers, "_MAX_WAITING", 10)
    use(monkeypatch, wandb=lambda *_: Fake(lambda: void(never.wait())))
    open_trackers = open_all(tmp_path, "wandb")
    for step in range(1000):
        open_trackers.log(step, {"a": 1.0})
    open_trackers.close(timeout_s=5)
    assert len(warnings(caplog)) == 1
    assert "10 rows wait for it" in warnings(caplog)[0]


def test_tensorboard_for_real(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    open_trackers = open_all(tmp_path, "tensorboard")
    for step in (1, 2, 3):
        open_trackers.log(step, {"step": step, "reward/mean": step / 4, "update/kl_nats": None})
    open_trackers.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors("reward/mean")]
    assert found == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert events.Tags()["tensors"] == ["reward/mean"]


def void(_: object) -> None:
    """Make a statement of an expression."""
