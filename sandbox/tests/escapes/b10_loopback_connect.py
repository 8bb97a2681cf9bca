# b10_loopback_connect: the listener on loopback
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import socket
    s = socket.create_connection(("127.0.0.1", context["port"]), 2); s.sendall(b"out")
    proof = "connected"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
