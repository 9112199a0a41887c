"""The sandbox's side of the conversation: runs the learner's cells and answers calls.

Everything here shares its interpreter with the learner's code and may be lied to, patched or
broken by it. That is why nothing is decided here.
"""

import copy
import io
import socket
import sys
import traceback
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.exercises.cell_text import run_statements
from course_utils.grader.sandbox import refused
from course_utils.grader.sandbox.child_values import ChildReader, ChildWriter, Method
from course_utils.grader.sandbox.frames import Closed, WireError, receive, send
from course_utils.grader.sandbox.identity import Tensors, define, make, same_bits
from course_utils.grader.sandbox.naming import by_name
from course_utils.grader.sandbox.objects import describe, fill
from course_utils.grader.sandbox.restore import restore

MAX_PRINTED, MAX_ITERATED, MAX_SAID = 10_000, 100_000, 500
STUDENT = 0


class Printed(io.TextIOBase):
    """The first characters of what is printed; the rest is only counted."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.room = MAX_PRINTED

    def write(self, text: str) -> int:
        if self.room > 0:
            self.parts.append(text[: self.room])
            self.room -= len(text)
        return len(text)

    def take(self) -> str:
        text = "".join(self.parts)
        self.parts.clear()
        return text


class Child:
    """One submission's process.

    Args:
        connection: to the grader.
        namespace: what the learner's cells see; the set-up cells have run in it.
        cells: filled with the learner's sources by file name.
    """

    def __init__(
        self, connection: socket.socket, namespace: dict[str, Any], cells: dict[str, list[str]]
    ) -> None:
        self.connection, self.namespace, self.cells = connection, namespace, cells
        self.printed = Printed()
        sys.stdout = sys.stderr = self.printed
        self.student: Any = None
        self.classes: dict[str, Any] = {}
        self.depth = 0
        self.begin()

    def begin(self) -> None:
        """Forget the last check's objects."""
        self.tensors = Tensors(first=1, careful=True)
        self.objects: dict[int, Any] = {}
        self.described: dict[int, Any] = {}
        self.number_of: dict[int, int] = {}
        self.handles: dict[int, Any] = {STUDENT: self.student}
        self.handle_of: dict[int, int] = {id(self.student): STUDENT}
        self.generators: dict[int, torch.Generator] = {}
        self.generator_states: dict[int, Tensor] = {}
        self.sent: dict[int, tuple[Any, Any]] = {}
        self.bridges: list[tuple[list[Tensor], list[Tensor]]] = []
        self.rng = torch.get_rng_state()

    def serve(self) -> Any:
        """Answer requests until the grader closes, or answers one of ours."""
        while True:
            message, tensors = receive(self.connection)
            if message["op"] == "answer":
                return message, tensors
            self.depth += 1
            try:
                answer, writer = self._perform(message, tensors)
            finally:
                self.depth -= 1
            if refused.notes:
                answer["notes"] = list(refused.notes)
                refused.notes.clear()
            if self.printed.parts:
                answer["printed"] = self.printed.take()
            self._send(answer, writer)
            if self.depth == 0:
                self.tensors.forget_passing()

    def _send(self, answer: dict[str, Any], writer: ChildWriter) -> None:
        try:
            send(self.connection, answer, writer.tensors)
        except Closed:
            raise
        except (WireError, MemoryError) as error:
            send(self.connection, {"op": "raise", "error": self._told(error)})

    def _perform(self, message: dict[str, Any], tensors: list[Tensor]) -> tuple[dict, ChildWriter]:
        if message.get("begin"):
            self.begin()
        lasting = message["op"] in ("get", "item", "iterate")
        writer = ChildWriter(self, lasting)
        try:
            reader = self.load(message, tensors)
            value = getattr(self, "op_" + message["op"])(message, reader)
            answer = {"op": "return", "value": writer.write(value)}
            if writer.outputs:
                answer["bridge"] = self._bridge(writer)
        except Closed:
            raise
        except BaseException as error:  # SystemExit too: it is the learner's, not ours
            answer = {"op": "raise", "error": self._told(error)}
            writer = ChildWriter(self, lasting)
        self.pack(answer, writer)
        return answer, writer

    # --- what crosses beside a value ----------------------------------------------------------

    def load(self, message: dict[str, Any], tensors: list[Tensor]) -> ChildReader:
        """Bring tensors, objects and random numbers to where the grader has them."""
        reader = ChildReader(self, tensors)
        for name, source in message.get("code", ()):
            self._define_class(name, source)
        for number, index in message.get("generators", ()):
            generator = self.generators.setdefault(number, torch.Generator())
            self.generator_states[number] = tensors[index].clone()
            generator.set_state(tensors[index])
        for plain in message.get("tensors", ()):
            self.tensors.add(make(plain, tensors), plain[5], plain[0])
        for update in message.get("updates", ()):
            self.tensors.apply(update, tensors)
        fresh = message.get("objects", ())
        for number, plain in fresh:
            if number not in self.objects:
                value = self._bare(plain)
                self.objects[number], self.number_of[id(value)] = value, number
        for number, plain in fresh:
            fill_special = getattr(self.objects[number], "__setstate_plain__", None)
            if fill_special is None and plain[0] in ("module", "optimizer", "object"):
                fill(self.objects[number], plain, reader)
            self.described[number] = plain
        if "rng" in message:
            self.rng = tensors[message["rng"]].clone()
            torch.set_rng_state(self.rng)
        torch.set_grad_enabled(message.get("grad", True))
        return reader

    def _bare(self, plain: list[Any]) -> Any:
        if plain[0] == "tokenizer":
            from tokenizers import Tokenizer

            return Tokenizer.from_str(plain[1])
        kind = self.classes.get(plain[1]) or by_name(plain[1])
        return kind.__new__(kind)

    def _define_class(self, name: str, source: str) -> None:
        namespace: dict[str, Any] = {"__name__": "course_checks"}
        exec(compile(source, "<the check's own>", "exec"), namespace)
        self.classes[name] = namespace[name.partition(":")[2]]

    def pack(self, answer: dict[str, Any], writer: ChildWriter) -> None:
        """Say what the learner's code did to what it was given."""
        objects = []
        for number, value in list(self.objects.items()):
            if self.described[number][0] == "tokenizer":
                continue
            try:
                plain = describe(value, writer)
            except WireError:
                continue  # it holds something of the learner's own: the grader keeps its version
            if plain != self.described[number]:
                self.described[number] = plain
                objects.append([number, plain])
        if objects:
            answer["objects"] = objects
        if updates := self.tensors.changes(writer):
            answer["updates"] = updates
        if writer.defined:
            answer["tensors"] = [define(known, writer) for known in writer.defined]
        states = []
        for number, generator in self.generators.items():
            state = generator.get_state()
            if not same_bits(state, self.generator_states[number]):
                self.generator_states[number] = state
                states.append([number, writer.tensor(state)])
        if states:
            answer["generators"] = states
        state = torch.get_rng_state()
        if not same_bits(state, self.rng):
            self.rng = state
            answer["rng"] = writer.tensor(state)
        answer["grad"] = torch.is_grad_enabled()

    def _bridge(self, writer: ChildWriter) -> dict[str, Any]:
        """Where the gradients of these outputs lead: leaves that both sides know."""
        leaves = list(_leaves(writer.outputs))
        known = [self.tensors.find(leaf) or writer.introduce(leaf) for leaf in leaves]
        self.bridges.append((writer.outputs, leaves))
        return {
            "number": len(self.bridges) - 1,
            "leaves": [one.number for one in known],
            "outputs": [writer.tensor(output) for output in writer.outputs],
        }

    # --- requests -----------------------------------------------------------------------------

    def op_cell(self, message: dict[str, Any], reader: ChildReader) -> Any:
        """Run a cell that should define `symbol`; returns what went wrong, and what it defined."""
        symbol, filename, source = message["symbol"], message["file"], message["source"]
        self.namespace.pop(symbol, None)
        self.student = None
        torch.set_grad_enabled(True)
        problems = []
        for name, text in (*message["before"], (filename, source)):
            self.cells[name] = text.split("\n")
            try:
                problems += run_statements(text, name, self.namespace)
            except BaseException as error:
                problems.append(f"{type(error).__name__}: {str(error)[:MAX_SAID]}")
        problem = problems[0] if problems else ""
        self.student = self.namespace.get(symbol)
        kind = "missing" if symbol not in self.namespace else "value"
        if kind == "value" and callable(self.student):
            kind = "class" if isinstance(self.student, type) else "function"
        return [problem, kind]

    def op_restore(self, message: dict[str, Any], reader: ChildReader) -> Any:
        """The exercise is judged: put the library's own version back, and perhaps hand it on."""
        value = restore(message["module"], message["symbol"], message["source"], message["holes"])
        if message["hand_on"]:
            self.namespace[message["symbol"]] = value
        return None

    def op_call(self, message: dict[str, Any], reader: ChildReader) -> Any:
        target = reader.read(message["target"])
        if message["name"] is not None:
            target = getattr(target, message["name"])
        arguments = reader.each(message["args"], 1)
        named = {key: reader.read(value) for key, value in message["kwargs"]}
        value = target(*arguments, **named)
        changed = self._changed_containers(message, arguments, named)
        if not changed:
            return (value,)
        return (value, changed)

    def op_calls(self, message: dict[str, Any], reader: ChildReader) -> list[Any]:
        target = reader.read(message["target"])
        calls = [reader.each(arguments, 1) for arguments in message["calls"]]
        return [target(*arguments) for arguments in calls]

    def _changed_containers(self, message: dict, arguments: list, named: dict) -> list[list[Any]]:
        """Lists and dictionaries of the grader's that the learner's code has changed."""
        changed = []
        given = [*enumerate(message["args"]), *message["kwargs"]]
        for key, plain in given:
            if type(plain) is list and plain[0] in ("l", "d", "C", "O", "s", "a", "t"):
                now = arguments[key] if isinstance(key, int) else named[key]
                if self._rewritten(now) != plain:
                    changed.append([key, now])
        return changed

    def _rewritten(self, value: Any) -> Any:
        try:
            return ChildWriter(self, lasting=False, only_known=True).write(value)
        except WireError:
            return None

    def op_get(self, message: dict[str, Any], reader: ChildReader) -> Any:
        target, name = reader.read(message["target"]), message["name"]
        value = getattr(target, name)
        if callable(value) and not isinstance(value, nn.Module | type | Tensor):
            return Method()
        return value

    def op_set(self, message: dict[str, Any], reader: ChildReader) -> None:
        setattr(reader.read(message["target"]), message["name"], reader.read(message["to"]))

    def op_item(self, message: dict[str, Any], reader: ChildReader) -> Any:
        return reader.read(message["target"])[reader.read(message["key"])]

    def op_length(self, message: dict[str, Any], reader: ChildReader) -> int:
        return len(reader.read(message["target"]))

    def op_iterate(self, message: dict[str, Any], reader: ChildReader) -> list[Any]:
        found = list(islice(iter(reader.read(message["target"])), MAX_ITERATED + 1))
        if len(found) > MAX_ITERATED:
            raise ValueError(f"more than {MAX_ITERATED} items")
        return found

    def op_copy(self, message: dict[str, Any], reader: ChildReader) -> Any:
        return copy.deepcopy(reader.read(message["target"]))

    def op_backward(self, message: dict[str, Any], reader: ChildReader) -> Any:
        outputs, leaves = self.bridges[message["number"]]
        pulls = reader.each(message["grads"], 1)
        pairs = [(o, g) for o, g in zip(outputs, pulls, strict=True) if g is not None]
        if not pairs or not leaves:
            return [None] * len(leaves)
        return list(
            torch.autograd.grad(
                [o for o, _ in pairs], leaves, [g for _, g in pairs],
                retain_graph=True, allow_unused=True,
            )
        )  # fmt: skip

    # --- calls of the check's own functions ---------------------------------------------------

    def call_back(self, number: int, *arguments: Any, **named: Any) -> Any:
        """Ask the grader to run a function that it passed."""
        writer = ChildWriter(self, lasting=False)
        message = {
            "op": "callback",
            "number": number,
            "args": [writer.write(value) for value in arguments],
            "kwargs": [[key, writer.write(value)] for key, value in named.items()],
        }
        self.pack(message, writer)
        send(self.connection, message, writer.tensors)
        answer, tensors = self.serve()
        reader = self.load(answer, tensors)
        if "error" in answer:
            kind = by_name("builtins:" + answer["error"][0])
            raise kind(answer["error"][1])
        return reader.read(answer["value"])

    def _told(self, error: BaseException) -> dict[str, Any]:
        kinds = [kind.__name__ for kind in type(error).__mro__[:-2]]
        where = ""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            lines = self.cells.get(frame.filename)
            if lines is not None and frame.lineno and frame.lineno <= len(lines):
                where = f"line {frame.lineno}: {lines[frame.lineno - 1].strip()}"
                break
        return {"kinds": kinds[:12], "says": str(error)[:MAX_SAID], "where": where[:MAX_SAID]}


def _leaves(outputs: list[Tensor]) -> Iterator[Tensor]:
    """The leaves of the graphs that made these tensors, each once."""
    stack: list[Any] = [output.grad_fn for output in outputs]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and not node.next_functions:
            yield variable
        stack.extend(following for following, _ in node.next_functions)
