"""Is it right: answer extraction, checkers, rewards and the killable worker pool. Never imports torch."""
