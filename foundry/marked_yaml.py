"""YAML with line numbers: plain values and the line of every key, or every reason why the text cannot be used.

Only what a settings file needs is taken: mappings, lists and scalars. Tags, anchors and aliases are refused, so that
no text can grow when it is read or make objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
_PLAIN = "tag:yaml.org,2002:"
_SCALARS = {_PLAIN + kind for kind in ("str", "int", "float", "bool", "null", "timestamp")}

Key = tuple[str | int, ...]


@dataclass
class Marked:
    """value: what the text says. lines: the line of each key. problems: (line, key, what is wrong)."""

    value: Any = None
    lines: dict[Key, int] = field(default_factory=dict)
    problems: list[tuple[int, Key, str]] = field(default_factory=list)


def read(path: Path) -> Marked:
    """The marked content of a file; one that cannot be read, or is not text, is a problem too."""
    marked = Marked()
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        marked.problems.append((0, (), f"cannot be read: {error.strerror}"))
        return marked
    if len(raw) > MAX_BYTES:
        marked.problems.append((0, (), f"is larger than {MAX_BYTES // 1024} KiB, so it is hardly a settings file"))
        return marked
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        marked.problems.append((line, (), f"is not text in UTF-8 (byte 0x{raw[error.start]:02x})"))
        return marked
    return parse(text)


def parse(text: str) -> Marked:
    """The marked content of a text."""
    marked = Marked()
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                marked.problems.append((_line_of(event.start_mark), (), "nests too deep"))
                return marked
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                line = _line_of(event.start_mark)
                marked.problems.append((line, (), "anchors (&) and aliases (*) are not used here: write the value out"))
                return marked
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        what = " ".join(part for part in (error.context, error.problem) if part)
        marked.problems.append((_line_of(error.problem_mark, error.context_mark), (), f"is not YAML: {what}"))
        return marked
    except yaml.YAMLError as error:
        marked.problems.append((0, (), f"is not YAML: {str(error).splitlines()[0]}"))
        return marked
    if node is not None:
        marked.value = _value(node, (), marked)
    return marked


def _line_of(*marks: object) -> int:
    """The line of the first mark that there is, or 0."""
    return next((int(mark.line) + 1 for mark in marks if isinstance(mark, yaml.Mark)), 0)


def _value(node: yaml.Node, key: Key, marked: Marked) -> Any:
    marked.lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode) and node.tag == _PLAIN + "map":
        return _mapping(node, key, marked)
    if isinstance(node, yaml.SequenceNode) and node.tag == _PLAIN + "seq":
        return [_value(child, (*key, number), marked) for number, child in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
        return _scalar(node, key, marked)
    marked.problems.append((node.start_mark.line + 1, key, f"the YAML tag {_short(node.tag)} is not used here"))
    return None


def _scalar(node: yaml.ScalarNode, key: Key, marked: Marked) -> Any:
    if node.tag == _PLAIN + "timestamp":
        return node.value
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (ValueError, KeyError, yaml.YAMLError):
        kind = node.tag.removeprefix(_PLAIN)
        marked.problems.append(
            (node.start_mark.line + 1, key, f"{node.value[:40]!r} is not a value of the kind {kind}")
        )
        return None


def _mapping(node: yaml.MappingNode, key: Key, marked: Marked) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name_node, child in node.value:
        line = name_node.start_mark.line + 1
        if not isinstance(name_node, yaml.ScalarNode):
            marked.problems.append((line, key, "has a key that is not a word"))
            continue
        name = str(name_node.value)
        path = (*key, name)
        if name in found:
            marked.problems.append((line, path, f"is there twice (first on line {marked.lines[path]})"))
            continue
        marked.lines[path] = line
        found[name] = _value(child, path, marked)
    return found


def _short(tag: str) -> str:
    return "!!" + tag.removeprefix(_PLAIN) if tag.startswith(_PLAIN) else tag
