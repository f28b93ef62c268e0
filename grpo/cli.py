"""The `grpo` command. Nothing heavy is imported before the arguments and the recipe are known to be right."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from grpo.bench.options import add_arguments
from grpo.parallel.threads import wait_briefly

EXIT_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
_USERS_TO_MEND = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit code: 0 done, 1 failed, 2 the user's to mend, 130 interrupted."""
    options = parse(arguments)
    from data.errors import DataError
    from grpo.errors import EngineError, SyncError, UserError
    from rewards.errors import PoolError

    _quieten_libraries()
    wait_briefly()
    try:
        code = options.run(options)
    except (UserError, DataError) as error:
        _leave(str(error), EXIT_USER_ERROR)
    except (EngineError, SyncError, PoolError) as error:
        _leave(str(error), EXIT_FAILED)
    except OSError as error:
        if error.errno not in _USERS_TO_MEND:
            raise
        _leave(f"{error.filename}: {error.strerror}; free some room or choose another place", EXIT_USER_ERROR)
    except KeyboardInterrupt:
        _leave(options.when_interrupted, EXIT_INTERRUPTED)
    sys.exit(code)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; overrides may stand anywhere in it, and not only beside the file, as argparse has it."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    foreign = [word for word in rest if word.startswith("-") or "=" not in word or "overrides" not in options]
    if foreign:
        parser.error(f"unrecognized arguments: {' '.join(foreign)}")
    if rest:
        options.overrides += rest
    return options


def build_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = argparse.ArgumentParser(prog="grpo", description="GRPO for reasoning models with rule-based rewards.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a recipe, or go on with a run that was stopped")
    _add_recipe(train)
    resumes = "interrupted; the same command goes on from the last checkpoint, if there is one"
    train.set_defaults(run=_train, when_interrupted=resumes)
    evaluate = commands.add_parser("eval", help="evaluate a model on a recipe's held-out sets")
    _add_recipe(evaluate)
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write the metrics there as well")
    evaluate.set_defaults(run=_eval, when_interrupted="interrupted")
    _add_score(commands.add_parser("score", help="give rewards to the completions of a JSONL file, without a model"))
    report = commands.add_parser("report", help="write a run's report again from its rows")
    report.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    report.set_defaults(run=_report, when_interrupted="interrupted")
    bench = commands.add_parser("bench", help="time an update on fixed rollouts, beside the padded way and TRL")
    add_arguments(bench)
    bench.set_defaults(run=_bench, when_interrupted="interrupted")
    return parser


def _add_score(score: argparse.ArgumentParser) -> None:
    score.add_argument("file", type=Path, metavar="FILE", help="JSONL: completion, gold, checker, group, …")
    score.add_argument("overrides", nargs="*", metavar="section.key=value", help="replace settings of the recipe")
    score.add_argument("--recipe", type=Path, help="take rewards, template, limits and policy from there")
    score.add_argument("--out", type=Path, metavar="OUT", help="where the rows go (default: the screen)")
    instead = score.add_mutually_exclusive_group()
    instead.add_argument(
        "--compare", type=Path, metavar="OTHER.yaml", help="score by this recipe as well; show and write what differs"
    )
    instead.add_argument(
        "--selfcheck",
        action="store_true",
        help="list golds that do not grade themselves correct (exit code 1); FILE: JSONL with gold, or a recipe",
    )
    score.set_defaults(run=_score, when_interrupted="interrupted; rows that are written are whole")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="replace single settings of the recipe"
    )


def _train(options: argparse.Namespace) -> int:
    from grpo.recipe.load import load_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    from grpo.assemble import open_run
    from grpo.train import train

    with open_run(recipe) as run:
        train(run)
    return 0


def _eval(options: argparse.Namespace) -> int:
    from grpo.recipe.load import load_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    from grpo.evaluation.command import evaluate_model

    evaluate_model(recipe, options.json)
    return 0


def _score(options: argparse.Namespace) -> int:
    if options.selfcheck:
        from grpo.score.selfcheck import check_golds

        all_good = check_golds(options.file, options.recipe, options.overrides, options.out)
        return 0 if all_good else EXIT_FAILED
    if options.compare:
        from grpo.score.compare import compare_recipes

        compare_recipes(options.file, options.recipe, options.overrides, options.compare, options.out)
        return 0
    from grpo.score.files import score_file

    score_file(options.file, options.recipe, options.overrides, options.out)
    return 0


def _report(options: argparse.Namespace) -> int:
    from grpo.report import write_report

    print(write_report(options.run_dir))
    return 0


def _bench(options: argparse.Namespace) -> int:
    from grpo.bench.options import read_options

    checked = read_options(options)
    from grpo.bench.command import bench

    return bench(checked)


def _quieten_libraries() -> None:
    """Keep the screen for the run: libraries' progress bars and advice go nowhere."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")


def _leave(message: str, code: int) -> NoReturn:
    print(f"grpo: {message}", file=sys.stderr)
    sys.exit(code)
