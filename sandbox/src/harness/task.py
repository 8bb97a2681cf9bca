"""The task: `main` takes the job, runs or validates the code, replies and leaves."""


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
    if job["modules"]:
        source = Beside(job, source).script
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
    # Before the result is taken, so that nothing of the task comes after it.
    run_exit_functions()
    if error is not None:
        out_of_memory = error["type"] == "MemoryError"
        return code, {"status": "memory_limit" if out_of_memory else "error", "error": error}, None
    reply, result = {"status": "ok"}, None
    try:
        if "result" in names:
            result = pack_result(names["result"], job)
        elif last is not None:
            result = pack_result(last, job)
    except TooLarge:
        code, reply = 1, {"status": "output_limit", "error": too_large(job)}
    except NotJson as error:
        code, reply = 1, {"status": "error", "error": not_json(error)}
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


def not_json(error):
    message = cut(f"{error.path()} {error.why}", MESSAGE_CHARS)
    return {"type": "ResultNotJson", "message": message, "traceback": "", "line": None}


def run_exit_functions():
    try:
        atexit._run_exitfuncs()
    except BaseException:
        pass


def finish(control, job, code, reply, result):
    """Replies and leaves."""
    answer(control, job, reply, result)
    posix._exit(code)


def answer(control, job, reply, result):
    """Sends the reply, and the result where there is one."""
    open_reserve()
    flush()
    try:
        if "memory" in job:
            reply["memory_delta_bytes"] = max(peak_so_far() - job["memory"], 0)
    except Exception:
        pass  # the user's code broke what is needed
    if result is not None:
        reply["result_type"] = result[0]
        reply["has_result"] = True
    control.send(encode(reply, 1 << 20))
    if result is not None:
        # A frame of its own, so that the service can hold it against its bound unread.
        control.send(result[1])
    flush()


def main(stream):
    job = decode(read_frame(stream).decode("utf-8"))
    source = read_frame(stream)
    if not job["is_file"]:
        source = source.decode("utf-8")  # a text, where a coding comment has no say
    control = Control(stream)
    control.hold_lifeline()
    give_stdin(job["stdin"])
    give_streams()
    prepare(job)
    before = usage()[1]
    mode = validate if job["mode"] == "validate" else execute
    code, reply, result = mode(job, source)
    # Nobody but the task itself can tell what it took.
    open_reserve()
    reply["cpu_seconds"], reply["peak_bytes"] = usage()
    if before is not None and reply["peak_bytes"] is not None:
        reply["memory_delta_bytes"] = max(reply["peak_bytes"] - before, 0)
    finish(control, job, code, reply, result)
