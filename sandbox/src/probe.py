"""Tells what this interpreter is, and compiles the harness for it.

Reads the harness's source from standard input; writes one line of JSON and then the compiled code.
"""

import json
import marshal
import sys

source = sys.stdin.buffer.read().decode("utf-8")
code = compile(source, "<gleitzeit>", "exec", dont_inherit=True, optimize=2)
told = {
    "executable": sys.executable,
    "implementation": sys.implementation.name,
    "version": list(sys.version_info[:3]),
    "search_path": [entry for entry in sys.path if entry],
}
sys.stdout.buffer.write(json.dumps(told).encode("utf-8") + b"\n" + marshal.dumps(code))
