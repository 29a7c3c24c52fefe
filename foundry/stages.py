"""First decide, then act: whether a stage's earlier result can be used again, and why.

A stage's key is the sha256 of everything that it declares as input: settings, package lists, digests of files, and the
code of its own recipe. Time stamps play no part. Its results lie in build/<stage>/<key>/ beside a record of inputs and
outputs, and appear there in one rename. Of a raw disk files.disk_digest is recorded, of a tree, an output of very many
files, files.folder_digest for all of them, and of every other file its sha256.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foundry import files, log
from foundry.errors import CorruptArtifact
from foundry.workspace import Workspace

RECORD = "stage.json"
KEPT_RESULTS = 3


@dataclass(frozen=True)
class Decision:
    """What to do about a stage: its key and folder, whether the folder can be used as it is, and the reason."""

    name: str
    key: str
    folder: Path
    reuse: bool
    reason: str
    inputs: Mapping[str, str]
    trees: Sequence[str] = ()


def recipe(*modules: object) -> dict[str, str]:
    """The digests of the modules that hold a stage's recipe, as inputs of that stage."""
    found = {}
    for module in modules:
        path = Path(str(getattr(module, "__file__", "")))
        found[f"recipe {path.name}"] = files.sha256(path)
    return found


def decide(workspace: Workspace, name: str, inputs: Mapping[str, str], *, trees: Sequence[str] = ()) -> Decision:
    """Compare inputs with the results at hand. trees: names of folders among the outputs."""
    key = files.sha256_text(files.canonical(dict(inputs)))
    folder = workspace.stage(name) / key[:16]
    record = files.read_json(folder / RECORD)
    if record and record.get("key") == key:
        missing = _missing(folder, record, trees)
        why = f"{missing} is missing from the earlier result" if missing else "no input changed"
        return Decision(name, key, folder, not missing, why, inputs, trees)
    return Decision(name, key, folder, False, _difference(workspace, name, inputs), inputs, trees)


def perform(workspace: Workspace, decision: Decision, act: Callable[[Path], None]) -> Path:
    """Use the earlier result, or have act() fill an empty folder and keep that; returns the folder.

    act is called with a scratch folder, which is thrown away when act raises.
    """
    if decision.reuse:
        log.reused(decision.name, decision.reason)
        return decision.folder
    with log.stage(decision.name, decision.reason), files.whole_folder(decision.folder) as scratch:
        act(scratch)
        outputs = {
            str(p.relative_to(scratch)): {"sha256": _digest(p), "size": p.stat().st_size}
            for p in sorted(_files(scratch, decision.trees))
        }
        trees = {name: files.folder_digest(scratch / name) for name in decision.trees}
        record = {"key": decision.key, "inputs": dict(decision.inputs), "outputs": outputs, "trees": trees}
        files.write_json(scratch / RECORD, record)
    files.write_json(workspace.stage(decision.name) / "latest.json", dict(decision.inputs))
    _prune(workspace.stage(decision.name), decision.folder)
    return decision.folder


def checked(folder: Path, member: str) -> Path:
    """The path of a stage's output whose bytes still are what was recorded.

    Raises CorruptArtifact, and removes the result so that the next run makes it anew, when they are not.
    """
    path = folder / member
    record = files.read_json(folder / RECORD) or {}
    wanted = record.get("outputs", {}).get(member, {}).get("sha256")
    if not path.is_file() or _digest(path) != wanted:
        raise _corrupt(folder, f"{path} is not the file that was recorded when it was made")
    return path


def checked_tree(folder: Path, name: str) -> Path:
    """The path of a tree that still is what was recorded, file by file. Raises CorruptArtifact as checked() does."""
    path = folder / name
    record = files.read_json(folder / RECORD) or {}
    if not path.is_dir() or files.folder_digest(path) != record.get("trees", {}).get(name):
        raise _corrupt(folder, f"what is in {path} is not what was recorded when it was made")
    return path


def _corrupt(folder: Path, brief: str) -> CorruptArtifact:
    (folder / RECORD).unlink(missing_ok=True)
    hint = "run it again: this stage will be built anew; if it happens twice, check the disk"
    return CorruptArtifact(f"{folder.parent.name}: {brief}", hint=hint)


def key_of(folder: Path) -> str:
    """The key of the result in a stage's folder."""
    return str(files.read_json(folder / RECORD)["key"])


def output_digest(folder: Path, member: str) -> str:
    """The recorded digest of a stage's output."""
    return str(files.read_json(folder / RECORD)["outputs"][member]["sha256"])


def _files(folder: Path, trees: Sequence[str]) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name not in trees:
            yield from (p for p in (path, *path.rglob("*")) if p.is_file() and not p.is_symlink())


def _digest(path: Path) -> str:
    return files.disk_digest(path) if path.suffix == ".raw" else files.sha256(path)


def _missing(
    folder: Path, record: Mapping[str, Mapping[str, Mapping[str, object]]], trees: Sequence[str]
) -> str | None:
    for member, facts in record.get("outputs", {}).items():
        path = folder / member
        if not path.is_file() or path.stat().st_size != facts["size"]:
            return member
    return next((name for name in trees if not (folder / name).is_dir()), None)


def _difference(workspace: Workspace, name: str, inputs: Mapping[str, str]) -> str:
    earlier = files.read_json(workspace.stage(name) / "latest.json")
    if not earlier:
        return "first build"
    changed = [k for k in inputs if earlier.get(k) != inputs[k]] + [k for k in earlier if k not in inputs]
    if not changed:
        return "its earlier result was removed"
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    verb = (
        "changed" if changed[0] in earlier and changed[0] in inputs else "is new" if changed[0] in inputs else "is gone"
    )
    return f"{changed[0]} {verb}{more}"


def _prune(store: Path, current: Path) -> None:
    results = sorted(
        (p for p in store.iterdir() if p.is_dir() and p != current and not p.name.startswith(".")),
        key=lambda p: p.stat().st_mtime,
    )
    for old in results[: -(KEPT_RESULTS - 1)]:
        shutil.rmtree(old, ignore_errors=True)
