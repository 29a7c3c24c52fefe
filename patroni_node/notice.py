"""Tell the person at the console why this node is not running."""

from __future__ import annotations

from patroni_node.errors import NodeError
from patroni_node.install import NoAccounts, Target, install
from patroni_node.paths import Paths

NEXT_STEP = "then run `systemctl start patroni`"
MAX_LINES = 8
# A file of 64 KiB can hold ten thousand mistakes, and a serial console shows some hundred lines a second.
MAX_SAID = 50


def lines(error: NodeError) -> list[str]:
    """Return one sentence for each problem, up to MAX_SAID, the last one ending with what to run next."""
    said = [f"patroni-node: {problem}" for problem in error.problems]
    if len(said) == 1:
        return [f"{said[0]}; {NEXT_STEP}"]
    return [*said[:MAX_SAID], f"patroni-node: {len(said)} problems: mend them; {NEXT_STEP}"]


def show(paths: Paths, error: NodeError) -> None:
    """Put the refusal above the login prompt; failing to is no second error.

    stderr reaches journal and console through the unit's StandardError=journal+console.
    """
    said = lines(error)
    if len(said) > MAX_LINES:
        said = [*said[: MAX_LINES - 1], said[-1]]
    # agetty expands backslashes in issue files (agetty(8), ISSUE ESCAPES).
    text = "".join(line.replace("\\", "\\\\") + "\n" for line in said) + "\n"
    try:
        install([Target(paths.issue, text.encode(), 0o644)], NoAccounts())
    except NodeError:
        return


def clear(paths: Paths) -> None:
    """Remove the refusal of an earlier run."""
    paths.issue.unlink(missing_ok=True)


def read(paths: Paths) -> list[str]:
    """Return the sentences of the last refusal; none where the last run succeeded."""
    try:
        text = paths.issue.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    said = (line.replace("\\\\", "\\").removeprefix("patroni-node: ") for line in text.splitlines())
    return [line for line in said if line]
