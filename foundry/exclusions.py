"""What images.NAME.exclude leaves out of an image, as rules of dpkg, which keep it out when packages are upgraded."""

from __future__ import annotations

import fnmatch
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from foundry import log
from foundry.errors import ConfigError

GROUPS: Mapping[str, tuple[str, ...]] = {
    # All that PostgreSQL compiles queries with. Without it, it does so without a word, even with jit = on.
    "jit": (
        "/usr/lib/postgresql/*/lib/bitcode/*",
        "/usr/lib/postgresql/*/lib/llvmjit*",
        "/usr/lib/x86_64-linux-gnu/libLLVM*",
        "/usr/lib/llvm-*/lib/*",
        "/usr/lib/x86_64-linux-gnu/libz3.so*",
    ),
}
# Of elf(5): the size of a program header, two types of them, two tags.
_ROW = 56
_LOAD, _DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB = 1, 5
_FORM = re.compile(r"/[A-Za-z0-9._+@:,~/*?\[\]!-]+")
_PLACE = re.compile(r"(/usr)?/(bin|sbin|lib|libexec|share)/[^/*?\[]+")
# A few of the files that no node can do without, each for a folder of them: no list can name all of them.
NEEDED = (
    *("/usr/bin/bash", "/usr/bin/consul", "/usr/bin/cloud-init", "/usr/bin/dpkg", "/usr/bin/openssl", "/usr/bin/perl"),
    *("/usr/bin/grub-mkimage", "/usr/bin/python3.11", "/usr/bin/ssh-keygen", "/usr/bin/sudo", "/usr/bin/systemctl"),
    *("/usr/sbin/grub-install", "/usr/sbin/init", "/usr/sbin/nft", "/usr/sbin/sshd"),
    "/usr/lib/apt/methods/http",
    "/usr/lib/grub/i386-pc/kernel.img",
    "/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    "/usr/lib/modules/6.1.0-1-cloud-amd64/kernel/drivers/net/virtio_net.ko",
    "/usr/lib/modules/6.1.0-1-cloud-amd64/modules.builtin",
    "/usr/lib/patroni-venv/bin/patroni",
    "/usr/lib/patroni-venv/lib/python3.11/site-packages/patroni/__init__.py",
    *("/usr/lib/postgresql/15/bin/postgres", "/usr/lib/postgresql/15/lib/plpgsql.so"),
    *("/usr/lib/python3.11/os.py", "/usr/lib/python3/dist-packages/yaml/__init__.py"),
    "/usr/lib/shim/shimx64.efi.signed",
    *("/usr/lib/systemd/systemd", "/usr/lib/systemd/system/ssh.service", "/usr/lib/udev/rules.d/60-block.rules"),
    *("/usr/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/security/pam_unix.so"),
    "/usr/lib/x86_64-linux-gnu/perl-base/strict.pm",
    *("/usr/share/doc/dpkg/copyright", "/usr/share/patroni-node/node.schema.json", "/usr/share/perl/5.36.0/strict.pm"),
    *("/usr/share/perl5/PgCommon.pm", "/usr/share/postgresql/15/postgres.bki", "/usr/share/zoneinfo/UTC"),
)


def check(word: str) -> str:
    """Take a group, or a pattern of paths that a node may do without. Raises ValueError, which says what it must be."""
    if word in GROUPS:
        return word
    if not word.startswith("/"):
        raise ValueError(f"must be {', '.join(GROUPS)} or a path that begins with /")
    if len(word) > 200 or not _FORM.fullmatch(word) or re.search(r"//|/\.\.?(/|$)|/$", word):
        raise ValueError("must be a path without blanks, .. or a / at its end, such as /usr/share/nano/*")
    if not _PLACE.match(word):
        raise ValueError("must name a file or folder of /usr/share, lib, libexec, bin or sbin before any * or ?")
    for path in NEEDED:
        if _matches(word, path):
            raise ValueError(f"must be a pattern that spares {path}, which every node needs")
    return word


def rules(words: Iterable[str]) -> list[str]:
    """dpkg's rules for groups and patterns: lines of a file in dpkg.cfg.d."""
    return [
        f"path-exclude={pattern}" for word in words for part in GROUPS.get(word, (word,)) for pattern in _forms(part)
    ]


def account(root: Path, words: Iterable[str]) -> None:
    """Say what was left out of the packages that are installed in root, and which pattern matched nothing.

    Raises ConfigError where a program or a library that stayed needs a library that was left out.
    """
    paths = sorted({path for text in _lists(root) for path in text.splitlines()})
    folders = {path.rpartition("/")[0] for path in paths}
    gone: dict[str, str] = {}
    for word in words:
        found = [p for part in GROUPS.get(word, (word,)) for p in paths if p not in folders and _matches(part, p)]
        if found:
            number = "1 file stays" if len(found) == 1 else f"{len(found)} files stay"
            log.info(f"exclude: {word}: {number} out of the image")
        else:
            log.info(f"exclude: {word}: no installed package has such a file; is it spelt right?")
        gone.update((Path(path).name, word) for path in found if ".so" in Path(path).name)
    if gone:
        _insist_on_libraries(root, gone)


def _insist_on_libraries(root: Path, gone: Mapping[str, str]) -> None:
    for name in ("usr/bin", "usr/sbin", "usr/lib"):
        for path in sorted((root / name).rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            missed = [library for library in _needed_by(path) if library in gone]
            if missed:
                raise ConfigError(
                    f"exclude: {gone[missed[0]]} leaves out {missed[0]}, which /{path.relative_to(root)} needs",
                    hint="leave out what needs it too, or neither",
                )


def _needed_by(path: Path) -> list[str]:
    """The libraries that a program or a library of 64 bits asks for (elf(5): DT_NEEDED); none for any other file."""
    with path.open("rb") as stream:
        head = stream.read(64)
        if len(head) < 64 or not head.startswith(b"\x7fELF\x02\x01"):
            return []
        table, _, _, _, size, count = struct.unpack_from("<QQIHHH", head, 0x20)
        stream.seek(table)
        rows = stream.read(size * count)
        # Of each part: its type, and where it begins in the file and in memory, and its length in the file.
        steps = range(0, len(rows) - _ROW + 1, max(size, _ROW))
        parts = [struct.unpack_from("<I4xQQ8xQ", rows, at) for at in steps]
        found: list[tuple[int, int]] = []
        for kind, offset, _, length in parts:
            if kind == _DYNAMIC:
                stream.seek(offset)
                found += struct.iter_unpack("<qQ", stream.read(length // 16 * 16))
        texts = next((value for tag, value in found if tag == _DT_STRTAB), 0)
        begin = next((o + texts - m for kind, o, m, n in parts if kind == _LOAD and m <= texts < m + n), 0)
        names = []
        for tag, value in found:
            if tag == _DT_NEEDED:
                stream.seek(begin + value)
                names.append(stream.read(256).partition(b"\0")[0].decode("ascii", "replace"))
        return names


def _lists(root: Path) -> Iterator[str]:
    for path in (root / "var/lib/dpkg/info").glob("*.list"):
        yield path.read_text(encoding="utf-8")


def _forms(pattern: str) -> Iterator[str]:
    """A pattern as dpkg has to be told: for what packages have in /lib and /usr/lib alike, and for all of a folder."""
    bare = pattern.removeprefix("/usr")
    for one in [bare, f"/usr{bare}"] if re.match(r"/(bin|sbin|lib)/", bare) else [pattern]:
        yield one
        if not one.endswith("*"):
            yield f"{one}/*"


def _matches(pattern: str, path: str) -> bool:
    return any(fnmatch.fnmatchcase(path, form) for form in _forms(pattern))
