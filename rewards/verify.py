"""The verifier alone, for scripts and tests: ``python -m rewards.verify --jsonl FILE``.

FILE has rows ``{"id", "gold", "prediction", "level"}`` and optionally ``"checker"`` (default math). Level ``answer``
means that the prediction is the bare answer, ``completion`` that the answer has to be found in it: in its
``<answer>`` block if it has one, else in its last box. Without a level, a prediction with tags or a box is a
completion. For each row, in the same order, one row ``{"id", "outcome", "reward", "wall_s"}`` is written, with a
``"reason"`` where there is one; reward is 1.0 for a correct answer and 0.0 for all else, wall_s the seconds that the
verdict took. A row that cannot be read has the outcome ``bad_row``, is named on stderr, and does not end the run.

Exit codes: 0 done, 1 the workers failed, 2 the user's to mend.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rewards.answer_policy import AnswerPolicy
from rewards.errors import PoolError, did_you_mean
from rewards.jsonl import RowFileError, open_source, open_writer
from rewards.verdicts.one_answer import verify_answer
from rewards.verdicts.question_rows import verify_rows
from rewards.verdicts.verifier import Question, Verifier
from rewards.workers.limits import num_cpus

__all__ = ["Question", "Verifier", "main", "verify_answer"]

_ROWS_PER_FLUSH = 256


class OptionError(ValueError):
    """An option of the command that cannot be used: ``--option=value: what is wrong; what to do``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        _verify_file(options)
    except (OptionError, RowFileError) as error:
        print(error, file=sys.stderr)
        return 2
    except PoolError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rewards.verify", description="Verify answers against golds.")
    parser.add_argument("--jsonl", type=Path, required=True, metavar="FILE", help="rows: id, gold, prediction, level")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the rows go (default: the screen)")
    parser.add_argument("--workers", type=int, default=num_cpus(), help="worker processes (default: one a core)")
    parser.add_argument("--deadline-s", type=float, default=5.0, help="wall-clock seconds for one verdict")
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="key=value",
        help=f"what to do where graders disagree; may be given several times ({', '.join(AnswerPolicy.model_fields)})",
    )
    return parser


def _verify_file(options: argparse.Namespace) -> None:
    """Verify all rows. Raises OptionError or RowFileError for options and files that cannot be used."""
    if options.workers < 1:
        raise OptionError(f"--workers={options.workers}: not above 0; give 1 or more")
    if not 0 < options.deadline_s < math.inf:
        raise OptionError(f"--deadline-s={options.deadline_s}: not a number of seconds above 0; give one, such as 5")
    policy = parse_policy(options.policy)
    with (
        open_source(options.jsonl, "--jsonl") as source,
        open_writer(options.out, options.jsonl) as writer,
        Verifier(num_workers=options.workers, deadline_s=options.deadline_s, policy=policy) as verifier,
    ):
        for number, row in enumerate(verify_rows(source, verifier), start=1):
            writer.write(row)
            if number % _ROWS_PER_FLUSH == 0:
                writer.flush()


def parse_policy(settings: Sequence[str]) -> AnswerPolicy:
    """The policy that ``key=value`` settings make; values are JSON or plain words. Raises OptionError."""
    chosen = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise OptionError(f"--policy={setting}: has no value; write key=value")
        chosen[key] = _parsed(value)
    try:
        return AnswerPolicy.model_validate(chosen)
    except ValidationError as error:
        raise OptionError("\n".join(_policy_fault(fault) for fault in error.errors())) from None


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _policy_fault(fault: Mapping[str, Any]) -> str:
    """An error of pydantic's in the form ``--policy=key=value: what is wrong; what to do``."""
    key = str(fault["loc"][0])
    where = f"--policy={key}={fault['input']!r:.80}"
    if fault["type"] == "extra_forbidden":
        return f"{where}: no such policy; {did_you_mean(key, AnswerPolicy.model_fields)}"
    if fault["type"] == "literal_error":
        return f"{where}: not one of its values; use {fault['ctx']['expected']}"
    return f"{where}: {fault['msg'][:1].lower()}{fault['msg'][1:]}; give such a value"


if __name__ == "__main__":
    sys.exit(main())
