"""Short ways to write requests."""

from rewards.types import Response, ScoreRequest


def tagged(answer: str) -> str:
    return f"<think>work</think><answer>{answer}</answer>"


def request(*texts: str, gold: str = "71", checker: str = "integer", **more: object) -> ScoreRequest:
    responses = tuple(Response(text, num_tokens=10 * (i + 1), truncated=False) for i, text in enumerate(texts))
    return ScoreRequest("t/0", "What is 23 + 48?", gold, checker, responses, **more)  # type: ignore[arg-type]
