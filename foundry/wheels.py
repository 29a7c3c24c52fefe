"""The Python files that a lock names, fetched before any build: wheels where the target can use one, else sdists.

pip itself would run a sdist's build to learn what the lock already says, so pypi-simple asks the index.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from foundry import files, log, run
from foundry.errors import FetchError
from foundry.workspace import Workspace

PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)] + [
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
]
_ATTEMPTS = 3


def locked(lock: Path) -> dict[str, set[str]]:
    """Name to the sha256 digests that a requirements file with hashes allows."""
    found: dict[str, set[str]] = {}
    name = ""
    for line in lock.read_text(encoding="utf-8").splitlines():
        start = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==", line)
        if start:
            name = start.group(1)
        for digest in re.findall(r"--hash=sha256:([0-9a-f]{64})", line):
            found.setdefault(name, set()).add(digest)
    return found


def tags(version: tuple[int, int]) -> list[Tag]:
    """The tags that a CPython of that version accepts on this product's targets, best first."""
    return [*cpython_tags(version, platforms=PLATFORMS), *compatible_tags(version, platforms=PLATFORMS)]


def fetch(locks: Iterable[Path], python: tuple[int, int], workspace: Workspace) -> list[Path]:
    """Bring one file for each locked requirement into the workspace's wheels; returns their paths, sorted.

    Raises FetchError when the index does not answer or has none of the locked files.
    """
    wanted = _wanted(locks)
    record = workspace.wheels / "known.json"
    known: dict[str, str] = files.read_json(record) or {}
    found = [_find(name, digests, tags(python), known, workspace) for name, digests in wanted.items()]
    files.write_json(record, known)
    return sorted(found)


def pin(
    locks: Iterable[Path], python: tuple[int, int], rows: Mapping[str, str], workspace: Workspace, *, offline: bool
) -> list[str]:
    """Have fetch() take the files of a record, which are here or are fetched; returns those that cannot be had.

    rows: name of a file to its sha256. offline: the index is not asked.
    """
    record = workspace.wheels / "known.json"
    known: dict[str, str] = files.read_json(record) or {}
    missing, order = [], tags(python)
    for name, digests in _wanted(locks).items():
        for filename, digest in rows.items():
            if digest not in digests:
                continue
            held = workspace.wheels / filename
            if not (held.is_file() and files.sha256(held) == digest):
                try:
                    if offline:
                        raise FetchError("offline")
                    held = _attempts(name, {digest}, order, workspace)
                except FetchError:
                    missing.append(f"{filename} sha256 {digest}")
                    continue
            known[_lock_id(name, digests, order)] = held.name
    if not missing:
        files.write_json(record, known)
    return missing


def _wanted(locks: Iterable[Path]) -> dict[str, set[str]]:
    wanted: dict[str, set[str]] = {}
    for lock in locks:
        for name, digests in locked(lock).items():
            wanted.setdefault(name, set()).update(digests)
    return wanted


def _lock_id(name: str, digests: set[str], order: list[Tag]) -> str:
    return files.sha256_text(f"{name} {sorted(digests)} {order[0]}")


def _find(name: str, digests: set[str], order: list[Tag], known: dict[str, str], workspace: Workspace) -> Path:
    lock_id = _lock_id(name, digests, order)
    held = workspace.wheels / known.get(lock_id, "none")
    if held.is_file() and files.sha256(held) in digests:
        return held
    path = _attempts(name, digests, order, workspace)
    known[lock_id] = path.name
    return path


def _attempts(name: str, digests: set[str], order: list[Tag], workspace: Workspace) -> Path:
    # Here and below: a build that fetches nothing would spend a third of its time on importing them.
    import pypi_simple
    import requests

    log.activity(f"wheels: {name}")
    last: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            return _download(name, digests, order, workspace)
        except (requests.RequestException, pypi_simple.DigestMismatchError, OSError) as error:
            last = error
    raise FetchError(
        f"wheels: the Python package index did not give {name}",
        details=str(last),
        hint="check the network, a proxy, and `pip config list`",
    )


def _download(name: str, digests: set[str], order: list[Tag], workspace: Workspace) -> Path:
    import pypi_simple

    with pypi_simple.PyPISimple(endpoint=_index()) as client:
        page = client.get_project_page(name, timeout=30.0)
        candidates = [p for p in page.packages if (p.digests or {}).get("sha256") in digests]
        usable = [(rank, p) for p in candidates if (rank := _rank(p.filename, order)) is not None]
        if not usable:
            raise FetchError(
                f"wheels: the index has no file of {name} that the lock allows and the target can use",
                hint="`./inv lock` makes the lock anew",
            )
        best = min(usable, key=lambda pair: pair[0])[1]
        target = workspace.wheels / best.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        client.download_package(best, partial, verify=True, timeout=60.0)
        partial.rename(target)
        return target


def _rank(filename: str, order: list[Tag]) -> int | None:
    """How well the target likes a file: wheels by tag, then sdists; None for what it cannot use."""
    if filename.endswith((".tar.gz", ".zip")):
        return len(order)
    try:
        _, _, _, theirs = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return None
    return min((order.index(t) for t in theirs if t in order), default=None)


def _index() -> str:
    """The index that this host's pip uses, in its order: environment, configuration, pip's default."""
    import pypi_simple

    answer = run.run(
        ["/usr/bin/python3", "-m", "pip", "config", "get", "global.index-url"], name="pip-config", check=False
    )
    configured = answer.output.strip() if answer.returncode == 0 else ""
    return run.user_setting("PIP_INDEX_URL") or configured or pypi_simple.PYPI_SIMPLE_ENDPOINT
