"""Tells what this interpreter is and what it needs of the machine, and compiles the harness for it.

Reads the harness's source from standard input; writes one line of JSON and then the compiled code.
"""

import json
import marshal
import os
import struct
import sys

# What links to libraries of the machine, so that those can be shown to a jail.
EXTENSIONS = (
    "_bz2", "_ctypes", "_curses", "_dbm", "_decimal", "_elementtree", "_hashlib", "_lzma",
    "_socket", "_sqlite3", "_ssl", "_uuid", "_zoneinfo", "readline", "select", "zlib",
)


def loader(path):
    """The program that loads this one: `PT_INTERP` of an ELF file of 64 bits."""
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02":
            return None
        order = "<" if head[5] == 1 else ">"
        (offset,) = struct.unpack_from(order + "Q", head, 32)
        size, count = struct.unpack_from(order + "HH", head, 54)
        for number in range(count):
            file.seek(offset + number * size)
            part = struct.unpack(order + "IIQQQQQQ", file.read(56))
            if part[0] == 3:
                file.seek(part[2])
                return file.read(part[5]).rstrip(b"\0").decode()
    return None


def libraries():
    """The directories of all that is loaded, once every extension is."""
    for name in EXTENSIONS:
        try:
            __import__(name)
        except ImportError:
            pass
    found = set()
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                path = line.split(None, 5)[5:]
                if path and ".so" in os.path.basename(path[0]):
                    found.add(os.path.dirname(path[0].rstrip("\n")))
    except OSError:
        pass
    return sorted(found)


source = sys.stdin.buffer.read().decode("utf-8")
code = compile(source, "<gleitzeit>", "exec", dont_inherit=True, optimize=2)
real = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
told = {
    "executable": sys.executable,
    "implementation": sys.implementation.name,
    "version": list(sys.version_info[:3]),
    "search_path": [entry for entry in sys.path if entry],
    "real_executable": real,
    "loader": loader(real),
    "libraries": libraries(),
    "has_ctypes": "_ctypes" in sys.modules,
}
sys.stdout.buffer.write(json.dumps(told).encode("utf-8") + b"\n" + marshal.dumps(code))
