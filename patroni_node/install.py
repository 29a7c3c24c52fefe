"""Files onto the disk: all of them or none, unchanged ones untouched."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from patroni_node.errors import InstallError, NodeError, Problem


@dataclass(frozen=True)
class Target:
    """One file as it shall be; the repr leaves the content out, which holds secrets. content: None for no such file."""

    path: Path
    content: bytes | None = field(repr=False)
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"


_Owners = Mapping[Path, tuple[int, int] | None]


class Accounts(Protocol):
    """Who may own files here; replaced in tests."""

    def ids(self, owner: str, group: str) -> tuple[int, int] | None:
        """Return uid and gid, or None where owners are not set at all.

        Raises:
            KeyError: when there is no such account.
        """

    def chown(self, descriptor: int, uid: int, gid: int) -> None:
        """Give the open file to an owner."""


class SystemAccounts:
    """The machine's own accounts."""

    def ids(self, owner: str, group: str) -> tuple[int, int] | None:
        return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid

    def chown(self, descriptor: int, uid: int, gid: int) -> None:
        os.fchown(descriptor, uid, gid)


class NoAccounts:
    """For --root: modes are set, owners are whoever runs it."""

    def ids(self, owner: str, group: str) -> tuple[int, int] | None:
        return None

    def chown(self, descriptor: int, uid: int, gid: int) -> None:
        raise AssertionError("no owner to set")


def install(targets: Sequence[Target], accounts: Accounts) -> list[Path]:
    """Write what differs, atomically for the whole set.

    Every new file is complete and synced beside its target before the first rename(2); when a
    rename or a removal fails, those already made are undone.

    Args:
        targets: the files; missing parent folders are made 0755.
        accounts: who owns them.

    Returns:
        The paths that changed.

    Raises:
        NodeError: when an account is missing. InstallError: when writing failed.
    """
    owners = _owners(targets, accounts)
    wanted = _different(targets, owners)
    staged: list[tuple[Path | None, Path]] = []
    try:
        for target in wanted:
            if target.content is None:
                staged.append((None, target.path))
                continue
            staged.append((_temporary(target.path), target.path))
            _stage(target, target.content, owners[target.path], accounts)
        _commit(staged)
    except OSError as error:
        for temporary, _ in staged:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
        where = str(error.filename or wanted[0].path)
        message = f"cannot be written ({error.strerror}): free space or mend the file system"
        raise InstallError(Problem(message, where)) from None
    return [target.path for target in wanted]


def different(targets: Sequence[Target], accounts: Accounts) -> list[Path]:
    """Return what `install` would change, and change nothing. Raises NodeError when an account is missing."""
    return [target.path for target in _different(targets, _owners(targets, accounts))]


def _different(targets: Sequence[Target], owners: _Owners) -> list[Target]:
    return [target for target in targets if not _same(target, owners.get(target.path))]


def _owners(targets: Sequence[Target], accounts: Accounts) -> _Owners:
    return {target.path: _ids(target, accounts) for target in targets if target.content is not None}


def _ids(target: Target, accounts: Accounts) -> tuple[int, int] | None:
    try:
        return accounts.ids(target.owner, target.group)
    except KeyError:
        message = f"cannot be given to {target.owner}:{target.group}: install the package that makes this account"
        raise NodeError(Problem(message, str(target.path))) from None


def _same(target: Target, ids: tuple[int, int] | None) -> bool:
    if target.content is None:
        return not os.path.lexists(target.path)
    try:
        status = target.path.lstat()
        if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != target.mode:
            return False
        if ids is not None and (status.st_uid, status.st_gid) != ids:
            return False
        return target.path.read_bytes() == target.content
    except OSError:
        return False


def take(folder: Path) -> None:
    """Let root alone write to a folder that another package has given to its account; nothing where there is none.

    Whoever writes there decides what root reads and sends: a link in the place of a token is one to any file.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(descriptor)
        if status.st_uid != 0:
            os.fchown(descriptor, 0, -1)
        if status.st_mode & 0o022:
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~0o022)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    # A fixed name: a killed run leaves at most one, which the next run replaces. Its suffix is one
    # that neither Consul (*.json, *.hcl) nor our own drop-in folder (*.yml) reads.
    return path.with_name(f".{path.name}.patroni-node-new")


def _stage(target: Target, content: bytes, ids: tuple[int, int] | None, accounts: Accounts) -> None:
    target.path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target.path)
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        if ids is not None:
            accounts.chown(descriptor, *ids)
        os.fchmod(descriptor, target.mode)
        os.fsync(descriptor)


def _commit(staged: Sequence[tuple[Path | None, Path]]) -> None:
    kept: dict[Path, Path] = {}
    done: list[Path] = []
    try:
        for _, path in staged:
            if os.path.lexists(path):
                kept[path] = _keep(path)
        for temporary, path in staged:
            if temporary is None:
                path.unlink()
            else:
                os.replace(temporary, path)
            done.append(path)
    except OSError:
        for path in done:
            if path in kept:
                os.replace(kept[path], path)
            else:
                path.unlink()
        raise
    finally:
        for old in kept.values():
            old.unlink(missing_ok=True)
    for folder in {path.parent for _, path in staged}:
        _sync_folder(folder)


def _keep(path: Path) -> Path:
    """Hard-link what is there now, to put back if a later rename fails."""
    old = path.with_name(f".{path.name}.patroni-node-old")
    old.unlink(missing_ok=True)
    os.link(path, old, follow_symlinks=False)
    return old


def _sync_folder(folder: Path) -> None:
    # Without it a power cut can forget the rename (fsync(2), NOTES of the file's directory).
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
