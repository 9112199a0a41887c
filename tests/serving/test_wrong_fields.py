"""One mistake is enough: what is wrong a thousand times is not told, or even noted, so often."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from course_utils.serving.protocol import (
    Asked,
    ChatRequest,
    CompletionRequest,
    RequestError,
    parsed,
)

SAID: dict[str, Any] = {"role": "user", "content": "the"}
STRANGE = {f"x{number}": 1 for number in range(1000)}
PARTS = [{"type": "text", "text": "the"} | STRANGE] * 1000


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (CompletionRequest, {"prompt": [1.5] * 1000},
         "prompt.0: it must be a valid integer; found 1.5."),
        (CompletionRequest, {"prompt": [7, *["x"] * 999]},
         'prompt.1: it must be a valid integer; found "x".'),
        (CompletionRequest, {"prompt": "the", "stop": [1] * 1000},
         "stop.0: it must be a valid string; found 1."),
        (ChatRequest, {"messages": [1] * 1000},
         "messages.0: it must be a valid dictionary or instance of ChatMessage; found 1."),
        (ChatRequest, {"messages": [SAID, *[{}] * 999]}, "messages.1.role is missing."),
        (ChatRequest, {"messages": [SAID | {"content": [{}] * 1000}]},
         "messages.0.content.0.type is missing."),
        (ChatRequest, {"messages": [SAID | STRANGE] * 1000}, "There is no messages.0.x0."),
        (ChatRequest, {"messages": [SAID | {"content": PARTS}]},
         "There is no messages.0.content.0.x0."),
        (ChatRequest, {"messages": [SAID], "stream_options": STRANGE},
         "There is no stream_options.x0."),
    ],
)  # fmt: skip
def test_a_thousand_mistakes_are_a_few_errors(kind: type[Asked], fields: dict[str, Any], says: str):
    fields = {"model": "tiny"} | fields
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(fields)
    assert caught.value.error_count() <= 4  # one or two for each type that a field may have
    with pytest.raises(RequestError) as told:
        parsed(kind, json.dumps(fields).encode())
    assert str(told.value) == says
