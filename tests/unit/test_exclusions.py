"""images.NAME.exclude: what is taken, the rules that dpkg gets, and what is said of it once the packages are there."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from foundry import exclusions, log
from foundry.errors import ConfigError

TAKEN = (
    "jit",
    "/usr/share/nano/*",
    "/usr/share/bash-completion",
    "/usr/lib/postgresql/*/lib/bitcode",
    "/usr/lib/modules/*/kernel/fs/btrfs/*",
    "/lib/modules/*/kernel/fs/xfs/xfs.ko",
    "/usr/bin/pzstd",
    "/sbin/dhclient-scrip?",
)
REFUSED = {
    "a word": ("jti", "must be jit or a path that begins with /"),
    "nothing": ("", "must be jit or a path"),
    "everything": ("*", "must be jit or a path"),
    "the root": ("/*", "must name a file or folder of /usr/share"),
    "all of /usr": ("/usr/*", "must name a file or folder"),
    "a room of /usr": ("/usr/share/*", "must name a file or folder"),
    "a wildcard for a room": ("/usr/*/nano", "must name a file or folder"),
    "settings": ("/etc/nanorc", "must name a file or folder"),
    "the kernel": ("/boot/vmlinuz-*", "must name a file or folder"),
    "dpkg's own records": ("/var/lib/dpkg/info/*", "must name a file or folder"),
    "a way out": ("/usr/share/x/../../bin/*", "must be a path without blanks, .."),
    "a folder with a slash": ("/usr/share/nano/", "/ at its end"),
    "a second option": ("/usr/share/x\npre-invoke=reboot", "without blanks"),
    "a blank": ("/usr/share/my files", "without blanks"),
    "programs": ("/usr/bin/b*", "spares /usr/bin/bash"),
    "programs by their other name": ("/bin/b*", "spares /usr/bin/bash"),
    "libraries": ("/lib/x86_64-linux-gnu", "spares /usr/lib/x86_64-linux-gnu/libc.so.6"),
    "licences": ("/usr/share/doc/*", "spares /usr/share/doc/dpkg/copyright"),
    "PostgreSQL": ("/usr/lib/postgresql/*", "spares /usr/lib/postgresql/15/bin/postgres"),
    "Patroni": ("/usr/lib/patroni-venv", "spares /usr/lib/patroni-venv/bin/patroni"),
    "kernel modules": ("/lib/modules/*/kernel/drivers/*", "virtio_net.ko"),
    "time zones": ("/usr/share/zoneinfo/*", "spares /usr/share/zoneinfo/UTC"),
}


@pytest.mark.parametrize("word", TAKEN)
def test_what_a_node_can_do_without_is_taken(word: str) -> None:
    assert exclusions.check(word) == word


@pytest.mark.parametrize(("word", "text"), REFUSED.values(), ids=REFUSED)
def test_what_would_break_a_node_is_refused(word: str, text: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        exclusions.check(word)
    assert text in str(caught.value)


def test_groups_hold_what_a_user_could_write() -> None:
    for group, paths in exclusions.GROUPS.items():
        assert exclusions.check(group) == group
        assert [exclusions.check(path) for path in paths] == list(paths)


def test_a_folder_stands_for_all_in_it_and_usr_for_both_of_its_names() -> None:
    assert exclusions.rules(["/usr/share/nano"]) == [
        "path-exclude=/usr/share/nano",
        "path-exclude=/usr/share/nano/*",
    ]
    assert exclusions.rules(["/usr/lib/udev/hwdb.d/*"]) == exclusions.rules(["/lib/udev/hwdb.d/*"])
    assert exclusions.rules(["/lib/udev/hwdb.d/*"]) == [
        "path-exclude=/lib/udev/hwdb.d/*",
        "path-exclude=/usr/lib/udev/hwdb.d/*",
    ]
    assert "path-exclude=/usr/lib/postgresql/*/lib/bitcode/*" in exclusions.rules(["jit"])


LIST = "/.\n/usr\n/usr/share\n/usr/share/nano\n/usr/share/nano/c.nanorc\n/usr/lib/llvm-14/lib/libz.so.1\n"
Said = list[str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "var/lib/dpkg/info").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/info/nano.list").write_text(LIST)
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/script").write_bytes(b"#!/bin/sh\n")
    return tmp_path


def program(*libraries: str) -> bytes:
    """The least of an executable that needs libraries: its header, two parts, what it needs, and their names."""
    texts, rows = b"\0", []
    for name in libraries:
        rows.append((1, len(texts)))
        texts += name.encode() + b"\0"
    memory, dynamic = 0x1000, 64 + 2 * 56
    rows += [(5, memory + dynamic + 16 * (len(rows) + 2)), (0, 0)]
    body = b"".join(struct.pack("<qQ", *row) for row in rows)
    whole = dynamic + len(body) + len(texts)
    head = b"\x7fELF\x02\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    parts = struct.pack("<IIQQQQQQ", 1, 0, 0, memory, 0, whole, whole, 0)
    parts += struct.pack("<IIQQQQQQ", 2, 0, dynamic, memory + dynamic, 0, len(body), len(body), 0)
    return head + parts + body + texts


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    lines: Said = []
    monkeypatch.setattr(log, "info", lines.append)
    return lines


def test_what_stays_out_is_counted(root: Path, said: Said) -> None:
    exclusions.account(root, ["/usr/share/nano", "/usr/share/nani/*"])
    assert said == [
        "exclude: /usr/share/nano: 1 file stays out of the image",
        "exclude: /usr/share/nani/*: no installed package has such a file; is it spelt right?",
    ]


def test_a_library_that_a_program_needs_is_missed(root: Path, said: Said) -> None:
    (root / "usr/bin/psql").write_bytes(program("libc.so.6", "libz.so.1"))
    with pytest.raises(ConfigError, match=r"/usr/lib/llvm-14/lib/\* leaves out libz.so.1, which /usr/bin/psql needs"):
        exclusions.account(root, ["/usr/lib/llvm-14/lib/*"])


@pytest.mark.parametrize("data", [program("libc.so.6"), program(), program("libz.so.1")[:63], b"\x7fELF", b""])
def test_no_other_file_matters(data: bytes, root: Path, said: Said) -> None:
    (root / "usr/bin/psql").write_bytes(data)
    exclusions.account(root, ["/usr/lib/llvm-14/lib/*"])
    assert said == ["exclude: /usr/lib/llvm-14/lib/*: 1 file stays out of the image"]
