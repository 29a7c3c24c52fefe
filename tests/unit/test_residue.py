"""Secrets in the bytes of a disk, wherever on it they lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foundry import residue
from foundry.errors import CorruptArtifact

# Split, so that these files themselves hold no such thing.
BEGIN = b"-----BEGIN " + b"PRIVATE KEY-----\n"
PEM = BEGIN + b"M" * 64 + b"\n"
SSH = b"ssh-" + b"ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + b"x" * 43 + b" build\n"
SECRETS = {
    "a private key (PEM)": PEM,
    "a private key (OpenSSH)": b"openssh-key-v1" + b"\0\0\0\0\x04none",
    "a password's hash": b"debian:" + b"$y$j9T$" + b"a" * 40 + b":19000:0",
    "an ssh key": SSH,
    "a node's key": b"secrets:\n  key: " + b"kJ8sd7f6Qw3rTy0pLmN2",
}


def disk(folder: Path, *parts: tuple[int, bytes]) -> Path:
    """A sparse disk with these bytes at these offsets."""
    path = folder / "disk.raw"
    with path.open("wb") as stream:
        stream.truncate(80 * 1024 * 1024)
        for offset, data in parts:
            stream.seek(offset)
            stream.write(data)
    return path


@pytest.mark.parametrize("what", SECRETS)
@pytest.mark.parametrize("offset", [0, 4096 * 7 + 13, residue.CHUNK - 20, 70 * 1024 * 1024])
def test_found_wherever_it_lies(tmp_path: Path, what: str, offset: int) -> None:
    filling = (0, b"\xff" * (residue.CHUNK + 4096))
    found = residue.search(disk(tmp_path, filling, (offset, SECRETS[what])), tmp_path / "tree")
    assert found == [f"{what} at byte {offset}"]


@pytest.mark.parametrize(
    "harmless",
    [
        BEGIN + b"%s\n",
        b"-----BEGIN CERTIFICATE-----\n" + b"M" * 64 + b"\n",
        b"root:*:19000:0:99999:7:::",
        b"secrets:\n  key: replace-with-a-long-random-key",
        b"secrets: {key: ...}` to it (example: ",
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
    ],
)
def test_words_that_are_no_secrets(tmp_path: Path, harmless: bytes) -> None:
    assert residue.search(disk(tmp_path, (4096, harmless)), tmp_path / "tree") == []


def test_what_debians_own_file_holds_is_allowed_and_nothing_else(tmp_path: Path) -> None:
    library = tmp_path / "tree/usr/lib/x86_64-linux-gnu/libgnutls.so.30.34.3"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"\x7fELF" + PEM)
    other = BEGIN + b"N" * 64 + b"\n"
    assert residue.search(disk(tmp_path, (4096, PEM), (9000, other)), tmp_path / "tree") == [
        "a private key (PEM) at byte 9000"
    ]


def test_a_disk_without_data_proves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.touch()
    os.truncate(path, 1024 * 1024)
    with pytest.raises(CorruptArtifact, match="no data"):
        residue.search(path, tmp_path)
