"""What a request may say, in OpenAI's words; and what is wrong with it, in a sentence.

A setting that is not there is refused with the nearest name, and one that OpenAI has and this
server has not is refused unless it asks for nothing: a setting that is silently ignored is worse.

OpenAI's reference: https://platform.openai.com/docs/api-reference/chat
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from course_utils.base.errors import CourseError, did_you_mean
from course_utils.generation.sampling import Sampling

# Taken and not looked at: they say who asks, or what to do with the answer later.
IGNORED = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "parallel_tool_calls",
}  # fmt: skip

# What this server has not, and the values with which nothing is asked of it.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_logprobs": (0,),
}

# Of a list's items that are wrong, one is reported. (pydantic's FailFast() would say the same, but
# cannot be hashed, as a part of a union must be.)
STOP_AT_FIRST = Field(fail_fast=True)


class RequestError(Exception):
    """A request that is not answered, with the status and the body that say why."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else None)
        return {
            "error": {
                "message": str(self),
                "type": kind or "invalid_request_error",
                "param": self.param,
                "code": self.code,
            }
        }


class Strict(BaseModel):
    """What has these fields and no others; the first that is wrong is all that is asked for.

    pydantic writes an error for each, and a short body may hold half a million: seconds in which
    nobody is answered. Hence also STOP_AT_FIRST at every list.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _one_stranger(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        strangers = given.keys() - cls.model_fields.keys()
        if len(strangers) < 2:
            return given
        first = next(name for name in given if name in strangers)
        return {name: given[name] for name in given if name == first or name not in strangers}


class StreamOptions(Strict):
    include_usage: bool = False


class Asked(Strict):
    """What both kinds of request have."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = None
    stop: str | Annotated[list[str], STOP_AT_FIRST] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: Literal[1] = 1
    # Not OpenAI's; vLLM and others have them under these names.
    top_k: int | None = Field(None, ge=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p if self.top_p < 1 else None,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
        )

    @property
    def longest(self) -> int | None:
        """The most tokens to write."""
        return self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """Raises RequestError for more than four, or an empty one."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if len(stops) > 4 or not all(stops):
            raise RequestError("stop takes up to four strings, none of them empty.", param="stop")
        return stops


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], STOP_AT_FIRST]
    name: str | None = None  # of the speaker; the models here know no names

    @property
    def plain(self) -> dict[str, str]:
        """As `data.chat` writes messages."""
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, str):
            return {"role": role, "content": self.content}
        return {"role": role, "content": "".join(part.text for part in self.content)}


class ChatRequest(Asked):
    messages: Annotated[list[ChatMessage], STOP_AT_FIRST] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)

    @property
    def longest(self) -> int | None:
        given = [n for n in (self.max_completion_tokens, self.max_tokens) if n is not None]
        return min(given, default=None)


class CompletionRequest(Asked):
    prompt: str | Annotated[list[int], STOP_AT_FIRST] | Annotated[list[str], STOP_AT_FIRST]
    max_tokens: int | None = Field(16, ge=1)  # OpenAI's default

    @property
    def only_prompt(self) -> str | list[int]:
        """Raises RequestError for several."""
        match self.prompt:
            case str() as prompt:
                return prompt
            case [str() as prompt]:
                return prompt
            case [int(), *_] as ids:
                return ids  # type: ignore[return-value]
        raise RequestError(
            "prompt is one text (or its token ids), not empty; send a request for each.",
            param="prompt",
        )


Request = TypeVar("Request", bound=Asked)


def parsed(kind: type[Request], body: bytes) -> Request:
    """A request's body, checked.

    Raises:
        RequestError: saying which setting is wrong and how.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The body is not JSON: {error}.") from None
    if not isinstance(fields, dict):
        raise RequestError(f"The body must be a JSON object; found {_shown(fields)}.")
    # Clients send null for what they do not set.
    fields = {k: v for k, v in fields.items() if v is not None and k not in IGNORED}
    known = list(kind.model_fields)
    for name in list(fields):
        if name in known:
            continue
        if name not in NEUTRAL:
            raise RequestError(
                f"There is no setting {name!r}.{did_you_mean(name[:60], known)}", param=name
            )
        if fields.pop(name) not in NEUTRAL[name]:
            raise RequestError(f"{name} is not possible here: leave it out.", param=name)
    try:
        request = kind.model_validate(fields)
        _ = request.sampling, request.stops
        return request
    except ValidationError as error:
        raise _first_problem(error) from None
    except CourseError as error:
        raise RequestError(str(error)) from None


def _first_problem(error: ValidationError) -> RequestError:
    """What is wrong first, named as the request names it."""
    problems = error.errors(include_url=False)
    problem = problems[0]
    # A setting of several types complains once for each: of those, the deepest knows most.
    same = [p for p in problems if p["loc"][0] == problem["loc"][0]]
    problem = max(same, key=lambda p: len([w for w in p["loc"] if isinstance(w, int)]))
    words = [str(w) for w in problem["loc"] if isinstance(w, int) or "[" not in str(w)]
    place = ".".join(word for word in words if word not in ("str", "int"))
    if problem["type"] == "missing":
        return RequestError(f"{place} is missing.", param=place)
    if place == "n":
        return RequestError(
            "n must be 1: an answer for each request. For several, send several; "
            "they are written at the same time.",
            param="n",
        )
    if problem["type"] == "extra_forbidden":
        return RequestError(f"There is no {place}.", param=place)
    what = problem["msg"].replace("Input should", "must").replace("List should", "must")
    return RequestError(f"{place}: it {what}; found {_shown(problem['input'])}.", param=place)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:60] + " …"
