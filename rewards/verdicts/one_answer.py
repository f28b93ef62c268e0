"""One answer against one gold, for callers who keep no verifier: `rewards.verify_answer`."""

from __future__ import annotations

import atexit
import os
import threading

from rewards.errors import PoolError
from rewards.records import Outcome
from rewards.verdicts.verifier import Question, Verifier
from rewards.workers.limits import num_cpus


def verify_answer(gold: str, prediction: str) -> bool:
    """Is the prediction, bare or a whole completion, the gold? The math checker decides, under the default policy.

    Runs in workers that this process keeps for the purpose, as many as it has cores. A verdict may take 5 s from when
    a worker takes the question, and is False when it has not come by then. May be called from any thread; where more
    threads call than there are workers, a call also waits for its turn, and the first one for the workers to start.
    Raises PoolError where no worker can be started.
    """
    questions = [Question(gold, prediction)]
    verifier = KEPT_VERIFIER.get()
    try:
        [verdict] = verifier.verdicts(questions)
    except PoolError:
        [verdict] = KEPT_VERIFIER.get(instead_of=verifier).verdicts(questions)
    return verdict.outcome is Outcome.CORRECT


class KeptVerifier:
    """A verifier that is opened when it is first needed, opened again when it has died, and closed at exit.

    A forked process opens its own: the threads that drive a verifier's workers do not come along into a fork.
    """

    def __init__(self) -> None:
        self._verifier: Verifier | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def get(self, instead_of: Verifier | None = None) -> Verifier:
        """The verifier. Give the one that has died as `instead_of` to get another."""
        with self._lock:
            if self._verifier is instead_of:
                self._close_verifier()
            if self._verifier is None:
                self._verifier = Verifier(num_workers=num_cpus())
            return self._verifier

    def close(self) -> None:
        """Kill its workers. The next `get` opens it again."""
        with self._lock:
            self._close_verifier()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._verifier = None

    def _close_verifier(self) -> None:
        if self._verifier is not None:
            self._verifier.close()
            self._verifier = None


KEPT_VERIFIER = KeptVerifier()
"""The one that `verify_answer` uses in this process."""
