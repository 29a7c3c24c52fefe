"""Whether an offline tarball is what offline.tarball() makes of a version's packages, and holds nothing else."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from debian.deb822 import Deb822

from foundry import files, gpg, run
from foundry.publish import aptrepo, offline
from foundry.publish.aptrepo import Entry
from foundry.publish.version import Version

_SMALL = 64 << 20
_TYPES = (tarfile.REGTYPE, tarfile.DIRTYPE)


class Unfit(Exception):
    """Something is not what was published; says what."""


def wrong(tarball: Path, index: bytes, version: Version, keys: Path, texts: Path, scratch: Path) -> list[str]:
    """What differs from a tarball of the packages of index. keys: of whoever signed it. texts: templates/offline.

    Raises BadSignature where its repository is signed by nobody, or by somebody else.
    """
    entries = aptrepo.entries(index)
    try:
        small = _small_files(tarball, entries)
        suite = aptrepo.suite_name(version.image, "offline")
        _check_names(small, suite)
        area = {p.removeprefix(f"dists/{suite}/"): data for p, data in small.items() if p.startswith("dists/")}
        check_suite(area, index, suite, keys, scratch)
        _check_texts(small, entries, version, keys, texts, scratch)
    except tarfile.TarError as error:
        return [f"{tarball.name} is no tarball: {error}"]
    except Unfit as error:
        said = str(error)
        return [f"{tarball.name} {said}" if said.startswith("has no ") else f"{tarball.name}: {said}"]
    return []


def _small_files(tarball: Path, entries: Sequence[Entry]) -> dict[str, bytes]:
    """All files but the packages, by path, once these are known to be those of the index. Raises Unfit."""
    left = {e.path: e.sha256 for e in entries}
    found: dict[str, bytes] = {}
    folders = {""}
    with tarfile.open(tarball, "r:") as archive:
        for member in archive:
            path = _path(member, tarball.stem)
            if member.isdir():
                folders.add(path)
                continue
            stream = archive.extractfile(member)
            assert stream is not None
            if path.startswith("pool/"):
                if hashlib.file_digest(stream, "sha256").hexdigest() != left.pop(path, None):  # type: ignore[arg-type]
                    raise Unfit(f"{path} is not the package that Packages names")
            elif path in found:
                raise Unfit(f"{path} is in it twice")
            elif member.size > _SMALL:
                raise Unfit(f"{path} is larger than {files.human(_SMALL)}")
            else:
                found[path] = stream.read()
        end = archive.offset
    for path in left:
        raise Unfit(f"has no {path}")
    needed = {str(p) for path in (*found, *(e.path for e in entries)) for p in Path(path).parents} - {"."}
    for path in folders - needed - {""}:
        raise Unfit(f"{path} is a folder of nothing")
    _check_end(tarball, end)
    return found


def _path(member: tarfile.TarInfo, top: str) -> str:
    """A member's path in the tarball's folder. Raises Unfit for what tar would unpack elsewhere or otherwise."""
    first, *others = member.name.split("/")
    path = "/".join(others)
    if first != top or ".." in others or "." in others or (others and "" in others):
        raise Unfit(f"{member.name} is outside of its folder {top}")
    # A link would be unpacked over what was looked at here; what pax(5) adds, other programs may read otherwise.
    if member.type not in _TYPES or member.pax_headers:
        raise Unfit(f"{path} is neither a file nor a folder")
    mode = 0o755 if member.isdir() or path == offline.ADD_SOURCE else 0o644
    if (member.uid, member.gid, member.mode) != (0, 0, mode):
        raise Unfit(f"{path} is not root's, or has another mode than {mode:o}")
    return path


def _check_end(tarball: Path, end: int) -> None:
    """Raise Unfit for what follows the end of the archive: some programs read on."""
    with tarball.open("rb") as stream:
        stream.seek(end)
        while data := stream.read(1 << 20):
            if data.strip(b"\0"):
                raise Unfit("goes on after its end")


def _check_names(small: Mapping[str, bytes], suite: str) -> None:
    wanted = {offline.SOURCES, offline.ADD_SOURCE, offline.README}
    wanted |= {f"dists/{suite}/{name}" for name in (*aptrepo.INDEXES, *aptrepo.SIGNED)}
    for path in sorted(small):
        if path not in wanted and not path.startswith(f"dists/{suite}/{aptrepo.BY_HASH}/"):
            raise Unfit(f"{path} is no part of it")
    for path in sorted(wanted - small.keys()):
        raise Unfit(f"has no {path}")


def check_suite(
    area: Mapping[str, bytes], index: bytes, suite: str, keys: Path, scratch: Path, *, several: bool = False
) -> None:
    """Raise Unfit unless what apt reads of a suite is this index in each form, signed; BadSignature where it is not.

    area: of the suite's folder, path to contents: InRelease with what it names by hash, and whatever else there is.
    several: it may be signed by more than one of keys.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".suite.") as name:
        folder = Path(name)
        for path in aptrepo.SIGNED:
            if path in area:
                (folder / path).write_bytes(area[path])
        # SHA256SUMS, which the log vouches for, names these very bytes, also of a key that was replaced since.
        text, _ = gpg.signed_once(folder / "InRelease", keys, folder, several=several)
        if "Release" in area:
            if area["Release"].decode("utf-8", "replace").rstrip("\n") != text.rstrip("\n"):
                raise Unfit(f"{suite}: Release says something else than InRelease")
            gpg.check(folder / "Release", folder / "Release.gpg", keys, once=True, several=several)
    named = listed(text, suite)
    packed = {}
    for path, (digest, size) in named.items():
        data = area.get(f"{aptrepo.BY_HASH}/{digest}")
        if data is None or len(data) != size or hashlib.sha256(data).hexdigest() != digest:
            raise Unfit(f"{suite}: {path} is not in by-hash as InRelease says")
        if area.get(path, data) != data:
            raise Unfit(f"{suite}: {path} is not what InRelease says")
        packed[path] = data
    extra = {p for p in area if p.startswith(f"{aptrepo.BY_HASH}/")} - {
        f"{aptrepo.BY_HASH}/{digest}" for digest, _ in named.values()
    }
    for path in sorted(extra):
        raise Unfit(f"{suite}: InRelease names no {path}")
    plain, small = (packed[path] for path in aptrepo.INDEXES)
    if plain != index:
        raise Unfit(f"{suite}: its Packages is not the index Packages")
    if files.unxz(small, len(index)) != index:
        raise Unfit(f"{suite}: Packages.xz says something else than Packages")


def listed(text: str, suite: str) -> dict[str, tuple[str, int]]:
    """What a Release file names: path to sha256 and size. Raises Unfit for anything that aptrepo does not write."""
    fields = Deb822(text)
    said = {key: str(value) for key, value in fields.items()}
    rows = [row.split() for row in said.pop("SHA256", "").splitlines() if row.strip()]
    for key in ("Date", "Valid-Until"):
        said.pop(key, None)
    if said != aptrepo.release_fields(suite) or any(len(row) != 3 or not row[1].isdigit() for row in rows):
        raise Unfit(f"{suite}: its Release is not as this program writes it")
    found = {row[2]: (row[0], int(row[1])) for row in rows}
    if len(found) != len(rows) or found.keys() - {"Release"} != set(aptrepo.INDEXES):
        raise Unfit(f"{suite}: its Release names other files than {', '.join(aptrepo.INDEXES)}")
    return {path: found[path] for path in aptrepo.INDEXES}


def _check_texts(
    small: Mapping[str, bytes], entries: Sequence[Entry], version: Version, keys: Path, texts: Path, scratch: Path
) -> None:
    said = small[offline.SOURCES].decode("utf-8", "replace")
    armored = "\n".join("" if line == " ." else line[1:] for line in said.partition("Signed-By:\n")[2].splitlines())
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".key.") as name:
        files.write(Path(name) / "key", f"{armored}\n")
        theirs, ours = (fingerprints(path, Path(name)) for path in (Path(name) / "key", keys))
    # Its readers may believe several, as while a key is replaced by another; a tarball has one.
    if len(theirs) != 1 or theirs[0] not in ours:
        raise Unfit(f"{offline.SOURCES} has another key than the one that signed it")
    for path, text in offline.written(version, entries, armored, theirs[0], texts).items():
        if small[path] != text:
            raise Unfit(f"{path} is not what this program writes; was it made by another version of it?")


def fingerprints(keys: Path, home: Path) -> list[str]:
    """Of the primary keys in a file, armored or not, in its order."""
    words = ["gpg", "--batch", "--no-tty", "--homedir", str(home), "--with-colons", "--show-keys", str(keys)]
    rows = [line.split(":") for line in run.run(words, name="show-keys", check=False, on_line=None).output.splitlines()]
    return [rows[n + 1][9] for n, row in enumerate(rows[:-1]) if row[0] == "pub" and rows[n + 1][0] == "fpr"]
