from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from foundry import files, listing, run, tree
from foundry.errors import CorruptArtifact

STAT = """\
Inode: {inode}   Type: {kind}    Mode:  {mode}   Flags: 0x80000
Generation: 0    Version: 0x00000000:00000000
User:     0   Group:    42   Project:     0   Size: 3
File ACL: 0
Links: 1   Blockcount: 8
Fragment:  Address: 0    Number: 0    Size: 0
 ctime: 0x6b016840:00000000 -- Sun Nov 22 12:00:00 2026
 atime: 0x6b016840:00000000 -- Sun Nov 22 12:00:00 2026
 mtime: 0x6b016841:00000000 -- Sun Nov 22 12:00:01 2026
crtime: 0x6b016840:00000000 -- Sun Nov 22 12:00:00 2026
Size of extra inode fields: 32
{more}"""
ANSWERS = {
    "ls -p <2>": "/2/040755/0/0/.//\n/2/040755/0/0/..//\n/12/040755/0/0/etc//\n/13/020666/0/0/null//\n\n",
    "ls -p <12>": "/12/040755/0/0/.//\n/2/040755/0/0/..//\n/14/100640/0/42/a b/3/\n/0/100640/0/42/gone/3/\n\n",
    "stat <2>": STAT.format(inode=2, kind="directory", mode="0755", more="EXTENTS:\n(0):1\n"),
    "stat <12>": STAT.format(inode=12, kind="directory", mode="0755", more=""),
    "stat <13>": STAT.format(
        inode=13, kind="character special", mode="0666", more="Device major/minor number: 01:03 (hex 01:03)\n"
    ),
    "stat <14>": STAT.format(
        inode=14, kind="regular", mode="0640", more="Extended attributes:\n  user.x (1) = 01 \nEXTENTS:\n(0):9\n"
    ),
}


def answer(disk: Path, words: list[str | Path], **_: object) -> run.Result:
    asked = Path(words[1]).read_text().splitlines()
    said = "debugfs 1.47.0 (5-Feb-2023)\n" + "".join(f"debugfs: {line}\n{ANSWERS[line]}" for line in asked)
    return run.Result(("debugfs",), 0, said, None)


def test_every_path_is_found_with_its_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "debugfs", answer)
    inodes = listing._paths(Path("disk"), tmp_path)
    assert inodes == {"/": 2, "/etc": 12, "/null": 13, "/etc/a b": 14}
    facts = listing._facts(Path("disk"), sorted(inodes.values()), tmp_path)
    files.write(tmp_path / "files/etc/a b", "abc")
    found = {path: listing._file(facts[n], tmp_path / "files" / path.lstrip("/"), n) for path, n in inodes.items()}
    digest = files.sha256_text("abc")
    assert found["/etc/a b"] == listing.File("regular", "0640", "0:42", "1", 0x6B016841, "  user.x (1) = 01 \n", digest)
    assert found["/null"].content == "01:03"
    assert found["/etc"] == listing.File("directory", "0755", "0:42", "1", 0x6B016841, "", "")


def test_a_debugfs_that_stops_halfway_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run.Result(("debugfs",), 0, "debugfs 1.47.0\ndebugfs: ls -p <2>\n", None)
    monkeypatch.setattr(tree, "debugfs", lambda *a, **k: said)
    with pytest.raises(CorruptArtifact, match="answered 1 of 2"):
        listing._facts(Path("disk"), [2, 12], tmp_path)


PLAIN = listing.File("regular", "0644", "0:0", "1", 1, "", "x")


@pytest.mark.parametrize("fact", ["kind", "mode", "owner", "links", "attributes", "content"])
def test_each_fact_counts(fact: str) -> None:
    other = replace(PLAIN, **{fact: "another"})
    assert listing.compare({"/a": PLAIN}, {"/a": other}) == [f"/a: {fact}"]


def test_times_and_names_count() -> None:
    assert listing.compare({"/a": PLAIN}, {"/a": replace(PLAIN, mtime=2)}) == ["/a: mtime"]
    assert listing.compare({"/a": PLAIN}, {"/b": PLAIN}) == ["/a: only in the first", "/b: only in the second"]
    assert listing.compare({"/a": PLAIN}, {"/a": PLAIN}) == []


def test_what_is_listed_with_its_reason_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAY_DIFFER", {"/var/x/*": "a reason"})
    assert listing.compare({"/var/x/a": PLAIN, "/var/y": PLAIN}, {}) == ["/var/y: only in the first"]
