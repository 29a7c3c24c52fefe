"""The tasks of publishing: what was proved goes to a store, and channels point at versions."""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from foundry.errors import ConfigError
from task_parts import SET_HELP, WORKSPACE, configuration, given, show

TO_HELP = "the store: a folder or a URL (default: publish.to of foundry.yml, else store/)"


def _store(to: str) -> str | None:
    """A store as the user names it: a path as seen from where ./inv was called, or a URL."""
    return None if not to else to if "://" in to else str(given(to))


@task(
    auto_shortflags=False,
    iterable=["set"],
    help={
        "image": "its name in foundry.yml (default: the first)",
        "manifest": "of the image to publish (default: the newest)",
        "to": TO_HELP,
        "channel": "what is to point at it (default: publish.channel, which is candidate)",
        "set": SET_HELP,
    },
)
def publish(
    c: Context, image: str = "", manifest: str = "", to: str = "", channel: str = "", set: list[str] = []
) -> None:
    """Bring an image with a passing verdict to a store, signed, and point a channel at it."""

    def act() -> list[str]:
        from foundry.publish import flow

        cfg = configuration(set)
        return flow.publish(
            cfg,
            WORKSPACE,
            name=image or None,
            manifest=given(manifest) if manifest else None,
            to=_store(to),
            channel=channel or cfg.publish.channel,
        )

    show(act)


@task(
    auto_shortflags=False,
    positional=["version"],
    iterable=["set"],
    help={
        "version": "that is published",
        "channel": "what is to point at it (default: stable)",
        "to": TO_HELP,
        "set": SET_HELP,
    },
)
def promote(c: Context, version: str, channel: str = "stable", to: str = "", set: list[str] = []) -> None:
    """Point a channel at a version that is in the store already."""

    def act() -> list[str]:
        from foundry.publish import flow

        return flow.promote(configuration(set), WORKSPACE, version, channel=channel, to=_store(to))

    show(act)


@task(
    auto_shortflags=False,
    positional=["channel"],
    iterable=["set"],
    help={
        "channel": "e.g. stable",
        "image": "its name (default: the first of foundry.yml)",
        "to": TO_HELP,
        "set": SET_HELP,
    },
)
def rollback(c: Context, channel: str, image: str = "", to: str = "", set: list[str] = []) -> None:
    """Point a channel at the version that it pointed at before."""

    def act() -> list[str]:
        from foundry.publish import flow

        return flow.rollback(configuration(set), WORKSPACE, channel, name=image or None, to=_store(to))

    show(act)


@task(
    auto_shortflags=False,
    iterable=["set"],
    help={
        "to": TO_HELP,
        "accept": "go on from what is there although another state of the store was seen before: its name, as the "
        "error gives it",
        "replace_key": "let this key, a fingerprint or a file with the secret key, replace the one that publishes",
        "days": "for how long the one that is replaced may sign what is new (1 to 365; default: 90)",
        "set": SET_HELP,
    },
)
def renew_store(
    c: Context, to: str = "", accept: str = "", replace_key: str = "", days: str = "", set: list[str] = []
) -> None:
    """Let a store's readers believe it for another publish.valid_days; nothing in it changes but, if asked, its key."""

    def act() -> list[str]:
        from foundry.publish import flow, replacement

        if replace_key:
            name = str(given(replace_key)) if given(replace_key).is_file() else replace_key
            cfg = configuration(set)
            return replacement.replace_key(
                cfg, WORKSPACE, name, days=replacement.days_of(days), to=_store(to), accept=accept or None
            )
        if days:
            raise ConfigError(
                "--days is about --replace-key, which is not here", hint="publish.valid_days: foundry.yml"
            )
        return flow.renew(configuration(set), WORKSPACE, to=_store(to), accept=accept or None)

    show(act)


@task(auto_shortflags=False, iterable=["set"], help={"to": TO_HELP, "json": "print JSON", "set": SET_HELP})
def releases(c: Context, to: str = "", json: bool = False, set: list[str] = []) -> None:
    """Show the versions in a store, the channels that point at them, and the last changes."""

    def act() -> list[str]:
        from foundry.publish import releases as found

        return found.releases(configuration(set), WORKSPACE, to=_store(to), as_json=json)

    show(act)


@task(
    auto_shortflags=False,
    positional=["old", "new"],
    iterable=["set"],
    help={
        "old": "a version that is published, or a channel",
        "new": "the same, to be compared with it",
        "image": "its name, where the store has several",
        "json": "print JSON",
        "to": TO_HELP,
        "set": SET_HELP,
    },
)
def diff(
    c: Context, old: str, new: str, image: str = "", json: bool = False, to: str = "", set: list[str] = []
) -> None:
    """Show what differs between two published versions: packages, settings, sources, tools, sizes."""

    def act() -> list[str]:
        from foundry.publish import releases as found

        return found.difference(
            configuration(set), WORKSPACE, old, new, title=image or None, to=_store(to), as_json=json
        )

    show(act)


@task(
    auto_shortflags=False,
    positional=["url"],
    iterable=["set"],
    help={
        "url": "of the store: a folder or an address",
        "key": "the publisher's public key, from where you trust it (default: publish.public_key)",
        "version": "a version or a channel (default: stable)",
        "image": "its name, where the store has several",
        "keep": "a folder for the version's files (default: they are removed)",
        "accept": "believe what is there although another state of the store was seen before: its name, as the "
        "error gives it",
        "set": SET_HELP,
    },
)
def verify_release(
    c: Context,
    url: str,
    key: str = "",
    version: str = "stable",
    image: str = "",
    keep: str = "",
    accept: str = "",
    set: list[str] = [],
) -> None:
    """Check, with the public key alone, that all of a published version belongs together."""

    def act() -> list[str]:
        from foundry.publish import consumer

        return consumer.verify_release(
            configuration(set),
            WORKSPACE,
            _store(url) or "",
            given(key) if key else None,
            wanted=version,
            title=image or None,
            keep=given(keep) if keep else None,
            accept=accept or None,
        )

    show(act)
