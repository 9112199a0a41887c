"""The grader's side of the conversation with a child.

A check calls `student(x)`; what it calls is a `RemoteFunction`, which sends the arguments to the
child and rebuilds what comes back: plain values, tensors (with a bridge to the child's graph when
gradients may flow through them), or a `Remote` for anything else. Nothing that comes back is an
object of the learner's, and a comparison with `==` is never asked of the child.
"""

import builtins
import re
import struct
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_utils.base.errors import CourseError
from course_utils.grader.sandbox.frames import WireError
from course_utils.grader.sandbox.grader_values import GraderReader, GraderWriter, description
from course_utils.grader.sandbox.identity import Tensors, define, make, same_bits
from course_utils.grader.sandbox.objects import take_over
from course_utils.grader.sandbox.remotes import Remote, RemoteFunction

STUDENT = 0
MAX_NESTED = 20


class OutOfMemory(BaseException):
    """The learner's code asked for more memory than it may have."""


class Refused(Exception):
    """The learner's code used the library's own version of what it was to write."""


class Talk:
    """One check's conversation with a child: who is known by which number.

    Args:
        ask: sends a message with tensors and returns the answer, serving callbacks on the way.
    """

    def __init__(self, ask: Callable[[dict[str, Any], list[Tensor]], tuple[dict, list[Tensor]]]):
        self.ask = ask
        self.tensors = Tensors(first=0, careful=False)
        self.objects: dict[int, Any] = {}
        self.object_numbers: dict[int, int] = {}
        self.described: dict[int, Any] = {}
        self.remotes: dict[int, Remote] = {}
        self.generators: list[torch.Generator] = []
        self.generator_states: list[Tensor | None] = []
        self.callbacks: list[Callable[..., Any]] = []
        self.sent_classes: set[str] = set()
        self.rng: Tensor | None = None
        self.begun = False
        self.depth = 0
        self.student = RemoteFunction(self, STUDENT, "student")
        self.remotes[STUDENT] = self.student

    # --- asking -------------------------------------------------------------------------------

    def request(self, op: str, writer: GraderWriter, **message: Any) -> Any:
        """Ask the child something and rebuild its answer."""
        message["op"] = op
        if not self.begun:
            message["begin"], self.begun = True, True
        self._pack(message, writer)
        if self.depth >= MAX_NESTED:
            raise RecursionError("the check and the learner's code call each other without end")
        self.depth += 1
        try:
            answer, tensors = self.ask(message, writer.tensors)
        finally:
            self.depth -= 1
        value = self._read(answer, tensors)
        if self.depth == 0:
            self.tensors.forget_passing()
        return value

    def call(self, number: int, name: str | None, args: tuple, kwargs: dict[str, Any]) -> Any:
        writer = GraderWriter(self)
        result = self.request(
            "call", writer, target=["h", number], name=name,
            args=[writer.write(a, 1) for a in args],
            kwargs=[[k, writer.write(a, 1)] for k, a in kwargs.items()],
        )  # fmt: skip
        if type(result) is not tuple or len(result) not in (1, 2):
            raise WireError("a call answers with one value")
        for key, now in result[1] if len(result) == 2 else ():
            given = args[key] if type(key) is int else kwargs[key]
            _become(given, now)
        return result[0]

    def calls(self, number: int, calls: list[tuple]) -> list[Any]:
        """Many calls in one message; what becomes of their arguments is not asked."""
        writer = GraderWriter(self)
        plain = [[writer.write(a, 1) for a in arguments] for arguments in calls]
        found = self.request("calls", writer, target=["h", number], calls=plain)
        if type(found) is not list or len(found) != len(calls):
            raise WireError("so many calls have so many answers")
        return found

    def ask_about(self, op: str, number: int, **more: Any) -> Any:
        return self.request(op, GraderWriter(self), target=["h", number], **more)

    def set(self, number: int, name: str, value: Any) -> None:
        writer = GraderWriter(self)
        self.request("set", writer, target=["h", number], name=name, to=writer.write(value, 1))

    def item(self, number: int, key: Any) -> Any:
        writer = GraderWriter(self)
        return self.request("item", writer, target=["h", number], key=writer.write(key, 1))

    # --- what crosses beside a value ----------------------------------------------------------

    def _pack(self, message: dict[str, Any], writer: GraderWriter) -> None:
        if updates := self.tensors.changes(writer):
            message["updates"] = updates
        for number, value in list(self.objects.items()):
            if number in writer.new_objects:
                continue
            plain = description(value, writer)
            if plain != self.described[number]:
                self.described[number] = plain
                writer.new_objects[number] = plain
        if writer.new_objects:
            message["objects"] = [[n, plain] for n, plain in writer.new_objects.items()]
        if writer.defined:
            message["tensors"] = [define(known, writer) for known in writer.defined]
        if writer.code:
            message["code"] = writer.code
        states = []
        for number, generator in enumerate(self.generators):
            state = generator.get_state()
            before = self.generator_states[number]
            if before is None or not same_bits(state, before):
                self.generator_states[number] = state
                states.append([number, writer.tensor(state)])
        if states:
            message["generators"] = states
        state = torch.get_rng_state()
        if self.rng is None or not same_bits(state, self.rng):
            self.rng = state
            message["rng"] = writer.tensor(state)
        message["grad"] = torch.is_grad_enabled()

    def _read(self, answer: dict[str, Any], tensors: list[Tensor]) -> Any:
        """Rebuild an answer. Whatever is odd about it is a `WireError`, and ends the child."""
        try:
            reader = self._unpack(answer, tensors)
            if answer["op"] == "raise":
                self._raise(answer["error"])
            if "bridge" in answer:
                self._bridge(answer["bridge"], reader)
            return reader.read(answer["value"])
        except (
            KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError,
        ) as error:  # fmt: skip
            if getattr(error, "of_the_learner", False):
                raise
            raise WireError(f"malformed answer: {type(error).__name__}: {error}") from error

    def _unpack(self, answer: dict[str, Any], tensors: list[Tensor]) -> GraderReader:
        reader = GraderReader(self, tensors)
        for plain in answer.get("tensors", ()):
            number = plain[0]
            if type(number) is not int or number % 2 == 0 or number in self.tensors.by_number:
                raise WireError("this number is not the child's to give")
            tensor = make(
                [number, reader.once(plain[1]), plain[2] is True, plain[3] is True,
                 None if plain[4] is None else reader.once(plain[4]), True],
                tensors,
            )  # fmt: skip
            self.tensors.add(tensor, lasting=True, number=number)
        for update in answer.get("updates", ()):
            if update[0] != "requires" and update[2] is not None:
                reader.once(update[2])
            self.tensors.apply(update, tensors)
        for number, plain in answer.get("objects", ()):
            take_over(self.objects[number], plain, reader)
            writer = GraderWriter(self)
            self.described[number] = description(self.objects[number], writer)
        for number, index in answer.get("generators", ()):
            state = _drawn_from(reader.tensor(index))
            self.generators[number].set_state(state)
            self.generator_states[number] = state
        if "rng" in answer:
            self.rng = _drawn_from(reader.tensor(answer["rng"]))
            torch.set_rng_state(self.rng)
        torch.set_grad_enabled(answer.get("grad") is not False)
        return reader

    def _bridge(self, plain: dict[str, Any], reader: GraderReader) -> None:
        number = plain["number"]
        leaves = [self.tensors.by_number[n].tensor for n in plain["leaves"]]
        values = [reader.tensor(i) for i in plain["outputs"]]
        wanting = [leaf for leaf in leaves if leaf.requires_grad]
        with torch.enable_grad():
            if wanting:
                reader.outputs = list(_Bridge.apply(self, number, values, len(leaves), *leaves))
            else:
                reader.outputs = [v.requires_grad_() for v in values]

    def backward(self, number: int, pulls: tuple[Tensor | None, ...]) -> list[Tensor | None]:
        writer = GraderWriter(self)
        grads = [None if p is None else ["x", writer.tensor(p)] for p in pulls]
        found = self.request("backward", writer, number=number, grads=grads)
        if type(found) is not list:
            raise WireError("gradients are a list")
        return found

    def _raise(self, told: dict[str, Any]) -> None:
        kinds, says, where = told["kinds"], told["says"], told["where"]
        if not (type(says) is type(where) is str and all(type(k) is str for k in kinds)):
            raise WireError("an error is told in words")
        if "ForbiddenReference" in kinds:
            raise Refused(says[:500])
        if "MemoryError" in kinds or "allocate memory" in says:
            raise OutOfMemory(says[:500])
        raise rebuilt_error(kinds, says[:500], where[:500])

    def answer_callback(self, message: dict[str, Any], tensors: list[Tensor]) -> tuple[dict, list]:
        """Run a function of the check's for the child."""
        reader = self._unpack(message, tensors)
        answer: dict[str, Any] = {"op": "answer"}
        writer = GraderWriter(self)
        number = message["number"]
        if type(number) is not int or not 0 <= number < len(self.callbacks):
            raise WireError("no such function")
        arguments = reader.each(message["args"], 1)
        named = {str(key): reader.read(value) for key, value in message["kwargs"]}
        try:
            answer["value"] = writer.write(self.callbacks[number](*arguments, **named), 1)
        except Exception as error:
            kind = type(error).__name__
            if not isinstance(getattr(builtins, kind, None), type):
                kind = "RuntimeError"
            answer["error"] = [kind, str(error)[:500]]
        self._pack(answer, writer)
        return answer, writer.tensors


class _Bridge(torch.autograd.Function):
    """Lets gradients flow through the learner's code: backward asks the child."""

    @staticmethod
    def forward(ctx, talk, number, values, n_leaves, *leaves):  # type: ignore[no-untyped-def]
        ctx.talk, ctx.number = talk, number
        ctx.shapes = [(leaf.shape, leaf.dtype) for leaf in leaves]
        ctx.set_materialize_grads(False)
        return tuple(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *pulls):  # type: ignore[no-untyped-def]
        found = ctx.talk.backward(ctx.number, pulls)
        if len(found) != len(ctx.shapes):
            raise WireError("one gradient for each leaf")
        for grad, (shape, dtype) in zip(found, ctx.shapes, strict=True):
            if grad is not None and (
                type(grad) is not Tensor or grad.shape != shape or grad.dtype != dtype
            ):
                raise WireError("a gradient has the shape and dtype of its tensor")
        return None, None, None, None, *found


# How torch's CPU generator begins its state: seed, numbers left, whether it is seeded, the next.
_GENERATOR = struct.Struct("<QiiQ")


def _drawn_from(state: Tensor) -> Tensor:
    """A generator's state, if drawing can lead to it.

    torch takes `left` and `next` as they are, each below its limit, and reads the 624 numbers of
    the state from `next` until none is left: were they not to agree, also what lies behind it.
    """
    if state.dtype != torch.uint8 or state.ndim != 1 or len(state) < _GENERATOR.size:
        raise WireError("this is no generator's state")
    _, left, seeded, following = _GENERATOR.unpack_from(state.numpy())  # type: ignore[arg-type]
    # New, or that many numbers into the 624.
    if seeded != 1 or ((left, following) != (1, 0) and left + following != 625):
        raise WireError("no generator comes into this state")
    return state


def _become(given: Any, now: Any) -> None:
    """Change a container of the check's to what the learner made of it."""
    if type(given) is not type(now):
        return
    if isinstance(given, list):
        for one, other in zip(given, now, strict=False):
            _become(one, other)
        kept = [one if type(one) in (list, dict) and type(one) is type(other) else other
                for one, other in zip(given, now, strict=False)]  # fmt: skip
        given[:] = kept + now[len(kept) :]
    elif isinstance(given, dict):
        for key, value in now.items():
            if key in given and type(given[key]) in (list, dict):
                _become(given[key], value)
                now[key] = given[key]
        given.clear()
        given.update(now)
    elif isinstance(given, set):
        given.clear()
        given.update(now)
    elif isinstance(given, bytearray):
        given[:] = now
    elif isinstance(given, tuple):
        for one, other in zip(given, now, strict=False):
            _become(one, other)


def rebuilt_error(kinds: list[str], says: str, where: str) -> Exception:
    """An exception of the same name, from the nearest kind that checks may expect."""
    base: type[Exception] = Exception
    for name in kinds:
        known = CourseError if name == "CourseError" else getattr(builtins, name, None)
        if isinstance(known, type) and issubclass(known, Exception):
            base = known
            break
    name = kinds[0] if kinds and re.fullmatch(r"\w{1,80}", kinds[0]) else "Exception"
    # KeyError quotes its argument and others need five of them: ours say what was said.
    kind = type(name, (base,), {"__str__": lambda self: says, "__init__": lambda self: None})
    error: Exception = base.__new__(kind)
    error.of_the_learner = True  # type: ignore[attr-defined]
    error.learners_line = where  # type: ignore[attr-defined]
    return error
