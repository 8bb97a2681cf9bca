"""The wire: the job as it comes in, the reply as it goes out.

First part of the harness, which runs inside the task's process, around the user's code. The parts
are one module, joined in this order: wire, process, source, errors, task, zygote. `main` runs one
job in this process and ends with it; `serve` is the zygote of a jail.

Asked by the service over the control socket, which is descriptor 0 at the start: one job comes in,
one reply goes out. Kept lean on purpose: nothing of the standard library that is written in Python
is imported before the user's code asks for it, because `json` alone would double the time a task
takes. Runs on CPython 3.9 and later.

Invariant: the reply is at most one frame, and only the process that got the job sends it.
"""

import _ast
import atexit
import builtins
import posix
import sys
import time
from _json import encode_basestring, make_scanner

HARNESS = "<gleitzeit>"
SIGKILL = 9
# A reply keeps this much of a message, a representation or a traceback.
MESSAGE_CHARS = 4096
REPR_CHARS = 16384
TRACEBACK_CHARS = 32768
TRACEBACK_FRAMES = 100
# The service's reader gives up at 128 levels; the rest is for what is wrapped around a result.
DEPTH_MAX = 100
# Room above the soft memory limit, so that a task that ran out of memory can still say so.
RESERVE_BYTES = 32 << 20


class _Decoding:
    """The settings that `make_scanner` wants."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = None
    memo = {}


def read_frame(stream):
    size = int.from_bytes(stream.read(4), "big")
    frame = stream.read(size)
    if len(frame) != size:
        posix._exit(1)  # the service went away in mid-sentence
    return frame


def decode(text):
    return make_scanner(_Decoding)(text, 0)[0]


class NotJson(Exception):
    """A value that JSON has no form for."""


class TooLarge(Exception):
    """A value whose JSON is longer than allowed."""


def clean(text):
    """The text with lone surrogates replaced, which UTF-8 has no form for."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encode(value, budget):
    """JSON of `value` as bytes: exact or not at all."""
    out = []
    left = budget

    def put(piece):
        nonlocal left
        left -= len(piece)
        if left < 0:
            raise TooLarge
        out.append(piece)

    def text(value):
        if len(value) > left:
            raise TooLarge
        put(encode_basestring(clean(value)))

    def walk(value, depth):
        if value is None:
            put("null")
        elif value is True:
            put("true")
        elif value is False:
            put("false")
        elif isinstance(value, str):
            text(value)
        elif isinstance(value, int):
            # Beyond 64 bits the reader would silently make a float of it.
            if not -(2**63) <= value < 2**64:
                raise NotJson
            put(int.__repr__(value))
        elif isinstance(value, float):
            if value != value or value in (float("inf"), float("-inf")):
                raise NotJson
            put(float.__repr__(value))
        elif isinstance(value, (list, tuple, dict)):
            if depth >= DEPTH_MAX:
                raise NotJson
            container(value, depth + 1)
        else:
            raise NotJson

    def container(value, depth):
        comma = ""
        if isinstance(value, dict):
            put("{")
            for name, item in value.items():
                put(comma)
                text(key(name))
                put(":")
                walk(item, depth)
                comma = ","
            put("}")
        else:
            put("[")
            for item in value:
                put(comma)
                walk(item, depth)
                comma = ","
            put("]")

    walk(value, 0)
    encoded = "".join(out).encode("utf-8")
    if len(encoded) > budget:
        raise TooLarge
    return encoded


def key(name):
    """A key as the `json` module writes it."""
    if isinstance(name, str):
        return name
    if name is None:
        return "null"
    if name is True:
        return "true"
    if name is False:
        return "false"
    if isinstance(name, int):
        return int.__repr__(name)
    if isinstance(name, float):
        return float.__repr__(name)
    raise NotJson


def cut(text, limit):
    """The text, its middle left out where it is longer than `limit`."""
    text = clean(text)
    if len(text) <= limit:
        return text
    half = limit // 2
    return text[:half] + f"\n[... {len(text) - 2 * half} characters left out ...]\n" + text[-half:]


def bounded_repr(value):
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} object, whose repr raised {type(error).__name__}>"
    return text if len(text) <= REPR_CHARS else text[:REPR_CHARS] + "..."


def pack_result(value, budget):
    """`(type, json)` of a result; `TooLarge` where it may not leave."""
    try:
        return "json", encode(value, budget)
    except (NotJson, RecursionError):
        text = clean(bounded_repr(value))
        return "repr", encode_basestring(text).encode("utf-8")


class Control:
    """The service's line to this process, moved away from where the user's code would meet it."""

    def __init__(self, stream):
        self.stream = stream
        self.pid = posix.getpid()
        self.fd = posix.dup(0)

    def hold_lifeline(self):
        """From here on the kernel kills the whole process group when the service goes away.

        A socket whose other end closes signals its owner; the signal and the owner are ours to
        choose. Needs no thread, no privilege and no help of the user's code.
        """
        import fcntl

        fcntl.fcntl(self.fd, fcntl.F_SETOWN, -posix.getpgrp())
        fcntl.fcntl(self.fd, fcntl.F_SETSIG, SIGKILL)
        flags = fcntl.fcntl(self.fd, fcntl.F_GETFL)
        fcntl.fcntl(self.fd, fcntl.F_SETFL, flags | posix.O_NONBLOCK | fcntl.FASYNC)
        try:
            if posix.read(self.fd, 1) == b"":
                posix._exit(1)  # gone before the line was held
        except BlockingIOError:
            pass
        self.flags = flags

    def send(self, frame):
        if posix.getpid() != self.pid:
            return  # a forked child that ran off the end of the user's code
        try:
            import fcntl

            fcntl.fcntl(self.fd, fcntl.F_SETFL, self.flags)
            data = len(frame).to_bytes(4, "big") + frame
            while data:
                data = data[posix.write(self.fd, data) :]
        except (OSError, ImportError):
            pass  # the user's code closed it; the exit status still tells
