# e01_descriptors_on_their_way: descriptors in messages, which the kernel counts for all jails of a user together
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import array, ctypes, os, socket, struct
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if hasattr(a, "sendmsg"):
        a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
    else:
        # struct msghdr with one part and one descriptor.
        C = ctypes.CDLL(None, use_errno=True)
        text = ctypes.create_string_buffer(b"x", 1)
        part = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(text), 1))
        extra = ctypes.create_string_buffer(struct.pack("Niii", 20, 1, 1, 0) + bytes(4))
        head = struct.pack("PIPNPNi", None, 0, ctypes.addressof(part), 1, ctypes.addressof(extra), 24, 0)
        if C.sendmsg(a.fileno(), ctypes.create_string_buffer(head, len(head) + 8), 0) < 0:
            raise OSError(ctypes.get_errno(), "refused")
    proof = "a descriptor is on its way"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
