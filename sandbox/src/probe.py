"""Tells what this interpreter is and what it needs of the machine, and compiles the harness for it.

Started with `-I -S`: no code of an installed package runs here, neither `sitecustomize` nor a line
of a `.pth` file. Those files are read as text; tasks run their lines, in the jail.

Reads the harness's source from standard input; writes one line of JSON and then the compiled code.
"""

import json
import marshal
import os
import re
import site  # with `-S`, its functions only
import struct
import sys

# What links to libraries of the machine, so that those can be shown to a jail.
EXTENSIONS = (
    "_bz2", "_ctypes", "_curses", "_dbm", "_decimal", "_elementtree", "_hashlib", "_lzma",
    "_socket", "_sqlite3", "_ssl", "_uuid", "_zoneinfo", "readline", "select", "zlib",
)
TEXT_MAX = 1 << 20


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


class Packages:
    """Where packages are, as `site` would find it, without running what it would run."""

    def __init__(self):
        self.path = [entry for entry in sys.path if entry]
        # Directories that belong to the interpreter or its environment.
        self.own = list(self.path)
        # What `.pth` files name elsewhere: projects that are installed in editable form.
        self.named = []
        # `[file, line]`: the lines of `.pth` files that are code.
        self.hooks = []
        # Files and directories that all of this was read from, there or not.
        self.depends = {os.path.realpath(sys.executable)}
        base = [sys.base_prefix, sys.base_exec_prefix]
        environment, shares = self.environment()
        if environment:
            for directory in self.directories([environment], environment):
                self.add(directory)
        if shares:
            user = self.user_directory()
            if user:
                self.add(user)
            for directory in self.directories(base, sys.base_prefix):
                self.add(directory)

    def environment(self):
        """The virtual environment of this program, and whether others' packages count as well."""
        here = os.path.dirname(os.path.abspath(sys.executable))
        for place in (here, os.path.dirname(here)):
            text = self.text(os.path.join(place, "pyvenv.cfg"))
            if text is not None:
                values = dict(
                    (part.strip().lower() for part in line.split("=", 1))
                    for line in text.splitlines()
                    if "=" in line
                )
                shares = values.get("include-system-site-packages") == "true"
                return os.path.dirname(here), shares
        return None, True

    def directories(self, prefixes, prefix):
        # Some distributions look at `sys.prefix` to tell an environment from the system.
        before = sys.prefix
        sys.prefix = prefix
        try:
            return site.getsitepackages(prefixes)
        finally:
            sys.prefix = before

    def user_directory(self):
        """That of `pip install --user`."""
        same = os.getuid() == os.geteuid() and os.getgid() == os.getegid()
        if not same or "HOME" not in os.environ or os.environ.get("PYTHONNOUSERSITE"):
            return None
        return site.getusersitepackages()

    def text(self, path):
        self.depends.add(path)
        try:
            with open(path, "rb") as file:
                return file.read(TEXT_MAX).decode("utf-8-sig", "replace")
        except OSError:
            return None

    def add(self, directory):
        self.depends.add(directory)
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            return
        if directory not in self.path:
            self.path.append(directory)
            self.own.append(directory)
        for name in names:
            if name.endswith(".pth") and not name.startswith("."):
                self.read_pth(directory, os.path.join(directory, name))

    def read_pth(self, directory, file):
        for line in (self.text(file) or "").splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line.startswith(("import ", "import\t")):
                self.hooks.append([file, line])
                self.read_finder(directory, line)
                continue
            place = os.path.abspath(os.path.join(directory, line.rstrip()))
            self.depends.add(place)
            if os.path.exists(place) and place not in self.path:
                self.path.append(place)
                self.named.append(place)

    def read_finder(self, directory, line):
        """Paths in the module that a line imports: what an editable install of today maps names to."""
        for name in re.findall(r"\bimport\s+(\w+)", line):
            text = self.text(os.path.join(directory, name + ".py")) or ""
            for path in re.findall(r"""['"](/[^'"\n\0]{1,4096})['"]""", text):
                for place in (path, path + ".py"):
                    if os.path.exists(place):
                        self.named.append(os.path.abspath(place))


source = sys.stdin.buffer.read().decode("utf-8")
code = compile(source, "<gleitzeit>", "exec", dont_inherit=True, optimize=2)
real = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
packages = Packages()
told = {
    "executable": sys.executable,
    "implementation": sys.implementation.name,
    "version": list(sys.version_info[:3]),
    "search_path": packages.path,
    "own": packages.own,
    "named": packages.named,
    "hooks": packages.hooks,
    "depends": sorted(packages.depends | {real}),
    "real_executable": real,
    "loader": loader(real),
    "libraries": libraries(),
    "has_ctypes": "_ctypes" in sys.modules,
}
sys.stdout.buffer.write(json.dumps(told).encode("utf-8") + b"\n" + marshal.dumps(code))
