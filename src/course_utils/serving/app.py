"""The HTTP side: routes, streams, and who may ask.

    POST /v1/chat/completions   POST /v1/completions   GET /v1/models   GET /health   GET /

A client that goes away takes its request with it: the slot is free before the next step.
"""

import asyncio
import contextlib
import hashlib
import json
import re
import secrets
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from course_utils.base.errors import CourseError
from course_utils.data.chat import prompt_of
from course_utils.serving.engine import Answer, Closed, Engine, Full, Job, Piece
from course_utils.serving.protocol import (
    Asked,
    ChatRequest,
    CompletionRequest,
    RequestError,
    parsed,
)
from course_utils.serving.server import is_loopback

LONGEST_BODY = 2**20  # bytes
SECONDS_FOR_BODY = 30.0
TOKENS_AROUND = 5  # of a message: at least one each for start, role and newline, end and newline
PAGE = "page.html"


def make_app(
    engine: Engine, api_key: str | None = None, *, body_seconds: float = SECONDS_FOR_BODY
) -> FastAPI:
    """The application that answers with an engine, which is started and stopped by the caller.

    Args:
        api_key: what clients must send as `Authorization: Bearer KEY`; None lets everybody in who
            asks this machine by a name of its own.
        body_seconds: after which a request whose body is not there is refused.
    """
    app = FastAPI(
        title="Course server",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(_host_check(api_key))],
    )
    guarded = [Depends(_key_check(api_key))]
    began, page = int(time.time()), chat_page()
    speaker = engine.speaker

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> JSONResponse:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, error: HTTPException) -> JSONResponse:
        routes = "POST /v1/chat/completions, POST /v1/completions, GET /v1/models, GET /health"
        message = f"{request.method} {request.url.path} does not exist here. There are {routes}."
        found = RequestError(message, status=error.status_code)
        return JSONResponse(found.body, error.status_code, error.headers)

    @app.get("/")
    async def index() -> HTMLResponse:
        return page

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "model": speaker.name,
            "running": engine.running,
            "waiting": engine.waiting,
        }

    def described() -> dict[str, Any]:
        return {
            "id": speaker.name,
            "object": "model",
            "created": began,
            "owned_by": "course",
            "max_model_len": engine.capacity,
            "chats": speaker.chats,
        }

    @app.get("/v1/models", dependencies=guarded)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [described()]}

    @app.get("/v1/models/{name:path}", dependencies=guarded)
    async def model(name: str) -> dict[str, Any]:
        _refuse_other_model(engine, name)
        return described()

    @app.post("/v1/chat/completions", dependencies=guarded)
    async def chat_completions(request: Request) -> Response:
        asked = parsed(ChatRequest, await _body(request, body_seconds))
        _refuse_other_model(engine, asked.model)
        if not speaker.chats:
            raise RequestError(
                f"{speaker.name} was not trained for conversations: it goes on with a text, at "
                "/v1/completions."
            )
        messages = [message.plain for message in asked.messages]
        said = [message["content"] for message in messages]
        _refuse_long(engine, said, TOKENS_AROUND * len(messages))
        prompt = prompt_of(speaker.tokenizer, messages)
        return Reply(engine, asked, prompt, ChatFormat(speaker.name))

    @app.post("/v1/completions", dependencies=guarded)
    async def completions(request: Request) -> Response:
        asked = parsed(CompletionRequest, await _body(request, body_seconds))
        _refuse_other_model(engine, asked.model)
        prompt = asked.only_prompt
        if isinstance(prompt, str):
            _refuse_long(engine, [prompt])
            prompt = speaker.tokenizer.encode(prompt, special=False)
        return Reply(engine, asked, prompt, CompletionFormat(speaker.name))

    return app


def chat_page() -> HTMLResponse:
    """The page at /, allowed to run its own script, to talk to this server, and nothing else."""
    text = files("course_utils.serving").joinpath(PAGE).read_text("utf-8")

    def fingerprint(element: str) -> str:
        inside = re.search(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
        assert inside is not None
        digest = hashlib.sha256(inside[1].encode()).digest()
        return f"'sha256-{b64encode(digest).decode()}'"

    policy = (
        f"default-src 'none'; script-src {fingerprint('script')}; "
        f"style-src {fingerprint('style')}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return HTMLResponse(text, headers=headers)


def _key_check(api_key: str | None) -> Callable[[Request], None]:
    def check(request: Request) -> None:
        if api_key is None:
            return
        given = request.headers.get("authorization", "")
        # Takes as long for a wrong first letter as for a wrong last one.
        if not secrets.compare_digest(given.encode(), f"Bearer {api_key}".encode()):
            raise RequestError(
                "The API key is missing or wrong: send it as `Authorization: Bearer KEY`.",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check


def _host_check(api_key: str | None) -> Callable[[Request], Awaitable[None]]:
    """Refuses what was not sent to a name of this machine, unless a key says who may ask.

    A page from elsewhere may have its own name point to 127.0.0.1 once it is loaded (DNS
    rebinding). To the browser this server is then the page's own, which may send and read anything;
    only the Host header still says whom the browser meant.
    """

    async def check(request: Request) -> None:
        given = request.headers.get("host", "")
        host = re.sub(r":\d*$", "", given).lower()
        host = host[1:-1] if re.fullmatch(r"\[.*\]", host) else host
        if api_key is None and not is_loopback(host):
            raise RequestError(
                f"Without an API key this server answers to localhost, 127.0.0.1 and [::1] only; "
                f"the request was for {given!r}. Use one of them, or start it with COURSE_API_KEY.",
                status=403,
            )

    return check


def _refuse_long(engine: Engine, texts: Sequence[str], around: int = 0) -> None:
    """Refuse what cannot fit, however it is cut into tokens: cutting it holds up everybody."""
    try:
        n_bytes = sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError:  # JSON can write what no text holds: "\\ud83d"
        raise RequestError("The prompt holds half a character (one surrogate alone).") from None
    least = n_bytes // engine.speaker.longest_token + around
    if least >= engine.capacity:
        raise RequestError(
            f"The prompt has {n_bytes:,} bytes, which are {least:,} tokens or more; prompt and "
            f"answer together may have {engine.capacity}. Shorten it.",
            code="context_length_exceeded",
        )


def _refuse_other_model(engine: Engine, name: str) -> None:
    if name != engine.speaker.name:
        raise RequestError(
            f"There is no model {name!r} here; this server has {engine.speaker.name!r}.",
            status=404,
            param="model",
            code="model_not_found",
        )


async def _body(request: Request, seconds: float) -> bytes:
    """What was sent, if it is said to be JSON, not too long, and there in time.

    A web page from elsewhere may send a form or plain text to this machine, without being asked to;
    to send JSON, a browser asks the server first, and this one does not agree.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(
            f"Send JSON, with the header Content-Type: application/json; found {kind or 'none'}.",
            status=415,
        )
    body = b""
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > LONGEST_BODY:
                    message = f"The body is longer than {LONGEST_BODY:,} bytes."
                    raise RequestError(message, status=413)
    except TimeoutError:
        raise RequestError(
            f"The body did not arrive within {seconds:g} seconds.",
            status=408,
            headers={"Connection": "close"},  # what else comes is the rest of this one
        ) from None
    return body


class ChatFormat:
    """How /v1/chat/completions writes an answer."""

    prefix, whole, chunk = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def __init__(self, model: str) -> None:
        self.about = {
            "id": self.prefix + secrets.token_hex(12),
            "created": int(time.time()),
            "model": model,
        }

    def choice(self, text: str, finish: str | None) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        return {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}

    def part(self, text: str, finish: str | None, first: bool) -> dict[str, Any]:
        delta = {"content": text} if text or first else {}
        if first:
            delta["role"] = "assistant"
        return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}


class CompletionFormat(ChatFormat):
    """How /v1/completions does."""

    prefix, whole, chunk = "cmpl-", "text_completion", "text_completion"

    def choice(self, text: str, finish: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "finish_reason": finish, "logprobs": None}

    def part(self, text: str, finish: str | None, first: bool) -> dict[str, Any]:
        return self.choice(text, finish)


class Reply(Response):
    """An answer that is written while it is sent, or given up when nobody listens any more.

    Raises:
        RequestError: when the engine does not take the request.
    """

    def __init__(self, engine: Engine, asked: Asked, prompt: list[int], form: ChatFormat) -> None:
        self.background = None
        self._asked, self._form, self._prompt_tokens = asked, form, len(prompt)
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def deliver(piece: Piece) -> None:
            loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

        job = Job(tuple(prompt), asked.sampling, asked.longest, asked.stops)
        self._answer = _submitted(engine, job, deliver)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        send_it = self._stream if self._asked.stream else self._send_whole
        try:
            await _unless_gone(send_it(scope, receive, send), receive)
        finally:
            self._answer.cancel()

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        text = ""
        async for piece in self._arriving():
            text += piece.text
        if piece.finish not in ("stop", "length"):
            error = _broken_off(piece)
            await JSONResponse(error.body, error.status)(scope, receive, send)
            return
        form = self._form
        body = form.about | {
            "object": form.whole,
            "choices": [form.choice(text, piece.finish)],
            "usage": self._usage(piece),
        }
        await JSONResponse(body)(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # a proxy in between is not to wait for the end
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for event in self._events():
            line = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
            data = f"data: {line}\n\n".encode()
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _events(self) -> AsyncIterator[dict[str, Any] | str]:
        form, with_usage = self._form, self._asked.stream_options.include_usage
        about = form.about | {"object": form.chunk} | ({"usage": None} if with_usage else {})
        first = True
        async for piece in self._arriving():
            if piece.finish not in (None, "stop", "length"):
                yield _broken_off(piece).body
                return
            if piece.text or first:
                yield about | {"choices": [form.part(piece.text, None, first)]}
                first = False
        yield about | {"choices": [form.part("", piece.finish, False)]}
        if with_usage:
            yield about | {"choices": [], "usage": self._usage(piece)}
        yield "[DONE]"

    async def _arriving(self) -> AsyncIterator[Piece]:
        while True:
            piece = await self._pieces.get()
            yield piece
            if piece.finish:
                return

    def _usage(self, last: Piece) -> dict[str, int]:
        """Tokens read and written; the one that ends an answer is not counted."""
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": last.written,
            "total_tokens": self._prompt_tokens + last.written,
        }


def _submitted(engine: Engine, job: Job, deliver: Callable[[Piece], None]) -> Answer:
    try:
        return engine.submit(job, deliver)
    except Full as error:
        raise RequestError(str(error), status=429, headers={"Retry-After": "1"}) from None
    except Closed as error:
        raise RequestError(str(error), status=503) from None
    except CourseError as error:
        too_long = len(job.prompt) >= engine.capacity
        code = "context_length_exceeded" if too_long else None
        raise RequestError(str(error), code=code) from None


def _broken_off(piece: Piece) -> RequestError:
    if piece.finish == "failed":
        return RequestError("The model failed; the server's log says why.", status=500)
    return RequestError("The server is being stopped.", status=503)


async def _unless_gone(work: Awaitable[None], receive: Receive) -> None:
    """Do some work, but not a moment longer than the client stays connected."""

    async def leaving() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(leaving())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
    if tasks[0].done() and not tasks[0].cancelled():
        tasks[0].result()
