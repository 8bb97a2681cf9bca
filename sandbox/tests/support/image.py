"""Writes an image's files to standard output, as a tar: this Python, and what it links to."""

import io
import os
import subprocess
import sys
import sysconfig
import tarfile

SKIPPED = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3",
           "site-packages", "dist-packages", "pydoc_data", "unittest"}

LEFT_OUT = (".a", ".opt-1.pyc", ".opt-2.pyc")


def plain(entry):
    """Root's, and readable for everyone, wherever it was found.

    What is compiled goes along: a container that compiles its library anew takes twice as long.
    """
    name = os.path.basename(entry.name)
    if entry.isdir() and (name in SKIPPED or name.startswith("config-")) or name.endswith(LEFT_OUT):
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


def linked(path):
    """The libraries that `path` is loaded with."""
    told = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
    words = [word for line in told.splitlines() for word in line.split()]
    return {word for word in words if word.startswith("/")}


def add(path):
    """Under its own name, and under that which it is a link to."""
    if os.path.islink(path):
        add(os.path.realpath(path))
        path, real = path, os.path.realpath(path)
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.type, entry.linkname = tarfile.SYMTYPE, real
        out.addfile(entry)
    elif path not in added:
        added.add(path)
        out.add(path, filter=plain)


added = set()
real = os.path.realpath(sys.executable)
stdlib = sysconfig.get_path("stdlib")
extensions = os.path.join(sysconfig.get_path("platstdlib"), "lib-dynload")
libraries = linked(real)
for name in os.listdir(extensions):
    libraries |= linked(os.path.join(extensions, name))
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as out:
    for folder in ("task", "tmp", "proc", "sys", "dev", "etc", "usr/local/bin"):
        entry = tarfile.TarInfo(folder)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        out.addfile(entry)
    for path in [real, *sorted(libraries)]:
        # Where `/lib` is a link to `/usr/lib`, the loader is asked for by the link's name.
        folder = os.path.realpath(os.path.dirname(path))
        if folder != os.path.dirname(path):
            data = open(path, "rb").read()
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(data), 0o755
            out.addfile(entry, io.BytesIO(data))
        else:
            add(path)
    add(stdlib)
    link = tarfile.TarInfo("usr/local/bin/python3")
    link.type, link.linkname = tarfile.SYMTYPE, real
    out.addfile(link)
