"""Reward functions that misbehave, each in its own way. Named by dotted path; they run in workers only."""

import ctypes
import os
import signal
import sys
import time


def loops_for_ever(prompts, completions, **columns):
    while True:
        pass


def sleeps_for_ever(prompts, completions, **columns):
    time.sleep(3600)


def exits_hard(prompts, completions, **columns):
    os._exit(0)


def kills_itself(prompts, completions, **columns):
    os.kill(os.getpid(), signal.SIGKILL)


def segfaults(prompts, completions, **columns):
    ctypes.string_at(0)


def allocates_ten_gigabytes(prompts, completions, **columns):
    return [float(len(bytearray(10 << 30)))] * len(completions)


def exits_politely(prompts, completions, **columns):
    sys.exit(3)


def raises(prompts, completions, **columns):
    raise RuntimeError("staged")


def closes_the_pipe(prompts, completions, **columns):
    os.closerange(3, 64)
    time.sleep(3600)


def writes_into_the_pipe(prompts, completions, **columns):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"\x7f" * 100)
        except OSError:
            continue
    time.sleep(3600)


def returns_too_few(prompts, completions, **columns):
    return [1.0] * (len(completions) - 1)


def returns_text(prompts, completions, **columns):
    return ["1.0"] * len(completions)


def returns_nan(prompts, completions, **columns):
    return [float("nan")] * len(completions)


def prints_ten_megabytes(prompts, completions, **columns):
    print("x" * 10_000_000)
    sys.stdout.flush()
    return [1.0] * len(completions)


def length_of_column(prompts, completions, **columns):
    return [len(column) + len(prompt) for prompt, column in zip(prompts, columns["answer"], strict=True)]


def names_only_what_it_needs(completions, bonus=0):
    return [None if "skip" in text else len(text) + bonus for text in completions]


def takes_a_request(request, scale=1.0):
    return [scale * response.num_tokens for response in request.responses]
