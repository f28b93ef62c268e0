"""Is it right: answer extraction, checkers, rewards and the killable worker pool. Never imports torch.

`rewards.verify_answer(gold, prediction) -> bool` is loaded when it is first asked for, so that the import of this
package costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's, without importing it: every sandboxed program imports this package
if TYPE_CHECKING:
    from rewards.verdicts.one_answer import verify_answer
else:

    def __getattr__(name: str) -> object:
        if name != "verify_answer":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from rewards.verdicts.one_answer import verify_answer

        return verify_answer


__all__ = ["verify_answer"]
