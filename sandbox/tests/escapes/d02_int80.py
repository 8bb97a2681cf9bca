# d02_int80: the calls of 32 bits, by machine code: 20 is getpid there, 2 is fork
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import ctypes, mmap, os
    assert os.uname().machine == "x86_64", "not here"
    code = bytes.fromhex("b802000000cd80c3")
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    told = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    assert told >= 0, "refused: %d" % told
    proof = "forked: %d" % told
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
