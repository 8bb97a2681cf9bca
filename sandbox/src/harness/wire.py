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
    """A value that JSON has no form for, and the places that lead to it, the innermost first."""

    def __init__(self, why):
        super().__init__(why)
        self.why = why
        self.places = []

    def path(self):
        shown = [f"[{place}]" for place in self.places[::-1][:12]]
        return "result" + "".join(shown) + ("..." if len(self.places) > 12 else "")


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
                raise NotJson("is an integer of more than 64 bits; return it as text")
            put(int.__repr__(value))
        elif isinstance(value, float):
            if value != value or value in (float("inf"), float("-inf")):
                raise NotJson(f"is {float.__repr__(value)}, which JSON has no form for; return None")
            put(float.__repr__(value))
        elif isinstance(value, (list, tuple, dict)):
            if depth >= DEPTH_MAX:
                raise NotJson(f"is nested more than {DEPTH_MAX} levels deep, or holds itself")
            container(value, depth + 1)
        else:
            # One step at most: what comes out of it is of a kind above.
            walk(plain(value), depth)

    def container(value, depth):
        comma = ""
        place = None
        try:
            if isinstance(value, dict):
                put("{")
                for place, item in value.items():
                    put(comma)
                    text(key(place))
                    put(":")
                    walk(item, depth)
                    comma = ","
                put("}")
            else:
                put("[")
                for place, item in enumerate(value):
                    put(comma)
                    walk(item, depth)
                    comma = ","
                put("]")
        except NotJson as error:
            error.places.append(bounded_repr(place, 60))
            raise

    walk(value, 0)
    encoded = "".join(out).encode("utf-8")
    if len(encoded) > budget:
        raise TooLarge
    return encoded


def plain(value):
    """What stands for a value of a kind that JSON does not know: a text, a number, or a list.

    Asks the value itself, so that the kinds of `datetime`, `decimal`, numpy and pandas need not be
    known here. What the answer is made of is looked at by whoever asks.
    """
    kind = type(value)
    try:
        if isinstance(value, (set, frozenset)):
            return in_order(value)
        if hasattr(kind, "isoformat"):
            if value != value:
                raise NotJson("is no point in time; return None")
            return str.__str__(value.isoformat())
        # Arrays know numbers, too, but are none.
        if hasattr(kind, "tolist") and hasattr(kind, "__len__") and not is_scalar(value):
            return known(value.tolist())
        if type(value).__name__ in ("bool_", "bool"):
            return bool(value)
        if hasattr(kind, "__index__"):
            return int(kind.__index__(value))
        if hasattr(kind, "__float__"):
            return float(kind.__float__(value))
    except NotJson:
        raise
    except Exception as error:
        raise NotJson(f"is of type {named(kind)}, which failed to say it: {message_of(error)}")
    raise NotJson(
        f"is of type {named(kind)}, which JSON has no form for; return a dict, a list, text or a "
        'number, or set `result_type` to "repr" for its text'
    )


def is_scalar(value):
    """True for a number of numpy's, which has the shape of an array without a dimension."""
    return getattr(value, "shape", None) == ()


def known(value):
    """A list or a plain value, so that no value stands for itself."""
    if isinstance(value, (list, str, int, float)) or value is None:
        return value
    raise NotJson("is a list of a kind of its own; return a list")


def in_order(items):
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=lambda item: (type(item).__name__, bounded_repr(item)))


def named(kind):
    module = kind.__module__
    return str(kind.__qualname__) if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


def key(name):
    """A key as the `json` module writes it; dates and numbers of other kinds as their texts."""
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
    stands_for = None if isinstance(name, (tuple, frozenset)) else plain(name)
    if isinstance(stands_for, (str, int, float)):
        return key(stands_for)
    raise NotJson(f"is a key of type {named(type(name))}; keys are text")


def cut(text, limit):
    """The text, its middle left out where it is longer than `limit`."""
    text = clean(text)
    if len(text) <= limit:
        return text
    half = limit // 2
    return text[:half] + f"\n[... {len(text) - 2 * half} characters left out ...]\n" + text[-half:]


def bounded_repr(value, most=REPR_CHARS):
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} object, whose repr raised {type(error).__name__}>"
    return text if len(text) <= most else text[:most] + "..."


def pack_result(value, job):
    """`(type, json)` of a result; `TooLarge` or `NotJson` where it may not or cannot leave."""
    if job["result_as_repr"]:
        text = clean(bounded_repr(value))
        return "repr", encode_basestring(text).encode("utf-8")
    try:
        return "json", encode(value, job["result_max_bytes"])
    except RecursionError:
        raise NotJson(f"is nested more than {DEPTH_MAX} levels deep, or holds itself")


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
