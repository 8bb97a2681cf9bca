"""The code as text and as a tree: its last expression, and what is wrong with it."""

# More findings than this are counted, so that a reply keeps its bound.
FINDINGS_MAX = 1000


def parse(source, filename):
    return compile(source, filename, "exec", _ast.PyCF_ONLY_AST, dont_inherit=True)


def split_last(tree):
    """`(body, value)`: the code up to the last statement where that is an expression, and it."""
    if tree.body and isinstance(tree.body[-1], _ast.Expr):
        return tree, _ast.Expression(tree.body.pop().value)
    return tree, None


def lines_of(source):
    if isinstance(source, bytes):
        source = source.removeprefix(b"\xef\xbb\xbf").decode(coding_of(source), "replace")
    return source.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def coding_of(source):
    """The encoding that a comment in the first two lines of a script names; else UTF-8."""
    import codecs

    for line in source.split(b"\n", 2)[:2]:
        head, found, name = line.partition(b"coding")
        if found and head.lstrip().startswith(b"#") and name[:1] in (b":", b"="):
            name = name[1:].split()[0] if name[1:].split() else b""
            try:
                return codecs.lookup(name.decode("ascii")).name
            except (LookupError, UnicodeDecodeError):
                break
    return "utf-8"


def finding(node, lines, rule, message):
    """A diagnostic at `node`; columns count characters from 1."""

    def column(line, offset):
        if not 1 <= line <= len(lines):
            return 1
        return len(lines[line - 1].encode("utf-8")[:offset].decode("utf-8", "replace")) + 1

    end_line = getattr(node, "end_lineno", None) or node.lineno
    end_offset = getattr(node, "end_col_offset", None)
    start = column(node.lineno, node.col_offset)
    return {
        "line": node.lineno,
        "column": start,
        "end_line": end_line,
        "end_column": start if end_offset is None else column(end_line, end_offset),
        "rule": rule,
        "message": message,
    }


def at_start(rule, message):
    place = {"line": 1, "column": 1, "end_line": 1, "end_column": 1}
    return dict(place, rule=rule, message=message)


def module_rule(policy, name):
    """`(rule, message)` where the policy does not let `name` in."""
    first = name.partition(".")[0]
    shown = cut(first, 100)
    if first in policy["blocked_modules"]:
        return "blocked-module", f"module `{shown}` is blocked by the policy"
    allowed = policy["allowed_modules"]
    if allowed is not None and first not in allowed:
        return "module-not-allowed", f"module `{shown}` is not among those the policy allows"
    return None


def policy_findings(tree, policy, lines):
    """Everything in the tree that the policy forbids, in the order of the text."""
    found = []
    stack = [tree]
    while stack:
        node = stack.pop()
        for field in node._fields:
            value = getattr(node, field, None)
            items = value if isinstance(value, list) else (value,)
            stack.extend(item for item in items if isinstance(item, _ast.AST))
        modules = ()
        if isinstance(node, _ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, _ast.ImportFrom) and not node.level:
            modules = [node.module]
        elif isinstance(node, _ast.Call) and isinstance(node.func, _ast.Name):
            if node.func.id in policy["blocked_calls"]:
                message = f"a call of `{node.func.id}` is blocked by the policy"
                found.append(finding(node, lines, "blocked-call", message))
        for name in modules:
            broken = module_rule(policy, name)
            if broken:
                found.append(finding(node, lines, *broken))
    found.sort(key=lambda item: (item["line"], item["column"]))
    if len(found) > FINDINGS_MAX:
        more = len(found) - FINDINGS_MAX
        found = found[:FINDINGS_MAX]
        found.append(dict(found[-1], message=f"{more} more like these are not listed"))
    return found


def import_findings(job):
    found = []
    for name in job["imports"]:
        broken = module_rule(job["policy"], name)
        if broken:
            found.append(at_start(broken[0], f"imports: {broken[1]}"))
    return found


def syntax_finding(error):
    """A diagnostic of what `compile` raised."""
    if not isinstance(error, SyntaxError):
        if isinstance(error, (RecursionError, MemoryError)):
            return at_start("syntax", "nested too deeply for the compiler")
        return at_start("syntax", cut(str(error), MESSAGE_CHARS))
    line = error.lineno or 1
    column = max(error.offset or 1, 1)
    end_line = getattr(error, "end_lineno", None) or line
    end_column = getattr(error, "end_offset", None) or column
    if end_column < 1 or (end_line, end_column) < (line, column):
        end_line, end_column = line, column
    return {
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
        "rule": "syntax",
        "message": cut(str(error.msg), MESSAGE_CHARS),
    }
