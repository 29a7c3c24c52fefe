"""Who has published, promoted or rolled back what, and when: a signed log that only grows, and the state it leads to.

Each entry names the digest of the one before it, so that none can be taken out or put in. An entry is made by
creating the file of the next number, which succeeds once: of two publishers, the other has to look again.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from foundry import files, gpg
from foundry.errors import FoundryError
from foundry.publish.stores import Missing, Store, Taken

LOG = "log"
INDEX = "index.asc"
Action = Literal["publish", "promote", "rollback", "retire"]


class Conflict(FoundryError):
    """Somebody else has changed the store meanwhile."""

    code = 12


class Broken(FoundryError):
    """What a store says does not fit together."""

    code = 13


@dataclass(frozen=True)
class Entry:
    """One change. previous: sha256 of the entry before, as it lies in the store. sums: of a version's SHA256SUMS.

    channel, before: which channel points at version now, and what it pointed at. when: UTC, ISO 8601.
    """

    sequence: int
    previous: str
    action: Action
    image: str
    version: str
    who: str
    when: str
    channel: str | None = None
    before: str | None = None
    sums: str | None = None

    @property
    def path(self) -> str:
        """Where it lies in a store."""
        return path_of(self.sequence)

    def __str__(self) -> str:
        target = f" to {self.channel}" if self.channel else ""
        return f"{self.action} {self.image} {self.version}{target} by {self.who} at {self.when}"


@dataclass(frozen=True)
class State:
    """What a log has led to.

    versions: of each image, version to the sha256 of its SHA256SUMS, in the order of publishing. channels: of each
    image, channel to the versions that it has pointed at, the last one now; a rollback goes back in it. retired: of
    each image, the versions that were taken out.
    """

    sequence: int = 0
    head: str = ""
    versions: Mapping[str, Mapping[str, str]] = None  # type: ignore[assignment]
    channels: Mapping[str, Mapping[str, tuple[str, ...]]] = None  # type: ignore[assignment]
    retired: Mapping[str, tuple[str, ...]] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", self.versions or {})
        object.__setattr__(self, "channels", self.channels or {})
        object.__setattr__(self, "retired", self.retired or {})

    def current(self, image: str, channel: str) -> str | None:
        """The version that a channel points at."""
        return next(iter(self.channels.get(image, {}).get(channel, ())[-1:]), None)

    def pointed(self, image: str) -> set[str]:
        """The versions that channels point at."""
        return {stack[-1] for stack in self.channels.get(image, {}).values() if stack}

    def after(self, entry: Entry, digest: str) -> State:
        """The state once entry, whose file has this digest, is made. Raises Broken where it cannot come next."""
        if entry.sequence != self.sequence + 1 or entry.previous != self.head:
            raise Broken(f"{entry.path} does not follow entry {self.sequence} of the log")
        versions = dict(self.versions.get(entry.image, {}))
        channels = dict(self.channels.get(entry.image, {}))
        retired = tuple(v for v in self.retired.get(entry.image, ()) if v != entry.version)
        if entry.action == "retire":
            versions.pop(entry.version, None)
            retired = (*retired, entry.version)
            stacks = {name: tuple(v for v in stack if v != entry.version) for name, stack in channels.items()}
            channels = {name: stack for name, stack in stacks.items() if stack}
        else:
            if entry.sums:
                versions[entry.version] = entry.sums
            if entry.channel:
                stack = channels.get(entry.channel, ())
                back = entry.action == "rollback" and entry.version in stack
                stack = stack[: stack.index(entry.version)] if back else stack
                channels[entry.channel] = (*(v for v in stack if v != entry.version), entry.version)
        return replace(
            self,
            sequence=entry.sequence,
            head=digest,
            versions={**self.versions, entry.image: versions},
            channels={**self.channels, entry.image: channels},
            retired={**self.retired, entry.image: retired},
        )


def path_of(sequence: int) -> str:
    """Where an entry lies in a store."""
    return f"{LOG}/{sequence:08}.json.asc"


def index_text(state: State, written: str, expires: str | None) -> str:
    """The index of a state, which readers of a store begin with. written, expires: UTC, ISO 8601."""
    return json.dumps({"format": 1, "written": written, "expires": expires, **asdict(state)}, indent=1) + "\n"


def parse_index(text: str) -> tuple[State, Mapping[str, Any]]:
    """The state in an index, and all that the index says. Raises Broken."""
    try:
        said = json.loads(text)
        channels = {i: {c: tuple(vs) for c, vs in cs.items()} for i, cs in said["channels"].items()}
        retired = {i: tuple(vs) for i, vs in said.get("retired", {}).items()}
        return State(int(said["sequence"]), str(said["head"]), said["versions"], channels, retired), said
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Broken(f"{INDEX} is signed, but no index of this program's: {error}") from error


def read(store: Store, keys: Path, scratch: Path) -> State:
    """The state of a store: that of its index, and what the log says since.

    A publisher that was killed between the two is caught up with here. Raises BadSignature, Broken, StoreError.
    """
    try:
        state, _ = parse_index(_opened(store, INDEX, keys, scratch))
    except Missing:
        state = State()
    for entry, digest in entries(store, state.sequence + 1, keys, scratch):
        state = state.after(entry, digest)
    return state


def entries(store: Store, first: int, keys: Path, scratch: Path) -> Iterable[tuple[Entry, str]]:
    """The entries of a log from a number on, each with the digest of its file. Raises BadSignature, Broken."""
    number = first
    while True:
        try:
            data = store.read(path_of(number))
        except Missing:
            return
        text = _text(path_of(number), data, keys, scratch)
        try:
            yield Entry(**json.loads(text)), hashlib.sha256(data).hexdigest()
        except (ValueError, TypeError) as error:
            raise Broken(f"{path_of(number)} is signed, but no entry: {error}") from error
        number += 1


def append(store: Store, state: State, entry: Entry, key: gpg.Key, scratch: Path) -> State:
    """Sign an entry and put it at the log's end; returns the new state. Raises Conflict where somebody was faster."""
    data = key.clearsign(files.canonical(asdict(entry)) + "\n", scratch).encode()
    try:
        store.create(entry.path, data)
    except Taken as error:
        raise Conflict(
            f"somebody else has changed {store.url} meanwhile",
            details=f"entry {entry.sequence} of the log is not this one: {entry}",
            hint="run it again: what was uploaded is not uploaded again; `./inv releases` shows what is there now",
        ) from error
    return state.after(entry, hashlib.sha256(data).hexdigest())


def _opened(store: Store, path: str, keys: Path, scratch: Path) -> str:
    return _text(path, store.read(path), keys, scratch)


def _text(path: str, data: bytes, keys: Path, scratch: Path) -> str:
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".log.") as folder:
        target = Path(folder) / path.rpartition("/")[2]
        target.write_bytes(data)
        return gpg.opened(target, keys, Path(folder))
