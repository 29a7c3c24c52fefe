"""node.yml against its JSON Schema, with messages for people that never quote a value."""

from __future__ import annotations

import difflib
import json
from dataclasses import replace
from typing import Any

from patroni_node.document import Document
from patroni_node.errors import Key, Problem
from patroni_node.paths import schema_file

_TYPES = {
    "string": "text",
    "object": "a mapping",
    "array": "a list",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}


LEAST_SECRET = 12
"""How long a secret is at least (secret.MIN_PASSWORD)."""


def load_schema() -> dict[str, Any]:
    """Return the shipped schema (JSON Schema draft 7)."""
    schema: dict[str, Any] = json.loads(schema_file().read_text(encoding="utf-8"))
    return schema


def problems(document: Document) -> list[Problem]:
    """Return every violation of the schema, each at its key."""
    # Imported here: `--version` and `--help` need not pay for it.
    from jsonschema import Draft7Validator

    found: list[Problem] = []
    for error in Draft7Validator(load_schema()).iter_errors(document.data):
        key: Key = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            known = sorted(error.schema.get("properties", {}))
            found += [_unknown(document, key, name, known) for name in error.instance if name not in known]
        elif error.validator == "required":
            missing = [name for name in error.validator_value if name not in error.instance]
            found += [document.problem((*key, name), _missing(error.schema, name)) for name in missing]
        else:
            found.append(document.problem(key, _message(error)))
    # jsonschema reports `required` once per missing name; a set in order of appearance is enough.
    return list(dict.fromkeys(found))


def _unknown(document: Document, key: Key, name: str, known: list[str]) -> Problem:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
    problem = document.problem((*key, name), f"unknown key; {hint}")
    # `{key:…}` without a blank is a name to YAML, and so is a secret in the place of one.
    if len(name) < LEAST_SECRET or (close and len(name) <= len(close[0]) + 2):
        return problem
    return replace(problem, key=key, message=f"unknown key, not shown since it may be a secret; {hint}")


def _missing(schema: dict[str, Any], name: str) -> str:
    what = schema.get("properties", {}).get(name, {}).get("title", "")
    return f"is missing: set it to {what}" if what else "is missing"


def _message(error: Any) -> str:
    own: str | None = error.schema.get("errorMessage")
    if error.validator == "type":
        wanted = error.validator_value
        names = [wanted] if isinstance(wanted, str) else wanted
        text = f"must be {' or '.join(_TYPES.get(name, name) for name in names)}, not {_kind(error.instance)}"
        if "string" in names and isinstance(error.instance, (bool, int, float)):
            text += ": put it in quotes"
        return text
    if error.validator == "enum":
        return own or f"must be one of {', '.join(str(value) for value in error.validator_value)}"
    if error.validator == "dependencies":
        return "certificate and key belong together: give both, or neither"
    if error.validator == "uniqueItems":
        return "names something twice: keep one"
    if error.validator in ("minItems", "minProperties") and not error.instance:
        return own or "is empty: leave the key out, or fill it"
    limits = {
        "minLength": "is too short: at least {} characters",
        "maxLength": "is too long: at most {} characters",
        "minimum": "is too small: at least {}",
        "maximum": "is too large: at most {}",
        "maxItems": "is too long: at most {} entries",
        "maxProperties": "sets too many keys: at most {} of them",
    }
    if error.validator in ("minLength", "maxLength"):
        own = None
    return own or limits.get(error.validator, "is not valid").format(error.validator_value)


def _kind(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    return "text" if isinstance(value, str) else "a mapping" if isinstance(value, dict) else "a list"
