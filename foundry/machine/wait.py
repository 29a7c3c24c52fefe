"""Bounded waits that fail at once when what they wait for has died, and say what they saw last."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from foundry import log, run
from foundry.errors import Cancelled, GuestError

CONSOLE_LINES = 15
_TAIL_BYTES = 64 * 1024
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]")
_HOPELESS = re.compile(
    r"Kernel panic - not syncing|grub rescue>|You are in (?:emergency|rescue) mode|No bootable device"
    r"|Boot failed: not a bootable disk|Give root password for maintenance|BdsDxe: No bootable option"
)


def console_tail(path: Path | None, lines: int = CONSOLE_LINES) -> str:
    """The last lines of a console log, without terminal escapes and blank lines; "" where there is none."""
    if path is None:
        return ""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    clean = (_ESCAPES.sub("", line).rstrip() for line in re.split(r"\r*\n", text))
    return "\n".join([line for line in clean if line][-lines:])


def hopeless(console: str) -> str | None:
    """The line of a console's last lines that says that this boot goes no further, or None."""
    for line in console.splitlines():
        if _HOPELESS.search(line):
            return line.strip()
    return None


def until(
    check: Callable[[], tuple[bool, object]],
    *,
    what: str,
    timeout: float,
    dead: Callable[[], str | None],
    console: Path | None = None,
    interval: float = 0.5,
) -> object:
    """Call check every interval seconds until it says (True, value), and return that value.

    dead: why waiting is pointless by now, or None. console: the serial console's log, where one machine is waited for.
    Raises GuestError when dead() or the console says that it is over, or after timeout seconds, with the last value
    that check saw and the console's last lines; Cancelled when the run was interrupted.
    """
    begin = time.monotonic()
    elapsed = 0.0
    last: object = None
    while elapsed < timeout:
        done, last = check()
        if done:
            return last
        if run.cancelled():
            raise Cancelled("interrupted")
        elapsed = time.monotonic() - begin
        reason = dead() or hopeless(console_tail(console))
        if reason:
            raise _failed(f"{what}: {reason}", elapsed, last, console)
        log.activity(f"{what}: {elapsed:.0f} s  {_newest(console)}")
        time.sleep(min(interval, max(0.0, timeout - elapsed)))
    raise _failed(f"{what}: not within {timeout:.0f} s", elapsed, last, console)


def _newest(console: Path | None) -> str:
    return console_tail(console, 1)[:100]


def _failed(brief: str, elapsed: float, last: object, console: Path | None) -> GuestError:
    seen = f"last value seen after {elapsed:.0f} s: {last}"
    if console is None:
        return GuestError(brief, details=seen)
    tail = console_tail(console)
    said = f"the console's last lines:\n{tail}" if tail else "the console is empty"
    return GuestError(brief, details=f"{seen}\n{said}", log=console if console.exists() else None)
