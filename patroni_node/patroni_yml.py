"""A hand-made patroni.yml, read as Patroni reads it (yaml.safe_load), with the line of every key.

node.yml is read by `document`, which is stricter: there a file is ours to define, here it is what Patroni accepts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from patroni_node.document import MAX_DEPTH, Document, Mark
from patroni_node.errors import Key, NodeError, Problem

MAX_BYTES = 256 * 1024
MAX_VALUES = 100_000
"""Aliases make a small file large: "a YAML bomb"."""

DCS: Key = ("bootstrap", "dcs", "postgresql")
PARAMETERS: tuple[Key, ...] = ((*DCS, "parameters"), ("postgresql", "parameters"))
"""Where PostgreSQL's parameters are; what is said last wins (config.py, _build_effective_configuration)."""

Finding = tuple[Key, str]
"""A key, and what is wrong there."""

_YAML = "tag:yaml.org,2002:"
_MERGE = f"{_YAML}merge"
_QUOTED = re.compile(r"""(['"]).*\1""", re.DOTALL)


@dataclass(frozen=True)
class PatroniYml:
    """What Patroni would have in its hands, and the keys that it has lost on the way.

    repeated: keys that are given twice, of which the last counts.
    """

    document: Document
    repeated: list[Problem] = field(default_factory=list)


def at(data: Any, key: Key) -> Any:
    """Return the value at key, None where there is none."""
    for part in key:
        if not isinstance(data, dict):
            return None
        data = data.get(part)
    return data


def mapping(data: Any, key: Key) -> dict[str, Any]:
    """Return the mapping at key, an empty one where there is none."""
    value = at(data, key)
    return value if isinstance(value, dict) else {}


def read(path: Path) -> PatroniYml:
    """Read a patroni.yml.

    Args:
        path: a regular file of at most MAX_BYTES of UTF-8 whose top level is a mapping.

    Raises:
        NodeError: when it cannot be read; quotes nothing of the file, where any word can be a password.
    """
    try:
        if path.is_dir():
            raise NodeError(Problem("is a folder: check the files in it one by one", str(path)))
        if path.exists() and not path.is_file():
            raise NodeError(Problem("is not a regular file", str(path)))
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise NodeError(Problem(reason, str(path))) from None
    if len(raw) > MAX_BYTES:
        raise NodeError(Problem(f"is larger than {MAX_BYTES // 1024} KiB, which no patroni.yml is", str(path)))
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise NodeError(Problem("is not UTF-8 text: save it as UTF-8", str(path), line)) from None
    return parse(text, str(path))


def parse(text: str, file: str) -> PatroniYml:
    """Parse YAML text as `read` does; `file` is what messages call it."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise NodeError(Problem("must be a mapping of `key: value` lines at its top level", file))
        return _Builder(loader, file).whole(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = _QUOTED.sub("…", str(error.problem or error.context))
        raise NodeError(Problem(f"is not valid YAML: {reason}", file, mark.line + 1 if mark else None)) from None
    except yaml.YAMLError:
        raise NodeError(Problem("is not text: it holds characters that YAML does not allow", file)) from None
    finally:
        if loader is not None:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    """Composes as Patroni's loader does, down to a depth that Python's stack can bear."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if not str(getattr(event, "tag", None) or _YAML).startswith(_YAML):
            raise _at(event, "a value that begins with ! must be quoted")
        if self.depth >= MAX_DEPTH:
            raise _at(event, f"is nested deeper than {MAX_DEPTH} levels")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _at(where: Any, message: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=where.start_mark)


class _Builder:
    """Turns nodes into values: aliases and `<<` followed, the last of two equal keys taken."""

    def __init__(self, loader: _Loader, file: str) -> None:
        self._loader = loader
        self._file = file
        self._marks: dict[Key, Mark] = {(): Mark(file, 1)}
        self._repeated: dict[Key, Problem] = {}
        self._values = 0

    def whole(self, root: yaml.MappingNode) -> PatroniYml:
        data = self._build(root, ())
        return PatroniYml(Document(data, self._marks), list(self._repeated.values()))

    def _build(self, node: yaml.Node, key: Key) -> Any:
        self._values += 1
        # An alias of what it stands in never ends.
        if self._values > MAX_VALUES or len(key) > MAX_DEPTH:
            raise _at(node, f"grows beyond {MAX_VALUES} values or {MAX_DEPTH} levels by its aliases")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self._mark((*key, index), item)
                items.append(self._build(item, (*key, index)))
            return items
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merges = [value for name, value in node.value if name.tag == _MERGE]
        for value in merges:
            # What comes first wins, and what is written out wins over all of it (yaml.org/type/merge.html).
            for source in reversed(value.value if isinstance(value, yaml.SequenceNode) else [value]):
                built = self._build(source, key)
                result |= built if isinstance(built, dict) else {}
        seen: dict[str, int] = {}
        for name_node, value_node in node.value:
            if name_node.tag == _MERGE or not isinstance(name_node, yaml.ScalarNode):
                continue
            name, line = name_node.value, name_node.start_mark.line + 1
            if name in seen:
                message = f"is given twice (first in line {seen[name]}), and Patroni takes the last: keep one"
                self._repeated[*key, name] = Problem(message, self._file, line, (*key, name))
            seen[name] = line
            self._mark((*key, name), name_node)
            result[name] = self._build(value_node, (*key, name))
        return result

    def _mark(self, key: Key, node: yaml.Node) -> None:
        self._marks[key] = Mark(self._file, node.start_mark.line + 1)

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            return self._loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):
            # A date like 2026-02-30, or `!!bool perhaps`.
            return node.value
