"""What someone who has only the public key can find out about a store, and take from it.

Nothing is believed before its signature holds, and each thing has to be what the signed thing above it says: the index
names the log's last entry and each version's checksums, these name every file, the verdict names the disk.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from foundry import evidence, files, gpg, image, lock, log, verify
from foundry.config import Config
from foundry.errors import ConfigError, FoundryError
from foundry.publish import bundle, documents, ledger, signing
from foundry.publish.ledger import Broken, State
from foundry.publish.session import opened
from foundry.publish.stores import Missing, Store
from foundry.workspace import Workspace

SEEN = "seen.json"


class Stale(FoundryError):
    """A store serves something older than it has served before, or than it says is good."""

    code = 14


@dataclass(frozen=True)
class Consumer:
    """A store as it is seen with a public key. memory: of what was seen before; scratch: removed by the caller."""

    store: Store
    keys: Path
    scratch: Path
    memory: Path

    def state(self) -> State:
        """What the store's log leads to. Raises BadSignature, Missing, Stale; Broken where the index does not fit it.

        Where the log goes on after what the index says, the log is right: a publisher was killed between the two, or
        somebody has put an old index back.
        """
        path = self.scratch / "index.asc"
        path.write_bytes(self.store.read(ledger.INDEX))
        shown, said = ledger.parse_index(gpg.opened(path, self.keys, self.scratch))
        expires = said.get("expires")
        if expires and datetime.fromisoformat(expires) < datetime.now(UTC):
            raise Stale(
                f"{self.store.url}: its index was good until {expires}",
                hint="is this an old copy? its publisher renews it by `./inv promote` or `./inv publish`",
            )
        state, fits = State(), shown == State()
        for entry, digest in ledger.entries(self.store, 1, self.keys, self.scratch):
            state = state.after(entry, digest)
            fits = fits or state == shown
        if not fits:
            raise Broken(f"{self.store.url}: its index is not what its log leads to")
        if state != shown:
            log.info(
                f"the index is {state.sequence - shown.sequence} behind the log, which is signed as well: used that"
            )
        self._recall(state)
        return state

    def _recall(self, state: State) -> None:
        """Compare with what was seen before, and remember this."""
        known = files.read_json(self.memory) or {}
        name = hashlib.sha256(self.keys.read_bytes() + self.store.url.encode()).hexdigest()
        before = known.get(name, {"sequence": 0, "head": ""})
        if state.sequence < before["sequence"]:
            raise Stale(
                f"{self.store.url}: it has served {before['sequence']} entries before, and serves {state.sequence} now",
                hint=f"an old state was put back; if its publisher began anew: remove {self.memory}",
            )
        if state.sequence == before["sequence"] and state.head != before["head"] and before["head"]:
            raise Broken(f"{self.store.url}: entry {state.sequence} is another one than it was before")
        files.write_json(self.memory, {**known, name: {"sequence": state.sequence, "head": state.head}})

    def version(self, title: str, version: str, state: State, target: Path) -> dict[str, str]:
        """Bring a whole version to target, each file checked; returns name to sha256. Raises Broken, Missing."""
        folder = f"images/{title}/{version}"
        for name in (bundle.SUMS, bundle.SIGNATURE):
            self.store.download(f"{folder}/{name}", target / name)
        if files.sha256(target / bundle.SUMS) != state.versions[title][version]:
            raise Broken(f"{folder}/{bundle.SUMS} is not the one that the index names")
        gpg.check(target / bundle.SUMS, target / bundle.SIGNATURE, self.keys)
        try:
            sums = bundle.parse_sums((target / bundle.SUMS).read_text(encoding="utf-8"))
        except ValueError as error:
            raise Broken(f"{folder}/{bundle.SUMS}: {error}") from error
        lacking = documents.expected(version, sums) - sums.keys()
        if lacking:
            raise Broken(
                f"{folder}/{bundle.SUMS} names no {', '.join(sorted(lacking))}",
                hint="was it published by an older program, or by another one? its publisher can bring a new version",
            )
        for name, digest in sums.items():
            log.activity(f"fetching {name}")
            self.store.download(f"{folder}/{name}", target / name)
            if files.sha256(target / name) != digest:
                (target / name).unlink()
                raise Broken(f"{folder}/{name} is not what {bundle.SUMS} says")
        try:
            _proved(title, version, sums, target)
            wrong = documents.problems(target, self.keys, self.scratch)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            # All others are read by what says so itself where they make no sense.
            raise Broken(f"{folder}/{image.MANIFEST} is not as this program writes it: {error!r}") from error
        if wrong:
            raise Broken(f"what is said about {version} does not fit it", details="\n".join(wrong))
        return sums


def _proved(title: str, version: str, sums: Mapping[str, str], folder: Path) -> None:
    """Raise Broken unless manifest, verdict and evidence are about this version's disk, and all checks have passed."""
    manifest = json.loads((folder / image.MANIFEST).read_text(encoding="utf-8"))
    if (manifest["name"], manifest["version"]) != (title, version):
        raise Broken(f"{image.MANIFEST} is about {manifest['name']} {manifest['version']}")
    wrong = [str(e["name"]) for e in manifest["files"] if sums.get(str(e["name"])) != e["sha256"]]
    if wrong:
        raise Broken(f"{image.MANIFEST} has other digests of {', '.join(wrong)}")
    verdict = verify.load(folder / bundle.VERDICT)
    disk = manifest["files"][0]
    if verdict is None:
        raise Broken(f"{bundle.VERDICT} is missing, or no verdict")
    if verdict.image != disk["sha256"]:
        raise Broken(f"{bundle.VERDICT} is about another image (sha256 {verdict.image[:12]}…) than {disk['name']}")
    if not verdict.passed or str(verdict.machine) != "vm":
        raise Broken(f"{bundle.VERDICT} does not say that every check has passed in a virtual machine")
    for kind in evidence.KINDS:
        if verdict.evidence.get(kind) != sums[kind]:
            raise Broken(f"{kind} is not the one that {bundle.VERDICT} was made with")


def chosen(state: State, wanted: str, title: str | None = None) -> tuple[str, str]:
    """The image and the version that a channel's or a version's name stands for. Raises ConfigError."""
    titles = [title] if title else list(state.versions)
    for name in titles:
        current = state.current(name, wanted)
        if current:
            return name, current
        if wanted in state.versions.get(name, {}):
            return name, wanted
    channels = sorted({c for name in titles for c in state.channels.get(name, {})})
    raise ConfigError(
        f"there is no channel and no version {wanted}", hint=f"channels: {', '.join(channels) or 'none yet'}"
    )


def verify_release(
    settings: Config,
    workspace: Workspace,
    url: str,
    public: Path | None,
    *,
    wanted: str,
    title: str | None,
    keep: Path | None = None,
) -> list[str]:
    """Fetch a version, or what a channel points at, and check all that belongs to it; returns lines for a person.

    public: the publisher's public key, if not publish.public_key. keep: a folder for the version's files, which is made
    whole or not at all.
    Raises BadSignature, Broken, Stale, ConfigError, StoreError.
    """
    if keep and keep.exists():
        raise ConfigError(f"--keep: {keep} is there already", hint="name a folder that is to be made")
    public = public or settings.publish.public_key
    if public is None:
        raise ConfigError("whose signature shall hold?", hint="give --key FILE: the publisher's public key")
    with (
        lock.held(workspace, "wait until it has ended"),
        tempfile.TemporaryDirectory(prefix=files.own_prefix()) as name,
        opened(settings, workspace, url, Path(name)) as store,
    ):
        scratch = Path(name)
        consumer = Consumer(store, gpg.keyring(public, scratch), scratch, workspace.build / SEEN)
        try:
            state = consumer.state()
        except Missing as error:
            raise ConfigError(
                f"{url} is no store: it has no {ledger.INDEX}", hint="`./inv publish` makes one"
            ) from error
        found, version = chosen(state, wanted, title)
        target = keep or workspace.stage("fetched") / f"checked-{version}"
        with files.whole_folder(target) as folder:
            sums = consumer.version(found, version, state, folder)
        manifest = json.loads((target / image.MANIFEST).read_text(encoding="utf-8"))
        verdict = verify.load(target / bundle.VERDICT)
        assert verdict is not None
        lines = [
            f"index    signed, {state.sequence} entries in its log, each signed and following the one before",
            f"version  {found} {version}, built {manifest['built']}",
            f"files    {len(sums)}, each with the sha256 that {bundle.SUMS} (signed) has",
            "contents two lists (CycloneDX, SPDX) that agree with the manifest; origin signed, about these files",
            "packages those that are in the image, in apt's index and in the tarball",
            f"verdict  {len(verdict.outcomes)} of {len(verdict.outcomes)} checks passed, {verdict.ended}",
        ]
        return lines + ([f"kept     {keep}"] if keep else _dropped(target))


def _dropped(folder: Path) -> list[str]:
    shutil.rmtree(folder)
    return []


def published(settings: Config, workspace: Workspace, wanted: str) -> Path:
    """The disk that a channel or a version of one's own store stands for, fetched once and checked each time.

    Raises ConfigError where there is neither, nor an image of this name; else as verify_release does.
    """
    with (
        tempfile.TemporaryDirectory(prefix=files.own_prefix()) as name,
        opened(settings, workspace, None, Path(name)) as store,
    ):
        scratch = Path(name)
        if store.size(ledger.INDEX) is None:
            images = ", ".join(settings.images)
            raise ConfigError(
                f"there is no image {wanted} in foundry.yml, and nothing is published in {store.url}",
                hint=f"images: {images}; `./inv publish` makes channels",
            )
        keys = signing.trusted(settings, workspace, scratch)
        consumer = Consumer(store, keys, scratch, workspace.build / SEEN)
        state = consumer.state()
        title, version = chosen(state, wanted)
        target = workspace.stage("fetched") / version
        sums = target / bundle.SUMS
        if not sums.is_file() or files.sha256(sums) != state.versions[title][version]:
            with (
                lock.held(workspace, "wait until it has ended"),
                log.stage("fetch", f"{title} {version} of {store.url}"),
                files.whole_folder(target) as folder,
            ):
                consumer.version(title, version, state, folder)
    release = image.load(target)
    if files.sha256(release.main) != release.digest:
        raise Broken(f"{release.main} was changed after it was fetched", hint=f"remove {target}")
    return release.main
