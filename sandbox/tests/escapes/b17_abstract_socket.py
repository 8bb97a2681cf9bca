# b17_abstract_socket: a socket without a file
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import socket
    s = socket.socket(socket.AF_UNIX); s.bind("\0gleitzeit-probe")
    proof = "bound"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
