"""Every command that this program runs on the build host is one that the host is known to have, or does without."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundry import host

PROJECT = Path(__file__).parents[2]
SOURCES = sorted([*(PROJECT / "foundry").rglob("*.py"), *PROJECT.glob("task*.py")])
# Of packages that every Debian 12 has: the essential ones, what these need, and apt with what it needs.
ALWAYS = {
    **dict.fromkeys(("chroot", "cp", "du", "env", "mkdir", "rm", "sha256sum", "true"), "coreutils"),
    **dict.fromkeys(("nsenter", "prlimit", "setpriv", "unshare"), "util-linux"),
    **dict.fromkeys(("losetup", "mount"), "mount"),
    **dict.fromkeys(("apt-cache", "apt-get"), "apt"),
    "bash": "bash",
    "dpkg-deb": "dpkg",
    "find": "findutils",
    "sh": "dash",
    "tar": "tar",
}
# More commands of packages that requirements/host.txt names with another one.
BESIDE = {
    "debugfs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "mmd": "mtools",
    "python3": "python3-venv",
    "sftp": "openssh-client",
    "ssh-keygen": "openssh-client",
}
# What works without them has a test: test_image.py.
OPTIONAL = {"git"}
# Of the image, in a chroot or on a node.
ELSEWHERE = {"grub-mkimage", "sudo"}
# First words of lists that are no commands, though a host may have one of that name.
OTHERS = {"apt", "aws", "client", "codespell", "kvm", "mypy", "node"}
OTHERS |= {
    "channel",
    "consul",
    "disk",
    "image",
    "lint",
    "path",
    "patroni",
    "uri",
    "url",
    "user",
    "version",
}
SHELL = {
    "!",
    "[",
    "case",
    "cd",
    "do",
    "done",
    "exec",
    "fi",
    "for",
    "if",
    "read",
    "set",
    "shift",
    "then",
    "trap",
    "while",
}


def listed() -> dict[str, str]:
    return {command: package for package, command in host.commands(PROJECT / "requirements/host.txt")}


def first_words(text: str) -> Iterator[str]:
    """The first word of each list and tuple of constants, and of each command of the scripts that sh is given."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.List | ast.Tuple):
            continue
        words = [e.value if isinstance(e, ast.Constant) and isinstance(e.value, str) else None for e in node.elts]
        if words and words[0] and re.fullmatch(r"(/usr/s?bin/)?[a-z][a-z0-9_.+-]*", words[0]):
            yield Path(words[0]).name
        if words[:1] == ["sh"]:
            yield from (w for script in words[2:3] if script for w in in_script(script))
    # Scripts that have a name: what sh reads as one begins with a command that only scripts have.
    for script in re.findall(r"\b(?:mount|mkdir) -[^\"\n]*", text):
        yield from in_script(script)


def in_script(script: str) -> Iterator[str]:
    for part in re.split(r"&&|\|\||[;|\n]|\$\(", script):
        word = (part.split() or [""])[0].strip("\"'()")
        if re.fullmatch(r"[a-z][a-z0-9_.+-]*", word) and word not in SHELL:
            yield word


@pytest.mark.real_process
def test_every_command_is_known_before_a_run_begins() -> None:
    """A command that is new here has to be in requirements/host.txt, or to be done without."""
    packages = {
        row.split()[0] for row in (PROJECT / "requirements/host.txt").read_text().splitlines() if row[:1] != "#"
    }
    assert set(BESIDE.values()) <= packages
    known = {*ALWAYS, *BESIDE, *OPTIONAL, *ELSEWHERE, *OTHERS, *listed()}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    found = {
        (word, str(s.relative_to(PROJECT))) for s in SOURCES for word in first_words(s.read_text(encoding="utf-8"))
    }
    assert {(word, where) for word, where in found if word not in known and shutil.which(word, path=path)} == set()
    # What is said of a command that nothing runs would hide one that begins to.
    assert {*ALWAYS, *BESIDE, *OPTIONAL, *ELSEWHERE, *OTHERS} <= {word for word, _ in found}


def test_every_tool_that_is_asked_for_names_its_package() -> None:
    rows = {(p, c) for c, p in {**listed(), **BESIDE, **ALWAYS}.items()}
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "run.find" and len(node.args) == 2:
                words = [a.value for a in node.args if isinstance(a, ast.Constant)]
                assert len(words) < 2 or (words[1], words[0]) in rows, f"{source}: {words}"


def test_a_new_command_is_noticed() -> None:
    """The test above, of a text that runs what nobody has."""
    text = 'run.run(["busybox", "x"], name="x")\nrun.capture(contained(["sh", "-c", "mount -t x && wget y; curl z"]))'
    assert {"busybox", "sh", "mount", "wget", "curl"} <= set(first_words(text))
