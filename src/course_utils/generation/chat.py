"""Talking to a model: a conversation that remembers, and text that appears as it is chosen."""

from collections.abc import Iterator, Sequence

from course_utils.base.errors import CourseError
from course_utils.data.chat import END, END_OF_TEXT, Messages, prompt_of
from course_utils.generation.engine import stream
from course_utils.generation.fused import Writer
from course_utils.generation.sampling import Sampling
from course_utils.tokenizer.fast import FastBPE

UNFINISHED = "\ufffd"  # what the first bytes of a character decode to
ROOM_FOR_ANSWER = 16  # tokens that the oldest turns make way for at least


class Chat:
    """A conversation with a chat model.

    When it outgrows the model's context, its oldest questions and answers are forgotten; the system
    message stays.

    Args:
        model: In evaluation mode.
        sampling: Greedy by default.
        max_new_tokens: Longest answer.
        system: What the model is told before the conversation.
    """

    def __init__(
        self,
        model: Writer,
        tokenizer: FastBPE,
        sampling: Sampling | None = None,
        max_new_tokens: int = 256,
        system: str | None = None,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._sampling, self._max_new_tokens = sampling, max_new_tokens
        self._system: Messages = [{"role": "system", "content": system}] if system else []
        self.messages: Messages = []

    def restart(self) -> None:
        """Forget the conversation."""
        self.messages = []

    def reply(self, text: str) -> Iterator[str]:
        """The answer to `text`, in pieces; both become part of the conversation.

        An answer whose reading is broken off counts as far as it was read.

        Raises:
            CourseError: when `text` alone is longer than the model's context.
        """
        messages = [*self.messages, {"role": "user", "content": text.strip()}]
        prompt, messages = self._fitting(messages)
        special = self._tokenizer.special
        pieces = decoded(
            self._model,
            self._tokenizer,
            prompt,
            self._max_new_tokens,
            self._sampling,
            [special[END], special[END_OF_TEXT]],
        )
        said: list[str] = []
        try:
            for piece in pieces:
                said.append(piece)
                yield piece
        finally:
            self.messages = [*messages, {"role": "assistant", "content": "".join(said)}]

    def _fitting(self, messages: Messages) -> tuple[list[int], Messages]:
        """The prompt of as many of the last messages as leave room for an answer."""
        context = self._model.config.context
        while True:
            prompt = prompt_of(self._tokenizer, [*self._system, *messages])
            if len(prompt) + ROOM_FOR_ANSWER <= context:
                return prompt, messages
            if len(messages) == 1:
                raise CourseError(
                    f"That is {len(prompt)} tokens; this model's context holds {context}. "
                    "Say it shorter."
                )
            messages = messages[2:]


def complete(
    model: Writer,
    tokenizer: FastBPE,
    prompt: str,
    max_new_tokens: int,
    sampling: Sampling | None = None,
) -> Iterator[str]:
    """How a pretrained model goes on with a text, in pieces.

    Raises:
        CourseError: when the text is empty or longer than the model's context.
    """
    ids = tokenizer.encode(prompt, special=False)
    end = [tokenizer.special[END_OF_TEXT]]
    return decoded(model, tokenizer, ids, max_new_tokens, sampling, end)


def decoded(
    model: Writer,
    tokenizer: FastBPE,
    prompt: Sequence[int],
    max_new_tokens: int,
    sampling: Sampling | None,
    stop: Sequence[int],
) -> Iterator[str]:
    """Generated text as it grows; a character appears when all its bytes are there."""
    pending: list[int] = []
    steps = stream(model, [prompt], max_new_tokens=max_new_tokens, sampling=sampling, stop=stop)
    for step in steps:
        [token] = step.tokens
        if token is None:
            break
        pending.append(token)
        text = tokenizer.decode(pending)
        if not text.endswith(UNFINISHED):
            yield text
            pending = []
    if pending:
        yield tokenizer.decode(pending)
