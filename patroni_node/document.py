"""YAML documents with the file and line of every key, read without trusting them."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from patroni_node.errors import Key, NodeError, Problem

MAX_BYTES = 64 * 1024
MAX_DEPTH = 24

LATER = "patroni"
"""The key whose value is merged once more, over patroni.yml: a null in it removes something there."""

# Nothing can pass these on: no program's argument may hold a NUL, and UTF-8 has no form of half a surrogate pair.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_WRITE_IT = "holds a NUL, or half of a character (\\ud83d\\ude00 is none in YAML): write the character itself"

_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str")}


@dataclass(frozen=True)
class Mark:
    """Where a value was written."""

    file: str
    line: int


@dataclass
class Document:
    """A mapping and the mark of every key path in it."""

    data: dict[str, Any] = field(default_factory=dict)
    marks: dict[Key, Mark] = field(default_factory=dict)

    def problem(self, key: Key, message: str) -> Problem:
        """Return a problem at key, or at its nearest parent that is written somewhere."""
        for length in range(len(key), -1, -1):
            mark = self.marks.get(key[:length])
            if mark is not None:
                return Problem(message, mark.file, mark.line if length else None, key)
        return Problem(message, key=key)


class _Loader(yaml.SafeLoader):
    """Composes plain mappings, lists and scalars only: no tags, no anchors, no aliases."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _at(event, "anchors and aliases (&name, *name) are not accepted: write the value out")
        if getattr(event, "tag", None) is not None:
            raise _at(event, "YAML tags (!name) are not accepted: write a plain value")
        if self.depth >= MAX_DEPTH:
            raise _at(event, f"is nested deeper than {MAX_DEPTH} levels")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _at(where: Any, message: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=where.start_mark)


def read(path: Path) -> Document:
    """Read one YAML file.

    Args:
        path: a regular file of at most MAX_BYTES of UTF-8 whose top level is a mapping.

    Returns:
        The document; FileNotFoundError is left to the caller, which knows whether it may be absent.

    Raises:
        NodeError: with every problem, none of which quotes a value (it could be a secret).
    """
    return parse(_text(path), str(path))


def _text(path: Path) -> str:
    """Return the file's text, refusing what is no small UTF-8 file before reading all of it."""
    try:
        # O_NONBLOCK: a FIFO in the place of the file must not hang the boot.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise NodeError(Problem("is not a regular file", str(path)))
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NodeError(Problem(f"cannot be read ({error.strerror}): run as root", str(path))) from None
    if len(raw) > MAX_BYTES:
        raise NodeError(Problem(f"is larger than {MAX_BYTES // 1024} KiB: a node.yml has 5 to 20 lines", str(path)))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise NodeError(Problem("is not UTF-8 text: save it as UTF-8", str(path), line)) from None


def parse(text: str, file: str) -> Document:
    """Parse YAML text as `read` does; `file` is what messages call it."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise NodeError(Problem("is empty: write `cluster:` and `secrets:` to it", file))
        if not isinstance(root, yaml.MappingNode):
            raise NodeError(Problem("must be a mapping of `key: value` lines at its top level", file, _line(root)))
        return _construct(loader, root, file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        # What the reader quotes can be a piece of a secret: `key: !Xy7` is a tag to it.
        reason = re.sub(r"""(['"]).*\1""", "…", str(error.problem or error.context), flags=re.DOTALL)
        raise NodeError(Problem(f"is not valid YAML: {reason}", file, line)) from None
    except yaml.YAMLError:
        raise NodeError(Problem("is not text: it holds characters that YAML does not allow", file)) from None
    finally:
        if loader is not None:
            loader.dispose()


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _construct(loader: _Loader, root: yaml.MappingNode, file: str) -> Document:
    document = Document(marks={(): Mark(file, 1)})
    problems: list[Problem] = []

    def build(node: yaml.Node, key: Key) -> Any:
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for name, name_node, value_node in _entries(node, key, problems, file):
                document.marks[(*key, name)] = Mark(file, _line(name_node))
                result[name] = build(value_node, (*key, name))
            return result
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                document.marks[(*key, index)] = Mark(file, _line(item))
                items.append(build(item, (*key, index)))
            return items
        if _NO_TEXT.search(node.value):
            problems.append(Problem(_WRITE_IT, file, _line(node), key))
        return _scalar(loader, node)

    document.data = build(root, ())
    if problems:
        raise NodeError(problems)
    return document


def _entries(
    node: yaml.MappingNode, key: Key, problems: list[Problem], file: str
) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    seen: dict[str, int] = {}
    for name_node, value_node in node.value:
        name = name_node.value
        if not isinstance(name_node, yaml.ScalarNode):
            problems.append(Problem("a key must be a name, not a list or mapping", file, _line(name_node), key))
        elif _NO_TEXT.search(name):
            problems.append(Problem(_WRITE_IT, file, _line(name_node), (*key, name)))
        elif name in seen:
            message = f"is given twice (first in line {seen[name]}): keep one"
            problems.append(Problem(message, file, _line(name_node), (*key, name)))
        else:
            seen[name] = _line(name_node)
            yield name, name_node, value_node


def _scalar(loader: _Loader, node: yaml.Node) -> Any:
    # YAML 1.1 reads 1:30 as ninety and 2026-01-01 as a date; nothing in node.yml means either.
    if node.tag not in _SCALARS or (node.tag.endswith((":int", ":float")) and ":" in node.value):
        return node.value
    try:
        value = loader.construct_object(node)
    except ValueError:
        return node.value
    # Infinity and "not a number" are in no file that is made from this one.
    return node.value if isinstance(value, float) and not math.isfinite(value) else value


def merge(base: Any, over: Any, *, keep_null: bool = False) -> Any:
    """Merge two values: mappings key by key, null removes a key, anything else replaces.

    Args:
        base: what is merged over; not changed.
        over: what wins; not changed.
        keep_null: keep a null as a value, for a result that will be merged over something itself.

    Returns:
        The merged value.
    """
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    result = dict(base)
    for name, value in over.items():
        if value is None and not keep_null:
            result.pop(name, None)
        elif isinstance(value, dict):
            # Through an empty mapping, so that a null removes even where the base has nothing.
            below = result.get(name)
            result[name] = merge(below if isinstance(below, dict) else {}, value, keep_null=keep_null)
        else:
            result[name] = value
    return result


def merge_documents(base: Document, over: Document) -> Document:
    """Merge a drop-in over a document; its marks win wherever it says something."""
    marks = {**base.marks, **over.marks}
    if () in base.marks:
        marks[()] = base.marks[()]
    data = merge(base.data, over.data)
    if isinstance(over.data.get(LATER), dict):
        data[LATER] = merge(base.data.get(LATER) or {}, over.data[LATER], keep_null=True)
    return Document(data, marks)
