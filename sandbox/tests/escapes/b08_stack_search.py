# b08_stack_search: variables left on the stack of the process
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import ctypes, os
    environ = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ").value
    text = ctypes.string_at(environ, 4096) if environ else b""
    assert context["variable"].encode() in text, "nothing of the service"
    proof = "found"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
