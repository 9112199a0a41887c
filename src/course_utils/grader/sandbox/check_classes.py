"""The source of a class that an exercise file defines for its checks.

A check may pass an object of its own class to the learner's code (a module that notes how it is
called, say). The sandbox has no exercise files; it gets that class, and of the file only what the
class itself uses.
"""

import ast
import inspect
from functools import cache
from pathlib import Path


def class_source(kind: type) -> str:
    """A program that defines the class as its exercise file does."""
    path = Path(inspect.getfile(kind))
    return _extract(path.read_text("utf-8"), kind.__qualname__)


@cache
def _extract(text: str, name: str) -> str:
    tree = ast.parse(text)
    imports: dict[str, ast.stmt] = {}
    definitions: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                single = [ast.alias(alias.name, alias.asname)]
                imports[alias.asname or alias.name.partition(".")[0]] = (
                    ast.Import(single)
                    if isinstance(node, ast.Import)
                    else ast.ImportFrom(node.module, single, node.level)
                )
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            definitions[node.targets[0].id] = node
    wanted, used, ordered = [name], set(), []
    while wanted:
        current = wanted.pop()
        if current in used:
            continue
        used.add(current)
        if current in definitions:
            node = definitions[current]
            ordered.append(node)
            wanted += [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    lines = [
        ast.unparse(ast.fix_missing_locations(imports[n])) for n in sorted(used & set(imports))
    ]
    parts = sorted(ordered, key=lambda node: node.lineno)
    return "\n".join([*lines, *(ast.unparse(node) for node in parts)]) + "\n"
