"""What runs inside the task's process, around the user's code.

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


# -- reading the job ---------------------------------------------------------------------------


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


# -- writing the reply -------------------------------------------------------------------------


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


def usage():
    """Processor seconds and peak memory in bytes of this process and the children it waited for."""
    children = posix.times()
    seconds = time.process_time() + children[2] + children[3]
    try:
        # Not `ru_maxrss`, which a new program inherits from the one that started it.
        with open("/proc/self/status", "rb") as status:
            peak = int(status.read().split(b"VmHWM:")[1].split()[0]) * 1024
    except Exception:
        peak = None
    return seconds, peak


# -- the process around the code ---------------------------------------------------------------


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


def give_stdin(text):
    """Descriptor 0 becomes what the call gives, or nothing."""
    if text:
        fd = posix.memfd_create("stdin")
        data = text.encode("utf-8")
        while data:
            data = data[posix.write(fd, data) :]
        posix.lseek(fd, 0, 0)
    else:
        fd = posix.open("/dev/null", posix.O_RDONLY)
    posix.dup2(fd, 0, True)
    posix.close(fd)


def give_environment(names):
    """The environment is exactly `names`, whatever the interpreter was started with."""
    for name in list(posix.environ):
        posix.unsetenv(name)
    posix.environ.clear()
    for name, value in names.items():
        name, value = name.encode("utf-8"), value.encode("utf-8")
        posix.putenv(name, value)
        posix.environ[name] = value


def set_limits(limits):
    import resource

    for name, value in limits.items():
        kind = getattr(resource, name)
        most = resource.getrlimit(kind)[1]
        hard = value + RESERVE_BYTES if name == "RLIMIT_AS" else value
        if most != resource.RLIM_INFINITY:
            hard = min(hard, most)
        resource.setrlimit(kind, (min(value, hard), hard))


def open_reserve():
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    except Exception:
        pass


def leave(code=None):
    raise SystemExit(code)


def prepare(job):
    give_stdin(job["stdin"])
    give_environment(job["environment"])
    sys.path[:] = job["search_path"]
    sys.argv[:] = [job["filename"]]
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    # `site` would have given these two.
    builtins.exit = builtins.quit = leave
    set_limits(job["limits"])


def namespace(job):
    """The one dictionary of globals, which is `__main__`'s own."""
    names = sys.modules["__main__"].__dict__
    names.clear()
    names.update(job["globals"])
    names["__name__"] = "__main__"
    names["__builtins__"] = builtins
    names["__doc__"] = None
    if job["is_file"]:
        names["__file__"] = job["filename"]
    return names


# -- reading the code --------------------------------------------------------------------------


def parse(source, filename):
    return compile(source, filename, "exec", _ast.PyCF_ONLY_AST, dont_inherit=True)


def split_last(tree):
    """`(body, value)`: the code up to the last statement where that is an expression, and it."""
    if tree.body and isinstance(tree.body[-1], _ast.Expr):
        return tree, _ast.Expression(tree.body.pop().value)
    return tree, None


def lines_of(source):
    if isinstance(source, bytes):
        source = source.decode("utf-8", "replace")
    return source.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def finding(node, lines, rule, message):
    """A diagnostic at `node`; columns count characters from 1."""

    def column(line, offset):
        if not 1 <= line <= len(lines):
            return 1
        return len(lines[line - 1].encode("utf-8")[:offset].decode("utf-8", "replace")) + 1

    end_line = getattr(node, "end_lineno", None) or node.lineno
    end_offset = getattr(node, "end_col_offset", None)
    start = column(node.lineno, node.col_offset)
    return {
        "line": node.lineno,
        "column": start,
        "end_line": end_line,
        "end_column": start if end_offset is None else column(end_line, end_offset),
        "rule": rule,
        "message": message,
    }


def at_start(rule, message):
    place = {"line": 1, "column": 1, "end_line": 1, "end_column": 1}
    return dict(place, rule=rule, message=message)


def module_rule(policy, name):
    """`(rule, message)` where the policy does not let `name` in."""
    first = name.partition(".")[0]
    if first in policy["blocked_modules"]:
        return "blocked-module", f"module `{first}` is blocked by the policy"
    allowed = policy["allowed_modules"]
    if allowed is not None and first not in allowed:
        return "module-not-allowed", f"module `{first}` is not among those the policy allows"
    return None


def policy_findings(tree, policy, lines):
    """Everything in the tree that the policy forbids, in the order of the text."""
    found = []
    stack = [tree]
    while stack:
        node = stack.pop()
        for field in node._fields:
            value = getattr(node, field, None)
            items = value if isinstance(value, list) else (value,)
            stack.extend(item for item in items if isinstance(item, _ast.AST))
        modules = ()
        if isinstance(node, _ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, _ast.ImportFrom) and not node.level:
            modules = [node.module]
        elif isinstance(node, _ast.Call) and isinstance(node.func, _ast.Name):
            if node.func.id in policy["blocked_calls"]:
                message = f"a call of `{node.func.id}` is blocked by the policy"
                found.append(finding(node, lines, "blocked-call", message))
        for name in modules:
            broken = module_rule(policy, name)
            if broken:
                found.append(finding(node, lines, *broken))
    return sorted(found, key=lambda item: (item["line"], item["column"]))


def import_findings(job):
    found = []
    for name in job["imports"]:
        broken = module_rule(job["policy"], name)
        if broken:
            found.append(at_start(broken[0], f"imports: {broken[1]}"))
    return found


def syntax_finding(error):
    """A diagnostic of what `compile` raised."""
    if not isinstance(error, SyntaxError):
        if isinstance(error, (RecursionError, MemoryError)):
            return at_start("syntax", "nested too deeply for the compiler")
        return at_start("syntax", cut(str(error), MESSAGE_CHARS))
    line = error.lineno or 1
    column = max(error.offset or 1, 1)
    end_line = getattr(error, "end_lineno", None) or line
    end_column = getattr(error, "end_offset", None) or column
    if end_column < 1 or (end_line, end_column) < (line, column):
        end_line, end_column = line, column
    return {
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
        "rule": "syntax",
        "message": cut(str(error.msg), MESSAGE_CHARS),
    }


# -- telling what went wrong -------------------------------------------------------------------


def know_lines(filename, source):
    """Lets tracebacks show the lines of a source that is in no file."""
    import linecache

    text = "\n".join(lines_of(source))
    linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)


def own_frames(trace):
    """The traceback without the frames of this file above the user's."""
    while trace is not None and trace.tb_frame.f_code.co_filename == HARNESS:
        trace = trace.tb_next
    return trace


def last_line(error, filename):
    """The line of the user's code where it happened."""
    if isinstance(error, SyntaxError) and error.filename == filename:
        return error.lineno
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def format_traceback(error, filename, source):
    try:
        import traceback

        know_lines(filename, source)
        trace = own_frames(error.__traceback__)
        told = traceback.TracebackException(
            type(error), error, trace, limit=-TRACEBACK_FRAMES
        )
        return cut("".join(told.format()), TRACEBACK_CHARS)
    except BaseException:
        # Out of memory, out of stack, or the user's code broke what is needed: by hand then.
        text = "Traceback (most recent call last):\n"
        trace = own_frames(error.__traceback__)
        for _ in range(TRACEBACK_FRAMES):
            if trace is None:
                break
            code = trace.tb_frame.f_code
            text += f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}\n'
            trace = trace.tb_next
        return cut(f"{text}{name_of(error)}: {message_of(error)}\n", TRACEBACK_CHARS)


def name_of(error):
    kind = type(error)
    if kind.__module__ in ("builtins", "__main__"):
        return str(kind.__qualname__)
    return f"{kind.__module__}.{kind.__qualname__}"


def message_of(error):
    try:
        return cut(str(error.msg if isinstance(error, SyntaxError) else error), MESSAGE_CHARS)
    except BaseException as second:
        return f"<message could not be made: {type(second).__name__}>"


def say(text):
    """Writes to the error stream, past whatever the user's code made of `sys.stderr`."""
    flush()
    data = text.encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[posix.write(2, data) :]
    except OSError:
        pass


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass


def failure(error, job, source):
    """`(exit code, error for the reply or None)` of what left the user's code."""
    filename = job["filename"]
    if isinstance(error, SystemExit):
        code = error.code
        if code is None:
            return 0, None
        if isinstance(code, int):
            code = int(code) & 0xFF if -(2**31) <= code < 2**31 else 0xFF
            message = f"exited with status {code}"
        else:
            message = message_of(error)
            say(message + "\n")
            code = 1
        if code == 0:
            return 0, None
        trace = ""
    else:
        trace = format_traceback(error, filename, source)
        say(trace)
        code, message = 1, message_of(error)
    return code, {
        "type": name_of(error),
        "message": message,
        "traceback": trace,
        "line": last_line(error, filename),
    }


# -- the two modes -----------------------------------------------------------------------------


def validate(job, source):
    lines = lines_of(source)
    found = import_findings(job)
    try:
        tree = parse(source, job["filename"])
        found += policy_findings(tree, job["policy"], lines)
        # From the text again and not from the tree: some errors are found only on the way.
        compile(source, job["filename"], "exec", dont_inherit=True)
    except Exception as error:
        found.append(syntax_finding(error))
    return 0, {"status": "ok", "diagnostics": found}, None


def execute(job, source):
    """Runs the code; `(exit code, reply, result)`."""
    names = namespace(job)
    last = None
    code, error = 0, None
    try:
        tree = parse(source, job["filename"])
        found = import_findings(job) + policy_findings(tree, job["policy"], lines_of(source))
        if found:
            return 1, {"status": "policy_violation", "diagnostics": found}, None
        last = run(job, source, tree, names)
    except BaseException as raised:
        if isinstance(raised, MemoryError):
            open_reserve()
        code, error = failure(raised, job, source)
    join_threads()
    if error is not None:
        out_of_memory = error["type"] == "MemoryError"
        return code, {"status": "memory_limit" if out_of_memory else "error", "error": error}, None
    reply, result = {"status": "ok"}, None
    try:
        if "result" in names:
            result = pack_result(names["result"], job["result_max_bytes"])
        elif last is not None:
            result = pack_result(last, job["result_max_bytes"])
    except TooLarge:
        code, reply = 1, {"status": "output_limit", "error": too_large(job)}
    except BaseException as raised:
        open_reserve()
        code, error = failure(raised, job, source)
        out_of_memory = isinstance(raised, MemoryError)
        reply = {"status": "memory_limit" if out_of_memory else "error", "error": error}
    return code, reply, result


def run(job, source, tree, names):
    """Runs the code in `names`; the value of its last expression."""
    filename = job["filename"]
    text = source if isinstance(source, bytes) else source.encode("utf-8")
    # Code that prints its own tracebacks gets its lines too; for all other code it is not worth
    # the milliseconds that the import takes.
    if any(word in text for word in (b"traceback", b"logging", b"warnings", b"inspect")):
        know_lines(filename, source)
    for name in job["imports"]:
        names[name.partition(".")[0]] = __import__(name)
    body, value = split_last(tree)
    body = compile(body, filename, "exec", dont_inherit=True)
    value = None if value is None else compile(value, filename, "eval", dont_inherit=True)
    exec(body, names)
    return None if value is None else eval(value, names)


def join_threads():
    threading = sys.modules.get("threading")
    try:
        if threading is not None:
            threading._shutdown()
    except BaseException:
        pass


def too_large(job):
    limit = job["result_max_bytes"]
    message = (
        f"the result is larger than {limit} bytes as JSON; return less, or return where it is"
    )
    return {"type": "ResultTooLarge", "message": message, "traceback": "", "line": None}


def finish(control, code, reply, result):
    try:
        atexit._run_exitfuncs()
    except BaseException:
        pass
    open_reserve()
    flush()
    reply["cpu_seconds"], reply["peak_bytes"] = usage()
    frame = encode(reply, 64 << 20)
    if result is not None:
        kind, value = result
        frame = frame[:-1] + b',"result_type":"' + kind.encode() + b'","result":' + value + b"}"
    control.send(frame)
    flush()
    posix._exit(code)


def main(stream):
    job = decode(read_frame(stream).decode("utf-8"))
    source = read_frame(stream)
    if not job["is_file"]:
        source = source.decode("utf-8")  # a text, where a coding comment has no say
    control = Control(stream)
    control.hold_lifeline()
    prepare(job)
    mode = validate if job["mode"] == "validate" else execute
    finish(control, *mode(job, source))
