"""Where versions are published: one small interface, and its backends by the scheme of their URL.

A store is files below one root, which any web server or object storage can serve. Paths are relative to it, with "/".
Nothing here knows what the files mean.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from foundry import files
from foundry.errors import ConfigError, CorruptArtifact, FoundryError

INCOMING = ".incoming"
"""The folder of a store in which files are until they are whole: no path of a reader leads there."""

UNFINISHED_DAYS = 7.0
"""How long an interrupted upload waits for somebody to go on with it, unless sweep() is told otherwise."""

LARGEST = 64 << 20
"""The bytes that read() takes into memory: of an index, a signature, a list."""

# Of a Debian package's file name (Debian Policy, 5.6.7 and 5.6.12) and of ours, never like an option or a hidden file.
_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+~%:=@,-]*")
_LONGEST_NAME, _LONGEST_PATH = 200, 700


class StoreError(FoundryError):
    """A store did not answer, or refused."""

    code = 9


class ReadOnly(StoreError):
    """A store of this kind can only be read."""


class Missing(StoreError):
    """A store has no file of this path."""


class Taken(StoreError):
    """A file that was to be made is there already: somebody else was first."""


@dataclass(frozen=True)
class Options:
    """What a store's URL does not say; each backend takes what it knows.

    endpoint: the URL of an S3 service that is not AWS. region: S3's. timeout: seconds that a server may keep silent.
    scratch: a folder of the build host for what passes through (default: the host's folder for temporary files).
    ssh_config: an ssh_config(5) file in place of the user's. part_size: bytes, the least size of the parts in which a
    large file is sent to S3, where 5 MiB is the smallest allowed.
    """

    endpoint: str = ""
    region: str = ""
    timeout: float = 60.0
    scratch: Path | None = None
    ssh_config: Path | None = None
    part_size: int = 16 << 20


class Store(Protocol):
    """One root of files. Every method raises StoreError where the store does not answer, or answers with an error.

    A path is one that checked() accepts; for any other each method raises StoreError and does nothing.

    A file appears whole or not at all, whatever is killed meanwhile; one that is being written is seen by no reader.
    """

    url: str

    def size(self, path: str) -> int | None:
        """The bytes of a file; None where there is none."""
        ...

    def read(self, path: str) -> bytes:
        """The contents of a small file: up to LARGEST bytes. Raises Missing."""
        ...

    def names(self, folder: str) -> list[str]:
        """The names directly in a folder, sorted, those of folders with a "/" at the end; nothing where it is none."""
        ...

    def download(self, path: str, target: Path, limit: int | None = None) -> None:
        """Write a file of the store to target, whole or not at all. Raises Missing.

        limit: the bytes that it may have; it ends at the first one too many, whatever the store has said before.
        """
        ...

    def upload(self, source: Path, path: str, digest: str) -> int:
        """Bring a file to the store, going on where an earlier, interrupted call stopped; returns the bytes sent.

        digest: the source's sha256, compared with what the store has afterwards, before the file appears (S3 lets
        nobody read what has not appeared: there its parts are compared before, and the whole after, which is removed if
        it differs). A file of this path and this size is taken for the same one and not sent again. Raises
        CorruptArtifact when it differs.
        """
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Write a small file in one step, in place of an older one."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write a small file that must be new. Of several that do so at once, one succeeds. Raises Taken."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, if it is there, and the folders that become empty by that."""
        ...

    def sweep(self, days: float = UNFINISHED_DAYS) -> list[str]:
        """Remove what interrupted uploads have left that nobody has touched for so many days; returns their names."""
        ...

    def close(self) -> None:
        """End the connections. The store can be used again, and makes new ones."""
        ...


def checked(path: str) -> str:
    """path, if it names something below a store's root: relative, each name beginning with a letter, a digit, _ or +.

    Raises StoreError for any other, such as "", "/etc/passwd", "a/../b", "a//b", "a\\b" or what has control characters.
    """
    parts = path.split("/")
    if len(path) <= _LONGEST_PATH and all(len(part) <= _LONGEST_NAME and _NAME.fullmatch(part) for part in parts):
        return path
    raise StoreError(
        f"{path[:_LONGEST_PATH]!r} is no path in a store",
        hint="letters, digits and ._+~%:=@,- with / between; each name begins with a letter, a digit, _ or +",
    )


def too_large(path: str, limit: int, url: str) -> StoreError:
    """The error for a file that has more bytes than it may have."""
    return StoreError(
        f"{url}: {path} is larger than {files.human(limit)}, and should not be",
        hint="is this what its publisher has put there? nothing of it was kept",
    )


def damaged(source: Path, digest: str, url: str) -> CorruptArtifact:
    """The error for a file that the store of a URL has otherwise than its digest says: here or there, it tells."""
    changed = files.sha256(source) != digest
    what = "changed since its digest was taken" if changed else f"arrived damaged in {url}"
    return CorruptArtifact(f"{source.name} {what}", hint="run it again; if it happens again, check the disk")


def open_store(url: str, options: Options | None = None) -> Store:
    """The store of a URL, or of the path of a local folder. Raises ConfigError for what is neither.

    Nothing is asked of a server before the first call of a method.
    """
    chosen = options or Options()
    # Names of folders may have a colon; a scheme is what has "://" after it.
    scheme = url.split("://", 1)[0].lower() if "://" in url else ""
    make = BACKENDS.get(scheme)
    if make is None or not url or url.startswith("://") or any(ord(c) < 32 or ord(c) == 127 for c in url):
        raise _bad(url, "it is none of a store")
    try:
        password = urllib.parse.urlsplit(url).password if scheme else None
    except ValueError as error:
        raise _bad(url, str(error)) from error
    if password is not None:
        raise ConfigError(
            f"publish.to: the URL of {urllib.parse.urlsplit(url).hostname} has a password in it",
            hint="it would be in logs and process lists; use ssh keys, AWS's credentials file or ~/.netrc",
        )
    return make(url, chosen)


def _bad(url: str, why: str) -> ConfigError:
    return ConfigError(
        f"publish.to: {url!r} cannot be used: {why}",
        hint="a folder's path, file:///path, sftp://[user@]host[:port]/path, s3://bucket/prefix, "
        "or to read only: https://host/path",
    )


def _local(url: str, options: Options) -> Store:
    from foundry.publish.local import LocalStore

    if "://" not in url:
        return LocalStore(Path(url))
    parts = urllib.parse.urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise _bad(url, "a file URL has an absolute path, and no host")
    return LocalStore(Path(urllib.parse.unquote(parts.path)))


def _sftp(url: str, options: Options) -> Store:
    from foundry.publish.openssh import Address
    from foundry.publish.sftp import SftpStore

    try:
        return SftpStore(Address.parse(url), options)
    except ValueError as error:
        raise _bad(url, str(error)) from error


def _s3(url: str, options: Options) -> Store:
    from foundry.publish.s3 import S3Store

    parts = urllib.parse.urlsplit(url)
    prefix = parts.path.strip("/")
    # S3's rules for names of buckets: User Guide, "Bucket naming rules".
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc) or parts.query or parts.fragment:
        raise _bad(url, "s3:// is followed by the name of a bucket: small letters, digits, dots and hyphens")
    try:
        return S3Store(parts.netloc, checked(prefix) if prefix else "", options)
    except StoreError as error:
        raise _bad(url, str(error)) from error


def _web(url: str, options: Options) -> Store:
    from foundry.publish.web import WebStore

    parts = urllib.parse.urlsplit(url)
    if not parts.hostname or parts.query or parts.fragment:
        raise _bad(url, "it has a host and a path, and nothing after these")
    return WebStore(url, options)


BACKENDS: dict[str, Callable[[str, Options], Store]] = {
    "": _local,
    "file": _local,
    "sftp": _sftp,
    "s3": _s3,
    "http": _web,
    "https": _web,
}
