"""The server as its clients see it: the real openai package against a real uvicorn."""

import contextlib
import json
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from toy_speaker import make_model

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root
from course_utils.data.chat import SPECIAL, prompt_of
from course_utils.exchange.hf import to_hf
from course_utils.serving.app import TOKENS_AROUND, make_app
from course_utils.serving.engine import Answer, Engine, Job, Piece
from course_utils.serving.model import Speaker
from course_utils.serving.server import chosen_key, listen, running_beside
from course_utils.tokenizer.fast import FastBPE

# The default of five seconds holds only on an idle machine.
get, post = partial(httpx.get, timeout=60), partial(httpx.post, timeout=60)

MESSAGES: list[Any] = [{"role": "user", "content": "the cat sat"}]


@contextlib.contextmanager
def served(speaker: Speaker, key: str | None = None, **settings: Any) -> Iterator[tuple[Any, str]]:
    """An engine and the address where it is served."""
    with Engine(speaker, **settings) as engine, running_beside(make_app(engine, key)) as url:
        yield engine, url


@pytest.fixture(scope="module")
def url(speaker: Speaker) -> Iterator[str]:
    with served(speaker) as (_, url):
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_a_chat_is_what_the_engine_writes(client: OpenAI, speaker: Speaker):
    done = client.chat.completions.create(
        model="tiny", messages=MESSAGES, temperature=0, max_tokens=12
    )
    prompt = tuple(prompt_of(speaker.tokenizer, MESSAGES))
    with Engine(speaker) as engine:
        [pieces] = engine.write([Job(prompt, max_new_tokens=12)])
    assert done.choices[0].message.content == "".join(piece.text for piece in pieces)
    assert done.choices[0].message.role == "assistant"
    assert done.choices[0].finish_reason == "length"
    usage = done.usage
    assert usage and usage.prompt_tokens == len(prompt) and usage.completion_tokens == 12
    assert usage.total_tokens == len(prompt) + 12
    assert done.model == "tiny" and done.object == "chat.completion"


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_streams_say_the_same_and_count_it(client: OpenAI, limit: str):
    asked: dict[str, Any] = {
        "model": "tiny", "messages": MESSAGES, "temperature": 0.9, "seed": 3, limit: 20
    }  # fmt: skip
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    *said, last, usage = chunks
    assert said[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in said)
    assert text == whole.choices[0].message.content
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert usage.choices == [] and usage.usage == whole.usage
    assert all(chunk.usage is None for chunk in [*said, last])
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(said) > 5, "it came in pieces"


def test_a_stream_without_usage_has_none(client: OpenAI):
    chunks = list(
        client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=3, stream=True)
    )
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_completions_go_on_with_a_text_or_with_token_ids(client: OpenAI, speaker: Speaker):
    asked: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 15}
    done = client.completions.create(prompt="the dog", **asked)
    ids = speaker.tokenizer.encode("the dog")
    for prompt in (ids, ["the dog"]):
        again = client.completions.create(prompt=prompt, **asked)
        assert again.choices[0].text == done.choices[0].text
    streamed = client.completions.create(prompt="the dog", stream=True, **asked)
    assert "".join(chunk.choices[0].text for chunk in streamed) == done.choices[0].text
    stop = done.choices[0].text[4:6]
    cut = client.completions.create(prompt="the dog", stop=stop, **asked)
    assert cut.choices[0].text == done.choices[0].text.partition(stop)[0]
    assert cut.choices[0].finish_reason == "stop"


def test_a_seed_repeats_the_text_whoever_else_asks(client: OpenAI):
    def ask(seed: int) -> str:
        done = client.chat.completions.create(
            model="tiny", messages=MESSAGES, seed=seed, max_tokens=30
        )
        return done.choices[0].message.content or ""

    alone = [ask(seed) for seed in range(4)]
    assert len(set(alone)) == 4
    with ThreadPoolExecutor(12) as crowd:
        assert list(crowd.map(ask, [0, 1, 2, 3] * 3)) == alone * 3


def test_typed_text_cannot_open_or_end_a_message(client: OpenAI, speaker: Speaker):
    typed = "<|im_end|>"
    done = client.completions.create(model="tiny", prompt=typed, max_tokens=1)
    assert done.usage and done.usage.prompt_tokens == len(
        speaker.tokenizer.encode(typed, special=False)
    )
    assert done.usage.prompt_tokens > 1


def test_the_models_are_listed(client: OpenAI):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_health_says_what_is_going_on(url: str):
    found = get(f"{url}/health").json()
    assert found == {"status": "ok", "model": "tiny", "running": 0, "waiting": 0}


CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"
GOOD = {"model": "tiny", "messages": MESSAGES}

WRONG: list[tuple[str, dict[str, Any], int, str]] = [
    (CHAT, GOOD | {"model": "gpt-4"}, 404, "no model 'gpt-4' here; this server has 'tiny'"),
    (CHAT, {"model": "tiny"}, 400, "messages is missing"),
    (CHAT, {"messages": MESSAGES}, 400, "model is missing"),
    (CHAT, GOOD | {"messages": []}, 400, "messages: it must have at least 1 item"),
    (CHAT, GOOD | {"messages": "Hi"}, 400, 'messages: it must be a valid list; found "Hi"'),
    (CHAT, GOOD | {"messages": [{"role": "robot", "content": "x"}]}, 400,
     "messages.0.role: it must be 'system', 'developer', 'user' or 'assistant'; found \"robot\""),
    (CHAT, GOOD | {"messages": [{"role": "user"}]}, 400, "messages.0.content is missing"),
    (CHAT, GOOD | {"messages": [{"role": "user", "content": 7}]}, 400, "messages.0.content"),
    (CHAT, GOOD | {"temperature": -1}, 400,
     "temperature: it must be greater than or equal to 0; found -1"),
    (CHAT, GOOD | {"temperature": "hot"}, 400, "temperature: it must be a valid number"),
    (CHAT, GOOD | {"temperature": True}, 400, "temperature"),
    (CHAT, GOOD | {"top_p": 0}, 400, "top_p: it must be greater than 0"),
    (CHAT, GOOD | {"max_tokens": 0}, 400, "max_tokens: it must be greater than or equal to 1"),
    (CHAT, GOOD | {"max_tokens": 2.5}, 400, "max_tokens: it must be a valid integer; found 2.5"),
    (CHAT, GOOD | {"seed": "x"}, 400, "seed: it must be a valid integer"),
    (CHAT, GOOD | {"n": 2}, 400, "n must be 1: an answer for each request"),
    (CHAT, GOOD | {"stop": ["a", ""]}, 400, "stop takes up to four strings, none of them empty"),
    (CHAT, GOOD | {"stop": list("abcde")}, 400, "stop takes up to four"),
    (CHAT, GOOD | {"stop": 3}, 400, "stop: it must be a valid"),
    (CHAT, GOOD | {"temprature": 1}, 400,
     "There is no setting 'temprature'. Did you mean 'temperature'?"),
    (CHAT, GOOD | {"tools": [{"type": "function"}]}, 400, "tools is not possible here"),
    (CHAT, GOOD | {"logprobs": True}, 400, "logprobs is not possible here"),
    (CHAT, GOOD | {"messages": [{"role": "user", "content": "the cat " * 100}]}, 400,
     "prompt and answer together may have 96. Shorten it."),
    (COMPLETE, {"model": "tiny", "prompt": ""}, 400, "prompt is empty"),
    (COMPLETE, {"model": "tiny", "prompt": []}, 400, "prompt is one text"),
    (COMPLETE, {"model": "tiny", "prompt": ["a", "b"]}, 400, "send a request for each"),
    (COMPLETE, {"model": "tiny", "prompt": [99999]}, 400, "an id outside 0"),
    (COMPLETE, {"model": "tiny", "prompt": {"text": "x"}}, 400, "prompt: it must be a valid"),
]  # fmt: skip


@pytest.mark.parametrize(("route", "body", "status", "says"), WRONG)
def test_wrong_requests_are_told_what_is_wrong(url, route, body, status, says):
    answer = post(url + route, json=body)
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert says in error["message"]
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code"}


def test_what_asks_for_nothing_is_taken(url):
    harmless = {
        "n": 1, "logprobs": False, "tools": [], "presence_penalty": 0, "user": "me",
        "stop": None, "logit_bias": {}, "response_format": {"type": "text"}, "max_tokens": 2,
    }  # fmt: skip
    assert post(url + CHAT, json=GOOD | harmless).status_code == 200


def test_bodies_that_are_no_json_are_refused(url):
    headers = {"content-type": "application/json"}
    for content, says in ((b"{", "not JSON"), (b"[1]", "must be a JSON object"), (b"", "not JSON")):
        answer = post(url + CHAT, content=content, headers=headers)
        assert (answer.status_code, says in answer.text) == (400, True)
    # What a web page from elsewhere could send without asking.
    answer = post(url + CHAT, content=json.dumps(GOOD), headers={"content-type": "text/plain"})
    assert answer.status_code == 415 and "application/json" in answer.json()["error"]["message"]
    answer = post(url + CHAT, content=b" " * 2**21, headers=headers)
    assert answer.status_code == 413


def test_other_routes_name_those_that_exist(url):
    answer = get(f"{url}/v1/embeddings")
    assert answer.status_code == 404
    assert "POST /v1/chat/completions" in answer.json()["error"]["message"]
    assert get(url + CHAT).status_code == 405


def test_the_openai_package_raises_its_own_errors(client: OpenAI):
    with pytest.raises(openai.NotFoundError, match="this server has 'tiny'"):
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=-1)


def test_without_the_key_nobody_is_answered(speaker: Speaker):
    with served(speaker, key="secret") as (_, url):
        for key in ("wrong", "secre", "sécret"):
            answer = get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}".encode()})
            assert answer.status_code == 401 and "API key" in answer.json()["error"]["message"]
        assert get(f"{url}/v1/models").status_code == 401
        assert post(url + CHAT, json=GOOD).status_code == 401
        assert get(f"{url}/health").status_code == 200
        with pytest.raises(openai.AuthenticationError):
            OpenAI(base_url=f"{url}/v1", api_key="x").models.list()
        assert OpenAI(base_url=f"{url}/v1", api_key="secret").models.list().data


def test_a_model_that_was_only_pretrained_does_not_chat(speaker: Speaker):
    with served(replace(speaker, chats=False)) as (_, url):
        answer = post(url + CHAT, json=GOOD)
        assert answer.status_code == 400 and "/v1/completions" in answer.text
        body = {"model": "tiny", "prompt": "the"}
        assert post(url + COMPLETE, json=body).status_code == 200


class Watched(Engine):
    """Says when a request has a slot, and how it ended."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.begun, self.ended = threading.Event(), threading.Event()
        self.finish: str | None = None

    def submit(self, job: Job, deliver: Callable[[Piece], None]) -> Answer:
        def watched(piece: Piece) -> None:
            self.begun.set()
            deliver(piece)
            if piece.finish:
                self.finish = piece.finish
                self.ended.set()

        return super().submit(job, watched)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(endless: Speaker, stream: bool):
    body = json.dumps({"model": "tiny", "prompt": "the", "max_tokens": 19_000, "stream": stream})
    with Watched(endless, n_slots=1) as engine, running_beside(make_app(engine)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = (
                f"POST {COMPLETE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            )
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            if stream:
                assert b"200 OK" in connection.recv(100)
            assert engine.begun.wait(60)
        assert engine.ended.wait(60)
        assert engine.finish == "cancelled"
        assert engine.running == 0


class Standing(Watched):
    """Begins, and goes on when its gate is opened."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.gate = threading.Event()

    def submit(self, job: Job, deliver: Callable[[Piece], None]) -> Answer:
        return super().submit(job, lambda piece: (self.gate.wait(), deliver(piece))[1])


def test_a_full_queue_says_try_again(endless: Speaker):
    """The speaker has no token that ends an answer: one at the start would free the only slot."""
    body = {"model": "tiny", "prompt": "the", "max_tokens": 2}
    with (
        Standing(endless, n_slots=1, queue=0) as engine,
        running_beside(make_app(engine)) as url,
        ThreadPoolExecutor(1) as other,
    ):
        first = other.submit(post, url + COMPLETE, json=body)
        try:
            assert engine.begun.wait(60)
            answer = post(url + COMPLETE, json=body)
        finally:
            engine.gate.set()
        assert first.result().status_code == 200
    assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
    error = answer.json()["error"]
    assert error["type"] == "rate_limit_error" and "try again" in error["message"]


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)))


def until_closed(connection: socket.socket, drip: bytes = b"") -> bytes:
    """What the server says until it hangs up, while it gets a few bytes now and then."""
    said = b""
    connection.settimeout(0.05)
    for _ in range(1200):
        try:
            part = connection.recv(2**16)
            if not part:
                return said
            said += part
        except TimeoutError:
            with contextlib.suppress(ConnectionError):  # the next recv finds it closed
                connection.sendall(drip)
        except ConnectionError:  # closed while bytes were on their way
            return said
    pytest.fail(f"The server waits and waits; it said {said!r}.")


HALF = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
AS_TEXT = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"


@pytest.mark.parametrize(
    ("begun", "drip", "says"),
    [
        (b"", b"", b""),
        (HALF, b"", b""),
        (HALF, b"Again: x\r\n", b""),
        (HALF + b"\r\n" + HALF, b"Again: x\r\n", b" 200 "),
        (AS_TEXT, b" ", b" 415 "),  # refused before its body, which goes on coming
    ],
    ids=["silent", "half a head", "endless head", "second head", "refused"],
)
def test_who_asks_nothing_is_not_waited_for(speaker: Speaker, begun, drip, says):
    with (
        Engine(speaker) as engine,
        running_beside(make_app(engine), head_seconds=1.5) as url,
        connected(url) as connection,
    ):
        connection.sendall(begun)
        said = until_closed(connection, drip)
    assert says in said if says else said == b""


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_may_take_longer_than_a_head_may(speaker: Speaker, stream: bool):
    with (
        Standing(speaker) as engine,
        running_beside(make_app(engine), head_seconds=1) as url,
        ThreadPoolExecutor(1) as other,
    ):
        body = GOOD | {"temperature": 0, "max_tokens": 2, "stream": stream}
        asked = other.submit(post, url + CHAT, json=body)
        try:
            assert engine.begun.wait(60)
            with connected(url) as later:  # its time is over after the first one's would be
                until_closed(later)
        finally:
            engine.gate.set()
        assert asked.result().status_code == 200
        assert '"length"' in asked.result().text


def test_a_connection_may_ask_again_and_again(speaker: Speaker):
    """And for longer, in all, than for one head."""
    with (
        Engine(speaker) as engine,
        running_beside(make_app(engine), head_seconds=1) as url,
        connected(url) as other,
        connected(url) as connection,
        connection.makefile("rb") as answers,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(until_closed, other)
        while not waiting.done():
            connection.sendall(HALF + b"\r\n")
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            lengths = [int(line.split()[1]) for line in iter(answers.readline, b"\r\n")
                       if line.startswith(b"content-length")]  # fmt: skip
            answers.read(*lengths)


@pytest.mark.parametrize("drip", [b"", b" "])
def test_a_body_that_does_not_come_is_not_waited_for(speaker: Speaker, drip: bytes):
    head = HALF.replace(b"GET /health", b"POST /v1/completions")
    head += b"Content-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
    with (
        Engine(speaker) as engine,
        running_beside(make_app(engine, body_seconds=0.3)) as url,
        connected(url) as connection,
    ):
        connection.sendall(head + b"{")
        answer, _, body = until_closed(connection, drip).partition(b"\r\n\r\n")
    assert b" 408 " in answer
    error = json.loads(body)["error"]
    assert error["message"] == "The body did not arrive within 0.3 seconds."
    assert error["type"] == "invalid_request_error"


OWN = ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000"]
FOREIGN = [
    "", "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example",
    "evil.example:[::1]", "192.168.0.7:8000", "0.0.0.0",
]  # fmt: skip


@pytest.mark.parametrize("host", OWN)
def test_without_a_key_this_machine_is_asked_by_its_own_names(url, host):
    assert get(f"{url}/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
def test_a_page_whose_name_points_here_later_is_refused(url, host):
    headers = {"host": host}
    answers = [get(url + route, headers=headers) for route in ("/", "/health", "/v1/models")]
    answers += [post(url + route, headers=headers, json=GOOD) for route in (CHAT, COMPLETE)]
    for answer in answers:
        assert answer.status_code == 403
        error = answer.json()["error"]
        assert repr(host) in error["message"] and "COURSE_API_KEY" in error["message"]
        assert set(error) == {"message", "type", "param", "code"}


def test_with_a_key_the_server_may_have_any_name(speaker: Speaker):
    headers = {"host": "course.example", "authorization": "Bearer secret"}
    with served(speaker, key="secret") as (_, url):
        assert get(f"{url}/v1/models", headers=headers).status_code == 200
        assert get(url, headers={"host": "course.example"}).status_code == 200


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (COMPLETE, {"prompt": "the " * 100_000}),
        (COMPLETE, {"prompt": ["é" * 100_000]}),
        (CHAT, {"messages": [{"role": "user", "content": "the " * 100_000}]}),
        (CHAT, {"messages": [{"role": "user", "content": "the"}] * 5000}),
        (CHAT, {"messages": [{"role": "user", "content": ""}] * 5000}),
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_cut_into_tokens(url, monkeypatch, route, body):
    encoded: list[str] = []
    encode = FastBPE.encode
    monkeypatch.setattr(
        FastBPE, "encode", lambda self, text, **how: (encoded.append(text), encode(self, text))[1]
    )
    answer = post(url + route, json={"model": "tiny"} | body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded"), error
    assert "prompt and answer together may have 96. Shorten it." in error["message"]
    assert encoded == []


def test_what_just_fits_is_answered(url, speaker: Speaker):
    ids = range(speaker.tokenizer.vocab_size)
    longest = max(map(speaker.tokenizer.token_bytes, ids), key=len)
    learned = max((i for i in ids if i not in speaker.tokenizer.special.values()),
                  key=lambda i: len(speaker.tokenizer.token_bytes(i)))  # fmt: skip
    assert speaker.longest_token == len(longest)
    text = speaker.tokenizer.token_bytes(learned).decode() * 95
    assert len(speaker.tokenizer.encode(text)) == 95
    body = {"model": "tiny", "prompt": text, "max_tokens": 1}
    assert post(url + COMPLETE, json=body).status_code == 200
    answer = post(url + COMPLETE, json=body | {"prompt": text + "the"})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded"


def test_a_message_is_at_least_so_many_tokens():
    tokenizer = FastBPE.train(["system\nuser\nassistant\n" * 50], 256 + 40, SPECIAL)
    for role in ("system", "user", "assistant"):
        with_it = prompt_of(tokenizer, [{"role": role, "content": ""}])
        assert len(with_it) - len(prompt_of(tokenizer, [])) == TOKENS_AROUND


def test_half_a_character_is_refused(url):
    for body in (
        rb'{"model": "tiny", "prompt": "\ud83d"}',
        rb'{"model": "tiny", "messages": [{"role": "user", "content": "\ud83d"}]}',
    ):
        route = CHAT if b"messages" in body else COMPLETE
        headers = {"content-type": "application/json"}
        answer = post(url + route, content=body, headers=headers)
        assert answer.status_code == 400, answer.text
        assert "half a character" in answer.json()["error"]["message"]


def test_the_page_may_run_its_own_script_and_nothing_else(url):
    page = get(url)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "sha256-" in policy
    assert "http://" not in page.text and "https://" not in page.text
    assert "innerHTML" not in page.text


def test_others_are_let_in_with_a_key_only(monkeypatch):
    monkeypatch.delenv("COURSE_API_KEY", raising=False)
    for host in ("127.0.0.1", "localhost", "::1"):
        assert chosen_key(None, host) is None
    for host in ("0.0.0.0", "::", "192.168.0.7", "myhost"):
        with pytest.raises(CourseError, match="COURSE_API_KEY"):
            chosen_key(None, host)
        assert chosen_key("k", host) == "k"
    monkeypatch.setenv("COURSE_API_KEY", "from the environment")
    assert chosen_key(None, "0.0.0.0") == "from the environment"
    monkeypatch.setenv("COURSE_API_KEY", "")
    with pytest.raises(CourseError):
        chosen_key(None, "0.0.0.0")


def test_a_port_that_is_taken_is_said(speaker):
    with listen("127.0.0.1", 0) as taken, pytest.raises(CourseError, match="another --port"):
        listen("127.0.0.1", taken.getsockname()[1])


def lab_main() -> Callable[[list[str]], None]:
    return runpy.run_path(str(course_root() / "labs" / "serve.py"))["main"]


def test_the_lab_refuses_to_be_open_to_everybody(monkeypatch):
    monkeypatch.delenv("COURSE_API_KEY", raising=False)
    with pytest.raises(CourseError, match="everybody in the network"):
        lab_main()(["nothing", "--host", "0.0.0.0"])
    with pytest.raises(CourseError, match="There is no run 'nothing'"):
        lab_main()(["nothing", "--port", "0"])


def test_the_lab_serves_until_sigterm_and_finishes_what_it_writes(tmp_path: Path):
    """As people start it: an exported model, a stream that is open when the signal comes."""
    model, tokenizer = make_model(context=3000)
    to_hf(model).save_pretrained(tmp_path / "exported")
    tokenizer.save(tmp_path / "exported" / "tokenizer.json")
    lab = course_root() / "labs" / "serve.py"
    command = [sys.executable, lab, tmp_path / "exported", "--port", "0", "--context", "3000"]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdout and process.stderr
        said = process.stdout.readline()
        assert said.startswith("exported is at http://127.0.0.1:"), process.stderr.read()
        client = OpenAI(base_url=f"{said.split()[3]}/v1", api_key="none", max_retries=0)
        stream = client.chat.completions.create(
            model="exported", messages=MESSAGES, max_tokens=600, stream=True
        )
        next(iter(stream))
        process.send_signal(signal.SIGTERM)
        finish = [chunk.choices[0].finish_reason for chunk in stream][-1]
        assert finish in ("length", "stop")
        rest, errors = process.communicate(timeout=60)
        assert (rest, errors, process.returncode) == ("Stopped.\n", "", 0)
