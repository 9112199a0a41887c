"""Settings as TOML: Python reads the format (`tomllib`) but does not write it."""

import json
import re
from collections.abc import Mapping
from typing import Any


def dumps(table: Mapping[str, Any], prefix: str = "") -> str:
    """A nested dict as TOML text; entries that are None are left out, as TOML has no null."""
    entries = {key: value for key, value in table.items() if value is not None}
    tables = {key: value for key, value in entries.items() if isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(entries[key])}\n" for key in entries if key not in tables]
    for key, value in tables.items():
        path = f"{prefix}{_key(key)}"
        lines.append(f"\n[{path}]\n{dumps(value, f'{path}.')}")
    return "".join(lines)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value))
