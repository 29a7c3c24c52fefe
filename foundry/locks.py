"""Make the lock files of Python packages anew: what is in them changes only here."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from foundry import files, log, run
from foundry.config import Config
from foundry.errors import CommandFailed, ConfigError, FetchError
from foundry.workspace import Workspace


def lock(cfg: Config, workspace: Workspace) -> list[Path]:
    """Write requirements/NAME.txt, with every version and hash, for each NAME.in; returns the files that changed.

    Patroni's version and extras in patroni.in are those of cfg. Either all files are replaced or none is.
    Raises FetchError when the index does not answer or has no versions that fit.
    """
    folder = workspace.requirements
    wish = (folder / "patroni.in").read_text(encoding="utf-8")
    new_wish = with_patroni(wish, cfg.patroni.version, cfg.patroni.extras)
    changed: dict[Path, str] = {folder / "patroni.in": new_wish} if new_wish != wish else {}
    workspace.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.work, prefix="lock.") as name:
        scratch = Path(name)
        for source in sorted(folder.glob("*.in")):
            text = changed.get(source) or source.read_text(encoding="utf-8")
            target = source.with_suffix(".txt")
            old = target.read_text(encoding="utf-8") if target.exists() else ""
            with log.stage(source.stem, "asking the index for the newest versions that fit"):
                new = _compile(folder, scratch, source.name, text)
            if new != old:
                changed[target] = new
    for path, text in changed.items():
        files.write(path, text)
    return sorted(changed)


def with_patroni(wish: str, version: str, extras: tuple[str, ...]) -> str:
    """The text of patroni.in with another version and extras. Raises ConfigError where it does not name Patroni."""
    named = f"[{','.join(extras)}]" if extras else ""
    new, count = re.subn(r"^patroni(\[[^\]]*\])?==.*$", f"patroni{named}=={version}", wish, flags=re.MULTILINE)
    if count != 1:
        raise ConfigError("requirements/patroni.in has no line such as patroni[consul]==4.1.5")
    return new


def _compile(folder: Path, scratch: Path, name: str, text: str) -> str:
    # uv names the input in the lock's comments as it was given: as seen from the project's folder.
    given = Path(folder.name) / name
    files.write(scratch / given, text)
    target = given.with_suffix(".txt")
    files.write(scratch / target, "")
    words: list[str | Path] = [
        "-m",
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--config-file",
        folder / "uv.toml",
        "--python-version",
        "3.11",
    ]
    words += ["--universal", "--generate-hashes", "--upgrade", "--no-emit-index-url", "--no-emit-find-links"]
    words += ["--custom-compile-command", "./inv lock", given, "-o", target]
    try:
        run.run([sys.executable, *words], name=f"uv-{given.stem}", what=f"requirements/{name}: uv", cwd=scratch)
    except CommandFailed as error:
        hint = "does the package index answer, and do the versions in the .in file exist?"
        raise FetchError(error.brief, details=error.details, log=error.log, hint=hint) from error
    return (scratch / target).read_text(encoding="utf-8")
