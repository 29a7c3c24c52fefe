"""What a verification leaves beside its verdict for people to look at: the serial console, and how the boots went.

Times are systemd's own, as properties (org.freedesktop.systemd1(5)): `systemd-analyze` prints the same ones, but in a
text that is made for people and changes with its version. They count from the start of the kernel.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foundry import files
from foundry.console import clean
from foundry.errors import VerifyError
from foundry.machine import Machine

CONSOLE = "console.log"
BOOT = "boot.json"
KINDS = (CONSOLE, BOOT)
CHAIN_OF = "patroni.service"
COMMAND_SECONDS = 120.0
_MANAGER = ("InitRDTimestampMonotonic", "UserspaceTimestampMonotonic", "FinishTimestampMonotonic")
_ACTIVATING, _ACTIVE, _ENDED = (
    "InactiveExitTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
    "InactiveEnterTimestampMonotonic",
)
_SHOW = f"systemctl show -p {','.join(_MANAGER)} && echo && systemctl show -p Id,{_ACTIVATING},{_ACTIVE},{_ENDED},After"
# What Patroni logs, and pg_isready below it: PostgreSQL is no unit of systemd's.
MILESTONES = {
    "PostgreSQL starts": r"postmaster pid=\d+",
    "PostgreSQL accepts connections": r"- accepting connections",
    "Patroni leads": r"initialized a new cluster|promoted self to leader|I am \(.*\), the leader with the lock",
}
_JOURNAL = f"sudo journalctl -b -q --no-pager -u {CHAIN_OF} -o json --output-fields=MESSAGE -g '{{pattern}}'"
# A boot menu is drawn by moving the cursor: each move begins a piece of text that stands by itself.
_MOVES = re.compile(r"\x1b\[[0-9;]*H|\r+\n?")
_FRAME = re.compile(r"[|+\-\s]*")


@dataclass(frozen=True)
class Unit:
    """A unit that was started. Milliseconds since the start of the kernel: when its start began, and when it was over.

    ready: None for a unit whose start was not over yet.
    """

    name: str
    begin: int
    ready: int | None

    @property
    def took(self) -> int:
        """How long the start took, in milliseconds; 0 while it is not over."""
        return 0 if self.ready is None else max(0, self.ready - self.begin)


@dataclass(frozen=True)
class Boot:
    """How a boot went, in milliseconds. phase: "booted" (the first boot) or "rebooted".

    kernel, initrd, userspace: how long each ran; an initrd without systemd in it, as Debian's, is 0, and part of the
    kernel's. units: by the beginning of their start. chain: what Patroni's start waited for, the last wait first, as
    `systemd-analyze critical-chain` finds it: of all that a unit is ordered after, the one that was ready last before
    its start. milestones: what became of PostgreSQL when, since the start of the kernel; empty where nothing did.
    """

    phase: str
    kernel: int
    initrd: int
    userspace: int
    units: tuple[Unit, ...]
    chain: tuple[str, ...]
    milestones: Mapping[str, int]

    @property
    def total(self) -> int:
        """From the start of the kernel to the end of the start-up."""
        return self.kernel + self.initrd + self.userspace


def boot(machine: Machine, phase: str) -> Boot:
    """Ask a machine that is ready how its boot went, before anybody starts something anew on it.

    Raises GuestError, CommandFailed, and VerifyError where the answer makes no sense.
    """
    answer = machine.ssh(f"{_SHOW} '*'", timeout=COMMAND_SECONDS).output
    try:
        return _parsed(answer, phase)
    except (KeyError, ValueError) as error:
        raise VerifyError(
            f"{machine.spec.name}: what systemctl says of the boot cannot be read: {error!r}",
            details=f"last output: {answer[-300:]}",
        ) from None


def milestones(machine: Machine) -> dict[str, int]:
    """When PostgreSQL started, took connections and led first in this boot, as far as it did. Raises GuestError."""
    command = _JOURNAL.format(pattern="|".join(MILESTONES.values()))
    found: dict[str, int] = {}
    for line in machine.ssh(command, timeout=COMMAND_SECONDS, check=False).output.splitlines():
        try:
            entry = json.loads(line)
            text, moment = str(entry["MESSAGE"]), int(entry["__MONOTONIC_TIMESTAMP"])
        except (ValueError, KeyError, TypeError):
            continue
        for name, pattern in MILESTONES.items():
            if re.search(pattern, text):
                found.setdefault(name, _ms(moment))
    return found


def _parsed(answer: str, phase: str) -> Boot:
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in answer.strip().split("\n\n")
    ]
    initrd, userspace, finish = (int(blocks[0][name]) for name in _MANAGER)
    if not 0 < userspace <= finish:
        raise ValueError(f"userspace began at {userspace} and was up at {finish}")
    rows = [row for row in blocks[1:] if int(row[_ACTIVATING])]
    units = {row["Id"]: _unit(row) for row in rows}
    if CHAIN_OF not in units:
        raise ValueError(f"{CHAIN_OF} was not started")
    return Boot(
        phase=phase,
        kernel=_ms(initrd or userspace),
        initrd=_ms(userspace) - _ms(initrd) if initrd else 0,
        userspace=_ms(finish) - _ms(userspace),
        units=tuple(sorted(units.values(), key=lambda u: (u.begin, u.name))),
        chain=_chain(units, {row["Id"]: row["After"].split() for row in rows}),
        milestones={},
    )


def _unit(row: Mapping[str, str]) -> Unit:
    # A service that runs once and ends was never active: its start is over when it has ended.
    moments = [int(row[_ACTIVE]), int(row[_ENDED])]
    begin = int(row[_ACTIVATING])
    ready = next((m for m in moments if m >= begin), None)
    return Unit(row["Id"], _ms(begin), None if ready is None else _ms(ready))


def _chain(units: Mapping[str, Unit], after: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    chain = [CHAIN_OF]
    while True:
        last = units[chain[-1]]
        before = [units[name] for name in after[last.name] if name in units and name not in chain]
        waited = [(u.ready, u.name) for u in before if u.ready is not None and u.ready <= last.begin]
        if not waited:
            return tuple(chain)
        chain.append(max(waited)[1])


def _ms(microseconds: int) -> int:
    return round(microseconds / 1000)


def plain(console: bytes) -> str:
    """The text of a serial console, fit for a pager and a page: no escapes, no frames of menus, no blank lines."""
    text = clean(_MOVES.sub("\n", console.decode("utf-8", "replace")))
    return "".join(f"{line.rstrip()}\n" for line in text.split("\n") if not _FRAME.fullmatch(line))


def path(verdict: Path, kind: str) -> Path:
    """Where a kind of evidence lies: beside the verdict, e.g. x.qcow2.verdict-bios.console.log."""
    return verdict.with_suffix(f".{kind}")


def remove(verdict: Path) -> None:
    """Remove a verdict, the verdict itself first, and all that belongs to it."""
    for name in (verdict, verdict.with_suffix(".xml"), *(path(verdict, kind) for kind in KINDS)):
        name.unlink(missing_ok=True)


def write(verdict: Path, console: Path | None, boots: Sequence[Boot], secret: str) -> dict[str, str]:
    """Write the evidence of a verdict that is not written yet; returns each kind's sha256, for the verdict.

    console: the raw log. secret: what must be in none of it. Raises VerifyError when it is, or there is no console.
    """
    if console is None:
        raise VerifyError("the machine's console was not kept, so nobody could look at how it booted")
    texts = {CONSOLE: plain(console.read_bytes()), BOOT: _json({"boots": [asdict(b) for b in boots]})}
    for kind, text in texts.items():
        if secret in text:
            raise VerifyError(
                f"the node's key is in the {kind} of the verification, where everybody may read it",
                hint="find what writes it in the journal; node.yml is read by patroni-node alone",
            )
    for kind, text in texts.items():
        files.write(path(verdict, kind), text)
    return {kind: files.sha256(path(verdict, kind)) for kind in texts}


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def refusal(verdict: Path, digests: Mapping[str, str]) -> str | None:
    """Why the evidence beside a verdict is not what the verdict records, or None where it is."""
    for kind in KINDS:
        name = path(verdict, kind)
        if kind not in digests:
            return f"{verdict.name} was made without {name.name}"
        if not name.is_file():
            return f"{name.name} is not beside {verdict.name}"
        if files.sha256(name) != digests[kind]:
            return f"{name.name} is not the one that {verdict.name} was made with"
    return None


def load(name: Path) -> tuple[Boot, ...] | None:
    """The boots in a boot.json; None where there is none or it cannot be read as one."""
    value = files.read_json(name)
    try:
        return tuple(
            Boot(
                **{k: v for k, v in row.items() if k not in ("units", "chain")},
                units=tuple(Unit(**unit) for unit in row["units"]),
                chain=tuple(row["chain"]),
            )
            for row in value["boots"]
        )
    except (TypeError, KeyError, AttributeError):
        return None
