"""What went wrong, told as Python tells it, within bounds and without frames of the harness."""


def know_lines(filename, source):
    """Lets tracebacks show the lines of a source that is in no file."""
    import linecache

    # Not `splitlines`, to which a form feed and others are the ends of a line, too.
    lines = [line + "\n" for line in lines_of(source)]
    linecache.cache[filename] = (sum(map(len, lines)), None, lines, filename)


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
