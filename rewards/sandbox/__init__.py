"""Runs Python that a model has written: it may compute, and tell what came out. Nothing else.

One answer is run in one process, a fresh interpreter (`inside`) that confines itself (`confine`) before it reads a
word of the answer. `run` holds the trusted side. What the code can no longer do, in its own process or from native
code reached through ctypes:

* write, make, change or remove any file: there is no folder it may write to, so none has to be removed either;
* read files, but for the standard library and shared libraries: nothing of ``/proc``, ``/home``, ``/etc``;
* open a socket of any kind, start a process, signal or trace one, or change any process's limits;
* use more CPU, memory, threads or output than allowed, or sleep for long: it is killed from outside;
* outlive the process that started it (PR_SET_PDEATHSIG).

Two walls of the kernel stand behind each of these where possible: a seccomp filter that lists what is allowed
(`seccomp`) and Landlock (`landlock`). Neither needs privileges. Where either is missing nothing is run.

The verdict does not depend on these walls alone. What is expected never enters the sandbox; values leave it as
plain data (`values`), and are compared outside. Whatever the code does to the interpreter around it, all it
achieves is to send other data, and it does not know which.

Not confined: it can see whether a path exists, its size and its dates (stat), the machine's clocks, and the number
of its CPUs. It shares the kernel, so a hole in the kernel is a hole in the sandbox. Packages that are installed
next to the standard library instead of in a virtual environment may be readable, though not importable.
"""
