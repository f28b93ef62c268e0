"""One answer against one gold, for callers who keep nothing: `rewards.verify_answer`."""

from __future__ import annotations

import atexit
import os
import threading

from rewards.errors import PoolError
from rewards.records import Outcome
from rewards.verdicts.verifier import Question, Verifier
from rewards.workers.limits import num_cpus


def verify_answer(gold: str, prediction: str) -> bool:
    """Is the prediction, bare or a whole completion, the gold? Judged by the math checker under default policies.

    Runs in workers that this process keeps for the purpose, as many as it has cores. A verdict may take 5 s from when
    a worker takes the question, and is False when it has not come by then. May be called from any thread; where more
    threads ask than there are workers, a call also waits for its turn, and the first one for the workers to start.
    Raises PoolError where no worker can be started.
    """
    questions = [Question(gold, prediction)]
    verifier = _KEPT.verifier()
    try:
        [verdict] = verifier.verdicts(questions)
    except PoolError:
        [verdict] = _KEPT.verifier(instead_of=verifier).verdicts(questions)
    return verdict.outcome is Outcome.CORRECT


class _Kept:
    """The verifier of this process: opened when it is first asked for, and again when it has died."""

    def __init__(self) -> None:
        self.forget()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Begin anew: the threads that drive a verifier's workers do not come along into a fork."""
        self._lock = threading.Lock()
        self._verifier: Verifier | None = None

    def verifier(self, instead_of: Verifier | None = None) -> Verifier:
        """The verifier to ask; another one than that which has died."""
        with self._lock:
            if self._verifier is instead_of:
                self._drop()
            if self._verifier is None:
                self._verifier = Verifier(num_workers=num_cpus())
            return self._verifier

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._verifier is not None:
            self._verifier.close()
            self._verifier = None


_KEPT = _Kept()
