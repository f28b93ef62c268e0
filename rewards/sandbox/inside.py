"""What runs in the sandboxed process. Once it has begun to run the answer's code, nothing that it sends is trusted.

It reads one request from stdin, confines itself, and sends replies through a pipe: four bytes of length, then the pair
(kind, content) as `values` writes it. The first reply says that it is confined (or why not), the next two say whether
the set-up and the answer ran; then there is one for each expression or input. Replies are sent one by one, so that the
other side knows what was being worked on when it had to kill this process.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import io
import os
import sys
from types import ModuleType

from rewards.sandbox.confine import lock_down
from rewards.sandbox.values import NotPlainError, decode, encode

OUTPUT_BYTES = 4 << 20
"""The most that a program may print for one input."""
_MAX_ERROR_CHARS = 300

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Send = Callable[[str, Any], None]


def main() -> None:
    """Read the request, confine this process, and only then run the code in the request."""
    request = decode(_read_all(0))
    send = _open_reply_pipe()
    try:
        program_input, program_output = os.memfd_create("stdin"), os.memfd_create("stdout")
        longest = max((len(text) for text in request["inputs"]), default=0)
        lock_down(file_bytes=max(OUTPUT_BYTES, longest), **request["confinement"])
        _hide_parent_and_arguments()
    except Exception as error:
        send("refused", f"{type(error).__name__}: {error}")
        return
    send("ready", None)
    if request["inputs"]:
        _run_all(send, request["source"], request["inputs"], program_input, program_output)
    else:
        _evaluate_all(send, request["setup"], request["source"], request["expressions"])
    os._exit(0)


def _read_all(descriptor: int) -> bytes:
    return b"".join(iter(lambda: os.read(descriptor, 1 << 20), b""))


def _open_reply_pipe() -> Send:
    """Keep stdout as the pipe for replies, put /dev/null in the place of the standard files, and close all others.

    Returns the function that sends a reply.
    """
    pipe, nothing = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.closerange(3, pipe)
    os.closerange(pipe + 1, 1024)

    def send(kind: str, content: Any) -> None:
        data = encode((kind, content))
        data = len(data).to_bytes(4, "big") + data
        while data:
            data = data[os.write(pipe, data) :]

    return send


def _hide_parent_and_arguments() -> None:
    """Empty environment and arguments. `exit` and `quit`, which Python leaves out with its option -S, are put back."""
    os.environ.clear()
    sys.argv[:] = [""]
    setattr(builtins, "exit", sys.exit)  # noqa: B010
    setattr(builtins, "quit", sys.exit)  # noqa: B010


def _evaluate_all(send: Send, setup: str, source: str, expressions: Iterable[str]) -> None:
    """Run set-up and answer as one module, and reply with the value of each expression in it."""
    module = _module("answer")
    for name, code in (("<setup>", setup), ("<answer>", source)):
        error = _attempt(_execute, code, name, module)[1]
        if error is not None:
            send("error", error)
            return
        send("value", None)
    for expression in expressions:
        value, error = _attempt(eval, expression, module.__dict__)
        _reply(send, value, error)


def _reply(send: Send, value: Any, error: str | None) -> None:
    if error is None:
        try:
            send("value", value)
        except (NotPlainError, RecursionError, MemoryError) as reason:
            error = f"the result cannot be compared: {reason or type(reason).__name__}"
    if error is not None:
        send("error", error)


def _run_all(send: Send, source: str, inputs: Iterable[bytes], stdin: int, stdout: int) -> None:
    """Run the answer as a program, once for each input, and reply with what it printed."""
    send("value", None)
    _reply(send, None, _attempt(compile, source, "<answer>", "exec")[1])
    for text in inputs:
        _fill(stdin, text)
        _fill(stdout, b"")
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        error = _run_program(source)
        printed = os.pread(stdout, OUTPUT_BYTES + 1, 0)
        if len(printed) >= OUTPUT_BYTES:
            error = f"printed over {OUTPUT_BYTES >> 20} MiB"
        _reply(send, printed, error)


def _run_program(source: str) -> str | None:
    """Run the answer as ``__main__``, from start to exit. Returns what went wrong, or None.

    Files that it has opened on its stdin and stdout are flushed and collected, since the next run uses these again.
    """
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    module = _module("__main__")
    error = _attempt(_execute, source, "<answer>", module, ends_by_exit=True)[1]
    error = _attempt(_finish_program)[1] or error
    module.__dict__.clear()
    sys.stdin, sys.stdout = io.StringIO(), io.StringIO()
    gc.collect()
    return error


def _fill(descriptor: int, content: bytes) -> None:
    """Replace the content of a file in memory, and go back to its beginning."""
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    while content:
        content = content[os.write(descriptor, content) :]
    os.lseek(descriptor, 0, os.SEEK_SET)


def _finish_program() -> None:
    """What the interpreter does at a program's end: wait for threads, run exit functions, flush stdout."""
    threading: Any = sys.modules.get("threading")
    if threading is not None:
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
    atexit._run_exitfuncs()
    if not sys.stdout.closed:
        sys.stdout.flush()


def _module(name: str) -> ModuleType:
    """A new module of that name, in `sys.modules`, where dataclasses and pickle look it up."""
    module = ModuleType(name)
    sys.modules[name] = module
    return module


def _execute(source: str, name: str, module: ModuleType) -> None:
    exec(compile(source, name, "exec"), module.__dict__)


def _attempt(action: Callable[..., Any], *arguments: Any, ends_by_exit: bool = False) -> tuple[Any, str | None]:
    """The action's result, or in one line what it raised. A program may end by exiting without an error."""
    try:
        return action(*arguments), None
    except SystemExit as error:
        if ends_by_exit and error.code in (None, 0):
            return None, None
        return None, f"SystemExit: {_text_of(error.code)}"
    except BaseException as error:
        return None, f"{type(error).__name__}: {_text_of(error)}".removesuffix(": ")


def _text_of(value: Any) -> str:
    try:
        return str(value)[:_MAX_ERROR_CHARS]
    except BaseException:
        return "(it has no text)"
