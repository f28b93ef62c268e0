"""The errors that are a user's to mend. The CLI prints them as they are, without a traceback."""


class UserError(Exception):
    """Something outside the program is wrong: ``where=value: what is wrong; what to do``."""


class RecipeError(UserError):
    """One or more faults in a recipe; the message lists all of them, one a line."""


class SyncError(RuntimeError):
    """The engine does not hold the trainer's weights. Training on its completions would teach noise."""


class EngineError(RuntimeError):
    """The rollout engine failed or stopped answering."""
