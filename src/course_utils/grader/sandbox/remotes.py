"""Stand-ins for the learner's function, class and objects, as a check sees them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from course_utils.exercises.calls import Many
from course_utils.grader.sandbox.frames import WireError

if TYPE_CHECKING:
    from course_utils.grader.sandbox.proxy import Talk

METHOD = object()  # what a `Remote` answers when asked for a bound method


class Remote:
    """An object of the learner's, in the child. Subclasses carry its type's name."""

    def __init__(self, talk: "Talk", number: int, kind: str) -> None:
        vars(self).update(_talk=talk, _number=number, _kind=kind)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = self._talk.ask_about("get", self._number, name=name)
        if found is METHOD:
            return RemoteMethod(self, name)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        self._talk.set(self._number, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._talk.item(self._number, key)

    def __len__(self) -> int:
        found = self._talk.ask_about("length", self._number)
        if type(found) is not int or not 0 <= found < 2**40:
            raise TypeError("a length is a number")
        return found

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        found = self._talk.ask_about("iterate", self._number)
        if type(found) is not list:
            raise WireError("items are a list")
        return iter(found)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._talk.ask_about("copy", self._number)


class RemoteFunction(Remote, Many):
    """Something of the learner's that can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._talk.call(self._number, None, args, kwargs)

    def answers(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        """In one message."""
        found: list[Any] = self._talk.calls(self._number, calls)
        return found


class RemoteMethod:
    """A method of a remote object, called by its name."""

    def __init__(self, owner: Remote, name: str) -> None:
        self.owner, self.name = owner, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        talk: Talk = self.owner._talk
        return talk.call(self.owner._number, self.name, args, kwargs)
