"""The key that publishes: one of the user's own gpg, one in a file, or, for trying out, one that is thrown away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundry import gpg, log
from foundry.config import Config
from foundry.errors import ConfigError
from foundry.workspace import Workspace

THROW_AWAY = "throw-away"
USER = "Patroni Foundry, for trying out (throw-away)"


@contextmanager
def key(settings: Config, workspace: Workspace, scratch: Path) -> Iterator[gpg.Key]:
    """The key that foundry.yml names. scratch: a folder that is removed afterwards. Raises ConfigError without one."""
    publish = settings.publish
    if publish.key_file:
        with gpg.imported(publish.key_file, scratch / "home", publish.passphrase_file) as found:
            yield found
    elif publish.key == THROW_AWAY:
        log.info("signing with a key that is thrown away with build/: nobody can know that it is yours")
        yield gpg.throw_away(workspace.publisher, USER)
    elif publish.key:
        yield gpg.own(publish.key)
    else:
        raise ConfigError(
            "publish.key: there is no key to sign with",
            hint="set publish.key to a fingerprint of your own gpg (agent or smartcard), or publish.key_file to an "
            f"exported secret key; to try it out: `--set publish.key={THROW_AWAY}`; only to look at what is published, "
            "publish.public_key will do (docs/publishing.md)",
        )


@contextmanager
def successor(name: str, settings: Config, scratch: Path) -> Iterator[gpg.Key]:
    """The key that is to replace another: of the user's own gpg, or the secret key in a file. Raises ConfigError."""
    setting = "--replace-key"
    if Path(name).is_file():
        with gpg.imported(Path(name), scratch / "next", settings.publish.passphrase_file, setting) as found:
            yield found
    else:
        yield gpg.own(name, setting)


def trusted(settings: Config, workspace: Workspace, scratch: Path) -> Path:
    """The public key that a store's readers believe, as gpgv takes it: publish.public_key, else that of key().

    Raises ConfigError where there is neither.
    """
    if settings.publish.public_key:
        return gpg.keyring(settings.publish.public_key, scratch)
    with key(settings, workspace, scratch) as own:
        return own.public(scratch / "own.gpg")
