"""What must never be in an image, looked for in the bytes of its disk: files, slack and unallocated blocks alike."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from foundry.errors import CorruptArtifact

CHUNK = 16 * 1024 * 1024
# Longer than anything that PATTERNS match, so that nothing is missed where two chunks meet.
OVERLAP = 4096

_PEM_HEADERS = rb"(?:[A-Za-z-]+: [^\n]{1,80}\r?\n|\r?\n){0,4}"
_ED25519 = rb"ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]{43}"

# Each wants some of the secret itself: programs that read keys hold the bare words too.
PATTERNS = {
    "a private key (PEM)": re.compile(
        rb"-----BEGIN (?:[A-Z]{2,9} )?PRIVATE KEY-----\r?\n" + _PEM_HEADERS + rb"[A-Za-z0-9+/]{40,76}=*\r?\n"
    ),
    # PROTOCOL.key of OpenSSH: its magic, then the cipher's name with its length.
    "a private key (OpenSSH)": re.compile(rb"openssh-key-v1\x00\x00\x00\x00.(?:none|aes256-ctr)"),
    # crypt(5): the prefixes of yescrypt, SHA-512 and SHA-256, as a field of shadow(5).
    "a password's hash": re.compile(rb"[a-z_][a-z0-9_-]{0,31}:\$(?:y|gy|6|5)\$[./A-Za-z0-9$=,]{20,200}:[0-9]"),
    # sshd(8), AUTHORIZED_KEYS FILE FORMAT.
    "an ssh key": re.compile(rb"ssh-(?:" + _ED25519 + rb"|rsa AAAAB3NzaC1yc2EAAAA[A-Za-z0-9+/]{60})"),
    "a node's key": re.compile(rb"secrets:\s{0,8}\{?\s{0,8}key: ['\"]?(?!replace-with)[A-Za-z0-9+/_=-]{16,}"),
}

# Files of Debian that hold such things and may: below the root, and why.
ALLOWED = {
    "usr/lib/x86_64-linux-gnu/libgnutls.so.*": "the keys of its self-tests",
}


def search(disk: Path, tree: Path) -> list[str]:
    """Look through all bytes of a raw disk that are not holes, whatever file system they belong to or once belonged to.

    disk: the raw disk. tree: the files of its root file system, for those of them that may hold such things.

    Returns:
        For each find what it is and its offset in bytes; never the find itself.

    Raises:
        CorruptArtifact: when the disk holds nothing at all.
    """
    known = {
        match.group()
        for glob in ALLOWED
        for path in tree.glob(glob)
        if path.is_file() and not path.is_symlink()
        for pattern in PATTERNS.values()
        for match in pattern.finditer(path.read_bytes())
    }
    found: dict[tuple[str, int], None] = {}
    seen = 0
    with disk.open("rb") as stream:
        for offset, data in _data(stream):
            seen += len(data)
            for what, pattern in PATTERNS.items():
                for match in pattern.finditer(data):
                    if match.group() not in known:
                        found[what, offset + match.start()] = None
    if not seen:
        raise CorruptArtifact(f"{disk.name} holds no data, so nothing can be said of what is in it")
    return [f"{what} at byte {offset}" for what, offset in sorted(found, key=lambda item: item[1])]


def _data(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The parts of a sparse file that are no holes (lseek(2), SEEK_DATA), each with its offset."""
    size = stream.seek(0, os.SEEK_END)
    position = 0
    while position < size:
        try:
            begin = os.lseek(stream.fileno(), position, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(stream.fileno(), begin, os.SEEK_HOLE)
        start = begin
        while start < end:
            stream.seek(start)
            yield start, stream.read(min(CHUNK, end - start))
            if start + CHUNK >= end:
                break
            start += CHUNK - OVERLAP
        position = end
