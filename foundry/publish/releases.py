"""What is in a store, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foundry import console
from foundry.config import Config
from foundry.publish import flow, ledger
from foundry.publish.ledger import State
from foundry.workspace import Workspace


def releases(settings: Config, workspace: Workspace, *, to: str | None, as_json: bool) -> list[str]:
    """A table of versions and what points at them, and the last changes. Raises as flow.session does."""
    with flow.session(settings, workspace, to) as open_:
        state = open_.state
        entries = [e for e, _ in ledger.entries(open_.store, max(1, state.sequence - 9), open_.keys, open_.scratch)]
        if as_json:
            return console.json_lines(as_plain(state, entries))
        return [*console.table(_rows(state)), "", *(str(entry) for entry in entries)]


def as_plain(state: State, entries: Sequence[ledger.Entry]) -> dict[str, Any]:
    """All of it as plain values."""
    return {
        "sequence": state.sequence,
        "versions": {image: list(versions) for image, versions in state.versions.items()},
        "channels": {
            image: {channel: stack[-1] for channel, stack in channels.items()}
            for image, channels in state.channels.items()
        },
        "log": [vars(entry) for entry in entries],
    }


def _rows(state: State) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("image", "version", "channels")]
    for image, versions in state.versions.items():
        for version in reversed(list(versions)):
            pointing = [c for c, stack in state.channels.get(image, {}).items() if stack[-1] == version]
            rows.append((image, version, ", ".join(pointing)))
    return rows if len(rows) > 1 else [("nothing is published yet",)]
