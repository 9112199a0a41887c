"""Talk to a model that was trained here, in the terminal.

    python labs/chat.py sft-nano
    python labs/chat.py sft-nano --prompt "What is 27 + 15?"
    echo "Who are you?" | python labs/chat.py sft-nano
    python labs/chat.py sft-nano --use-mine            # through your solutions of the lessons

A model that was only pretrained completes the text instead of answering it. In a conversation,
/new starts a new one and /quit (or Ctrl-D) ends it; Ctrl-C stops an answer.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from course_utils.base.errors import CourseError
from course_utils.exercises.mine import use_mine_in_lab
from course_utils.generation.chat import Chat, complete
from course_utils.generation.fused import Writer
from course_utils.generation.sampling import Sampling
from course_utils.serving.model import load_speaker
from course_utils.training.lab.language_run import load_language_model
from course_utils.training.lab.recipes import run_lab


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    """Talk to a model.

    Attributes:
        model: A run's name, its folder, or the folder of an exported model.
        prompt: Answer this prompt and exit.
        system: The system prompt of the conversation.
        temperature: The sampling temperature; 0 is greedy decoding.
        top_k: Sample only from this many of the most likely tokens.
        top_p: Sample only from the most likely tokens whose probabilities add up to this value.
        min_p: Sample only from tokens with at least this share of the highest probability.
        repetition_penalty: A value above 1 makes tokens that already occurred less likely.
        max_new_tokens: The maximum length of an answer in tokens.
        seed: The seed for sampling; by default a different one every time.
        use_mine: Generate with your own verified solutions from the lessons instead of the
            library's functions.
    """

    model: Annotated[str, tyro.conf.Positional] = "sft-nano"
    prompt: str | None = None
    system: str | None = None
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256
    seed: int | None = None
    use_mine: bool = False


def say(pieces) -> None:  # type: ignore[no-untyped-def]
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        print(" …", end="")
    print()


def talk(chat: Chat) -> None:
    interactive = sys.stdin.isatty()
    while True:
        try:
            text = input("\n› " if interactive else "")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if text.strip() == "/quit":
            return
        if text.strip() == "/new":
            chat.restart()
        elif text.strip():
            try:
                say(chat.reply(text))
            except CourseError as error:
                print(error)


def main(argv: Sequence[str]) -> None:
    config = tyro.cli(ChatConfig, args=list(argv), description=__doc__)
    sampling = Sampling(
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
        seed=config.seed,
    )
    speaker = load_speaker(config.model)
    model: Writer = speaker.model
    tokenizer = speaker.tokenizer
    if config.use_mine:
        use_mine_in_lab()
        # The speaker's model uses the library's fused layers; this one uses your solutions.
        model, _ = load_language_model(config.model)
    if not speaker.chats:
        prompt = config.prompt if config.prompt is not None else input("Text to continue: ")
        print(prompt, end="")
        say(complete(model, tokenizer, prompt, config.max_new_tokens, sampling))
        return
    chat = Chat(model, tokenizer, sampling, config.max_new_tokens, config.system)
    if config.prompt is not None:
        say(chat.reply(config.prompt))
    else:
        talk(chat)


if __name__ == "__main__":
    run_lab(main)
