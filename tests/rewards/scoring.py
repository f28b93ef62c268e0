"""Short ways to write requests."""

from rewards.parts.checked import CheckedResponse
from rewards.records import Response, ScoreRequest


def tagged(answer: str) -> str:
    return f"<think>work</think><answer>{answer}</answer>"


def request(*texts: str, gold: str = "71", checker: str = "integer", **more: object) -> ScoreRequest:
    responses = tuple(Response(text, num_tokens=10 * (i + 1), truncated=False) for i, text in enumerate(texts))
    return ScoreRequest("t/0", "What is 23 + 48?", gold, checker, responses, **more)  # type: ignore[arg-type]


def checked(lengths, outcomes, truncated=False):
    """Completions of so many tokens with these verdicts."""
    pairs = zip(lengths, outcomes, strict=True)
    return [CheckedResponse(Response("", length, truncated), outcome) for length, outcome in pairs]


def request_of(found, **more):
    """The request that such completions belong to."""
    return ScoreRequest("t/0", "", "71", "integer", tuple(one.response for one in found), **more)
