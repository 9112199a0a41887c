"""The text of a notebook cell as Python, and its statements run one by one.

The grader, `course check` and `use_mine` read cells here, so all three read them alike. IPython's
own `TransformerManager` translates magics, shell lines and `f?` into calls of `get_ipython()`.
"""

import ast
import asyncio
import inspect
import linecache
import textwrap
from collections.abc import Iterable
from functools import cache
from typing import Any

# Cell magics whose body is Python that runs in the notebook's namespace.
_BODY_RUNS = frozenset(("time", "timeit", "capture", "prun", "memit", "mprun"))
# The transformer reads the cell once more for each magic, so both numbers have a limit.
_MAX_TEXT, _MAX_MAGICS = 40_000, 200
_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


@cache
def _transformer() -> Any:
    from IPython.core.inputtransformer2 import TransformerManager  # half a second

    return TransformerManager


def preload() -> None:
    """Import IPython's transformer now, before processes are forked that need it."""
    _transformer()


def parse(text: str) -> ast.Module | None:
    """The statements of a text, or None where it is not Python."""
    try:
        tree = compile(text, "<cell>", "exec", _FLAGS | ast.PyCF_ONLY_AST, dont_inherit=True)
    except _UNPARSABLE:
        return None
    return tree if isinstance(tree, ast.Module) else None


def to_python(text: str) -> str:
    """The cell's text as Python; the text itself where that is not possible."""
    if parse(text) is not None:
        return text
    first, _, body = text.lstrip().partition("\n")
    if first.startswith("%%"):
        words = first[2:].split()
        return "\n" + to_python(body) if words and words[0] in _BODY_RUNS else ""
    marks = sum(line.lstrip()[:1] in ("%", "!", "?") or "?" in line for line in text.split("\n"))
    if len(text) > _MAX_TEXT or marks > _MAX_MAGICS:
        return text
    for tried in (text, textwrap.dedent(text)):
        try:
            found = str(_transformer()().transform_cell(tried))
        except Exception:  # the transformer raises many kinds for text that is not Python
            continue
        if parse(found) is not None:
            blank = len(tried) - len(tried.lstrip("\n"))
            return "\n" * blank + found if not found.startswith("\n") else found
    return text


def run_statements(source: str, filename: str, namespace: dict[str, Any]) -> list[str]:
    """Run a text statement by statement; a statement that fails does not stop the others.

    Returns:
        What went wrong, a line for each failed statement. After `SystemExit`, an interrupt or
        exhausted memory nothing more is run.
    """
    lines = source.split("\n")
    linecache.cache[filename] = (len(source), None, [line + "\n" for line in lines], filename)
    try:
        tree = compile(source, filename, "exec", _FLAGS | ast.PyCF_ONLY_AST, dont_inherit=True)
    except SyntaxError as error:
        return [f"SyntaxError in line {error.lineno}: {error.msg}"]
    except _UNPARSABLE as error:
        return [f"{type(error).__name__}: {error}"]
    future = 0  # `from __future__ import …` concerns all statements of the cell
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            import __future__

            for alias in statement.names:
                future |= getattr(getattr(__future__, alias.name, None), "compiler_flag", 0)
    problems = []
    for statement in tree.body:
        try:
            module = ast.Module([statement], [])
            code = compile(module, filename, "exec", _FLAGS | future, dont_inherit=True)
            if code.co_flags & inspect.CO_COROUTINE:
                asyncio.run(eval(code, namespace))
            else:
                exec(code, namespace)
        except SyntaxError as error:
            problems.append(f"SyntaxError in line {error.lineno}: {error.msg}")
        except Exception as error:
            said = f"{type(error).__name__}: {str(error)[:500]}"
            if isinstance(error, MemoryError) or "allocate memory" in str(error):
                return [*problems, f"MemoryError: {said}"]
            problems.append(said)
    return problems


def bound(nodes: Iterable[ast.stmt]) -> set[str]:
    """Names that these statements define or change, not those inside functions and classes."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(nodes)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            continue
        if isinstance(node, ast.Lambda | ast.GeneratorExp | ast.ListComp | ast.SetComp):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            found.add(node.id)
        elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            found |= _root(node)
        elif (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Attribute)
        ):
            found |= _root(node.value.func)  # `table.append(row)` changes `table`
        waiting.extend(ast.iter_child_nodes(node))
    return found


def defined(nodes: Iterable[ast.stmt]) -> set[str]:
    """Like `bound`, without what is only changed."""
    kept = [node for node in nodes if not isinstance(node, ast.Expr)]
    return bound(kept)


def _root(node: ast.AST) -> set[str]:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def used(nodes: Iterable[ast.stmt]) -> set[str]:
    """Names that these statements read, quoted annotations not included."""
    return {
        part.id
        for node in nodes
        for part in ast.walk(node)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)
    }


def keep(text: str, statements: Iterable[ast.stmt]) -> str:
    """The text with these statements alone; the others become empty lines."""
    lines = text.split("\n")
    kept = [""] * len(lines)
    for statement in statements:
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(d.lineno for d in decorators)])
        last = statement.end_lineno or first
        kept[first - 1 : last] = lines[first - 1 : last]
    return "\n".join(kept)


class Shell:
    """What `get_ipython()` returns outside a notebook: it accepts everything and does nothing."""

    def getoutput(self, *anything: Any, **named: Any) -> list[str]:
        return []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _quiet


def _quiet(*anything: Any, **named: Any) -> None:
    return None


def notebook_names() -> dict[str, Any]:
    """What every notebook's namespace has beside Python's built-in names."""
    shell = Shell()
    return {"__name__": "__main__", "get_ipython": lambda: shell, "display": _quiet}
