# b13_vsock_socket: the host of a virtual machine
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import socket
    proof = socket.socket(40, 1).fileno()
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
