"""Is it right: rewards for completions, and verdicts on their answers, in processes that can be killed.

What callers need is on top: `scorer` (rewards for groups), `verify` (verdicts for scripts, and the command), `spec` and
`answer_policy` (what a recipe says), `records` (what goes in and comes out), `jsonl` and `errors`. The rooms below it:

* `answers`: from the text of a completion to the answer in it;
* `checkers`: from an answer and a gold to a verdict, and `sandbox`, in which answers that are code run;
* `parts`: the rewards that a recipe can name, and the user's own;
* `workers`: the processes, their pool, and the limits on them;
* `verdicts`: verdicts without rewards, each distinct answer verified once.

Nothing here imports torch. `rewards.verify_answer` and `rewards.ScoreRequest` are loaded when they are first asked for:
every sandboxed program imports this package, so that its import has to cost nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's, without importing it
if TYPE_CHECKING:
    from rewards.records import ScoreRequest
    from rewards.verdicts.one_answer import verify_answer
else:

    def __getattr__(name: str) -> object:
        if name == "verify_answer":
            from rewards.verdicts.one_answer import verify_answer

            return verify_answer
        if name == "ScoreRequest":
            from rewards.records import ScoreRequest

            return ScoreRequest
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["ScoreRequest", "verify_answer"]
