"""Which of a notebook's cells answer an exercise, and what they need of the cells before them.

In a notebook the last definition above the check counts, wherever it stands. The same is found
here, from the text alone: the cell that counts is run whole, and of the learner's other cells those
statements that it needs.
"""

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from course_utils.exercises.cell_text import bound, defined, keep, parse, to_python, used

MAX_JOINED = 2


@dataclass(frozen=True)
class CodeCell:
    """A code cell of a submission.

    Args:
        index: its place in the notebook.
        text: as it was handed in.
        marked: the exercise whose solution cell it is, or an empty text.
        own: whether the learner wrote or changed it.
    """

    index: int
    text: str
    marked: str
    own: bool


@dataclass(frozen=True)
class Unit:
    """What is run for one exercise: Python, ready for the sandbox."""

    raw: str
    text: str
    before: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


class Notebook:
    """The code cells of one submission, translated and parsed once.

    Args:
        cells: in the notebook's order.
        symbols: what each exercise defines, by its id.
    """

    def __init__(self, cells: Sequence[CodeCell], symbols: dict[str, str]) -> None:
        self.cells, self.symbols = cells, symbols
        self.python: dict[int, str] = {}
        self.trees: dict[int, ast.Module | None] = {}

    def tree(self, cell: CodeCell) -> ast.Module | None:
        if cell.index not in self.trees:
            text = to_python(cell.text)
            self.python[cell.index], self.trees[cell.index] = text, parse(text)
        return self.trees[cell.index]

    def unit(self, exercise: str, check: int | None, stub: str) -> Unit | None:
        """What to run for an exercise; None when no cell is marked for it and none defines it.

        Args:
            exercise: its id.
            check: where its check stands, if it does.
            stub: the text of its cell as it was handed out.
        """
        symbol = self.symbols[exercise]
        marked = [cell for cell in self.cells if cell.marked == exercise]
        written = [cell for cell in marked if cell.text.strip() and cell.text != stub]
        pattern = re.compile(rf"\b{re.escape(symbol)}\b")
        others = [
            cell
            for cell in self.cells
            if cell.marked != exercise and (cell.own or cell.marked) and pattern.search(cell.text)
        ]
        defining = [cell for cell in others if self._defines(cell, symbol)]
        whole = [cell for cell in written if self._defines(cell, symbol)]
        found = sorted([*whole, *defining], key=lambda cell: cell.index)
        notes = []
        above = [cell for cell in found if check is None or cell.index < check]
        if not found:
            if not marked:
                return None
            taken = (written or marked)[-1]
        else:
            taken = (above or found)[-1]
            if not above and taken.marked != exercise:
                notes.append(f"{symbol} is defined only below its check; that definition counts")
        if taken.marked != exercise:
            notes.append(f"cell {taken.index + 1} defines {symbol} and was graded")
        elif any(cell.text != taken.text for cell in found):
            notes.append(f"{symbol} is defined more than once; cell {taken.index + 1} was graded")
        return self._made(exercise, taken, notes)

    def _defines(self, cell: CodeCell, symbol: str) -> bool:
        tree = self.tree(cell)
        return tree is not None and symbol in defined(tree.body)

    def _made(self, exercise: str, taken: CodeCell, notes: list[str]) -> Unit:
        symbol, tree = self.symbols[exercise], self.tree(taken)
        text, last = self.python[taken.index], taken
        if tree is None:
            text, tree, last = self._joined(taken, notes)
        if tree is None:
            return Unit(taken.text, text, notes=tuple(notes))
        if taken.marked not in ("", exercise):  # two exercises in one cell
            others = {name for key, name in self.symbols.items() if key != exercise}
            kept = self._needed([(taken, tree)], {symbol}, others).get(taken.index, [])
            text, tree = keep(text, kept), ast.Module(kept, [])
        definitions = [n for n in tree.body if not isinstance(n, ast.Expr | ast.Assert)]
        needed = used(definitions) - (defined(tree.body) - {symbol})
        pool = []
        if needed:
            for cell in self.cells:
                if cell.index >= taken.index or cell.index == last.index:
                    continue
                if any(name in cell.text for name in needed) or "import *" in cell.text:
                    parsed = self.tree(cell)
                    if parsed is not None:
                        pool.append((cell, parsed))
        # What another exercise asks for is there already: theirs if it passed, else the library's.
        others = set(self.symbols.values()) - {symbol}
        before = self._needed(pool, needed, others)
        parts = tuple(
            (f"<cell {index + 1}>", keep(self.python[index], before[index]))
            for index in sorted(before)
        )
        return Unit(taken.text, text, parts, tuple(notes))

    def _needed(
        self,
        pool: Sequence[tuple[CodeCell, ast.Module]],
        names: Iterable[str],
        without: set[str],
    ) -> dict[int, list[ast.stmt]]:
        """The statements that define or change these names, and what those need in turn."""
        names, chosen = set(names), set[int]()
        statements = [
            (cell, node, bound([node]))
            for cell, tree in pool
            for node in tree.body
            if cell.own or cell.marked or _defining(node)
        ]
        while True:
            more = [
                node
                for _, node, binds in statements
                if id(node) not in chosen
                and (binds & names or "*" in binds)
                and not binds & without
            ]
            if not more:
                break
            chosen |= {id(node) for node in more}
            names |= used(more)
        found: dict[int, list[ast.stmt]] = {}
        for cell, node, _ in statements:
            if id(node) in chosen:
                found.setdefault(cell.index, []).append(node)
        return found

    def _joined(self, taken: CodeCell, notes: list[str]) -> tuple[str, ast.Module | None, CodeCell]:
        """A cell that is not Python, with the learner's cells right after or before it."""
        place = [cell.index for cell in self.cells].index(taken.index)
        for step in (1, -1):
            text, last = taken.text, taken
            for count in range(1, MAX_JOINED + 1):
                at = place + step * count
                if not 0 <= at < len(self.cells) or not self.cells[at].own:
                    break
                last = self.cells[at]
                pair = (text, last.text) if step > 0 else (last.text, text)
                text = to_python("\n".join(pair))
                tree = parse(text)
                if tree is not None:
                    notes.append(f"cells {taken.index + 1} and {last.index + 1} were joined")
                    return text, tree, last
        return self.python[taken.index], None, taken


def _defining(node: ast.stmt) -> bool:
    return isinstance(
        node,
        ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign,
    )
