"""Reward functions that misbehave, each in its own way. Named by dotted path; they run in workers only."""

import ctypes
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import sympy.core.random

from rewards import ScoreRequest


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


def answers_too_deeply(prompts, completions, **columns):
    """A message like those of the worker, of JSON that no parser takes."""
    deep = b"[" * 50_000
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, struct.pack("!i", len(deep)) + deep)
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


def takes_a_request(request: ScoreRequest, scale=1.0):
    return [scale * response.num_tokens for response in request.responses]


def swallows_a_large_refusal(prompts, completions, **columns):
    try:
        return [float(len(bytearray(10 << 30)))] * len(completions)
    except Exception:
        return [0.0] * len(completions)


def swallows_many_small_refusals(prompts, completions, **columns):
    taken = []
    while len(taken) < 10_000_000:
        try:
            taken.append([taken])
        except Exception:
            break
    return [0.0] * len(completions)


def swallows_a_refusal_deep_down(prompts, completions, depth=300, **columns):
    if depth:
        return swallows_a_refusal_deep_down(prompts, completions, depth - 1)
    try:
        raise ValueError
    except ValueError:
        return swallows_a_large_refusal(prompts, completions)


def waits_to_be_released(prompts, completions, folder):
    Path(folder[0], "started").touch()
    while not Path(folder[0], "released").exists():
        time.sleep(0.01)
    return [1.0] * len(completions)


def says_so_and_loops(prompts, completions, folder):
    Path(folder[0], "started").touch()
    while True:
        pass


def tells_its_pid(prompts, completions, **columns):
    return [os.getpid()]


def runs_code_without_end(prompts, completions, **columns):
    from rewards.sandbox.run import Job, Sandbox

    with Sandbox(Job("import time\ntime.sleep(600)"), 600) as sandbox:
        sandbox.next()
        sandbox.next()


def kills_the_zygote(prompts, completions, **columns):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)


def starts_a_process_and_sleeps(prompts, completions, **columns):
    subprocess.Popen(["sleep", "3600"])
    time.sleep(3600)


def orphans_a_process_and_dies(prompts, completions, **columns):
    subprocess.Popen(["sleep", "3600"])
    os._exit(0)


def draws_random_numbers(prompts, completions, **columns):
    return [random.random(), sympy.core.random.rng.random()]


def counts_descriptors(prompts, completions, **columns):
    time.sleep(0.2)  # so that each worker gets one
    return [float(len(os.listdir("/proc/self/fd")))] * len(completions)


def tells_its_cpu_limit(prompts, completions, **columns):
    import resource

    return [float(resource.getrlimit(resource.RLIMIT_CPU)[0]), time.process_time()]
