"""Rewards that are the same for all completions of some problems, or of all."""

from __future__ import annotations

import zlib

from toy import lower_case_share

TENTH = 0.1
"""Of a group of three, the mean as a computer adds it up is another number."""


def on_most(prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
    """Two problems of three are flat: which, their question says."""
    if zlib.crc32(prompts[0].encode()) % 3:
        return [TENTH for _ in completions]
    return lower_case_share(prompts, completions)


def on_all(prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
    return [TENTH for _ in completions]
