"""foundry.yml, the command line and the environment in; one frozen Config out, or every error at once."""

from __future__ import annotations

import difflib
import re
import shlex
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ValidationError

from foundry import marked_yaml, settings
from foundry.errors import ConfigError
from foundry.marked_yaml import Key, Marked
from foundry.settings import Archive, Build, Config, Consul, Image, Patroni, Postgresql, Verify

__all__ = [
    "Archive",
    "Build",
    "Config",
    "Consul",
    "Image",
    "Patroni",
    "Postgresql",
    "Row",
    "Setting",
    "Verify",
    "explain",
    "load",
    "pick_image",
    "recorded",
    "settings_of",
]


class Setting(NamedTuple):
    """One value that overrides foundry.yml: a dotted key, a YAML value, and who says so ("--set", "environment")."""

    key: str
    value: str
    source: str


class Row(NamedTuple):
    """One line of `invoke config`: a dotted key, its value, and where that came from."""

    key: str
    value: Any
    source: str


@dataclass
class _Draft:
    """What is known of the configuration while it is being checked."""

    path: Path
    marked: Marked
    sources: dict[Key, str] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def add(self, key: Key, text: str) -> None:
        near: Key = key
        while near and near not in self.marked.lines and near not in self.sources:
            near = near[:-1]
        line = self.marked.lines.get(near, 0)
        where = self.sources.get(near) or (f"{self.path.name}:{line}" if near else self.path.name)
        self.problems.append((line, f"{where}: {_dotted(key)}: {text}" if key else f"{where}: {text}"))


def load(path: Path, overrides: Iterable[Setting] = (), *, locked: bool = True) -> Config:
    """Read and check the configuration.

    overrides: later ones win. locked: compare it with requirements/patroni.txt, which lies beside foundry.yml.
    Raises one ConfigError, whose details name every error.
    """
    draft = _Draft(path, marked_yaml.read(path))
    for line, key, text in draft.marked.problems:
        where = f"{path.name}:{line}" if line else path.name
        draft.problems.append((line, f"{where}: {_dotted(key)}: {text}" if key else f"{where}: {text}"))
    raw = draft.marked.value
    if not draft.problems and not isinstance(raw, dict):
        draft.add((), "is empty" if raw is None else "must be keys and values, such as `images:`")
    if not isinstance(raw, dict):
        raise _error(draft)
    raw = {k: {} if v is None and k in Config.model_fields and k != "images" else v for k, v in raw.items()}
    _apply(raw, overrides, draft)
    config, bad = _validate(_with_paths(_with_consul(raw), path.parent), draft)
    if config is not None:
        _combine(config, bad, draft)
        if locked and not _touches("patroni", bad):
            _compare_with_lock(config, path.parent / "requirements", draft)
    if draft.problems or config is None:
        raise _error(draft)
    lines = {k: f"{path.name}:{n}" for k, n in draft.marked.lines.items()}
    config._sources.update({_dotted(k): text for k, text in {**lines, **draft.sources}.items()})
    return config


def recorded(raw: Mapping[str, Any], path: Path, overrides: Iterable[Setting], project: Path) -> Config:
    """The configuration that a manifest at path records, with overrides on top; project: where the lock files are.

    Raises one ConfigError, whose details name every error.
    """
    draft = _Draft(path, Marked(value=dict(raw)))
    whole = dict(raw)
    _apply(whole, overrides, draft)
    config, bad = _validate(_with_paths(whole, project), draft)
    if config is not None:
        _combine(config, bad, draft)
        if not _touches("patroni", bad):
            _compare_with_lock(config, project / "requirements", draft)
    if draft.problems or config is None:
        raise _error(draft)
    return config


def settings_of(texts: Iterable[str], environment: str = "") -> list[Setting]:
    """The Settings of KEY=VALUE texts of the command line, and of the variable FOUNDRY_SET, which they override.

    Raises ConfigError for a text without "=".
    """
    try:
        words = [(word, "environment") for word in shlex.split(environment)]
    except ValueError as error:
        raise ConfigError(f"FOUNDRY_SET: {error}", hint="FOUNDRY_SET='build.cpus=4 build.memory_mib=4096'") from error
    found = []
    for text, source in [*words, *((t, "--set") for t in texts)]:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{source}: {text!r} is not KEY=VALUE", hint="for example --set build.memory_mib=4096")
        found.append(Setting(key.strip(), value, source))
    return found


def pick_image(config: Config, name: str | None) -> str:
    """The name of the image to work on: the one asked for, else the first. Raises ConfigError for an unknown one."""
    if not name:
        return config.default_image
    if name not in config.images:
        known = ", ".join(config.images)
        raise ConfigError(f"foundry.yml has no image {name!r}{_closest(name, config.images)}", hint=f"it has: {known}")
    return name


def explain(config: Config) -> list[Row]:
    """Every setting with its value and where that came from: "default", "foundry.yml:12", "--set" or "environment"."""
    rows: list[Row] = []

    def walk(key: Key, value: Any) -> None:
        if isinstance(value, dict) and value:
            for name, child in value.items():
                walk((*key, name), child)
        else:
            dotted = _dotted(key)
            rows.append(Row(dotted, value, config._sources.get(dotted, "default")))

    walk((), config.model_dump(mode="json"))
    return rows


def _error(draft: _Draft) -> ConfigError:
    lines = [text for _, text in sorted(draft.problems, key=lambda p: p[0])]
    hint = "docs/configuration.md has every key, type and default"
    if any("requirements/" in text for text in lines):
        hint = "`./inv lock` makes the lock files anew from foundry.yml"
    if len(lines) == 1:
        return ConfigError(lines[0], hint=hint)
    return ConfigError(f"{draft.path.name} has {len(lines)} errors", details="\n".join(lines), hint=hint)


def _apply(raw: dict[str, Any], overrides: Iterable[Setting], draft: _Draft) -> None:
    for setting in overrides:
        key: Key = tuple(setting.key.split("."))
        draft.sources[key] = setting.source
        parsed = marked_yaml.parse(setting.value)
        if parsed.problems:
            draft.add(key, f"{setting.value!r} {parsed.problems[0][2]}")
            continue
        place: Any = raw
        for step in key[:-1]:
            place = place.setdefault(step, {}) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[key[-1]] = parsed.value
        else:
            draft.add(key, "there is no such key")


def _with_consul(raw: dict[str, Any]) -> dict[str, Any]:
    """Give Debian's Consul its pin, unless another version is asked for: then its sha256 has to be given too."""
    consul = raw.get("consul", {})
    if not isinstance(consul, dict) or consul.get("source", "debian") != "debian":
        return raw
    pin = dict(settings.DEBIAN_CONSUL)
    if consul.get("version") not in (None, pin["version"]):
        del pin["sha256"]
    return {**raw, "consul": {**pin, **consul}}


def _with_paths(raw: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Read paths as relative to the folder of foundry.yml."""
    changed = dict(raw)
    for section, name in (("postgresql", "signed_by"), ("consul", "signed_by"), ("consul", "path")):
        values = changed.get(section)
        if isinstance(values, dict) and isinstance(values.get(name), str) and values[name]:
            changed[section] = {**values, name: str(folder.resolve() / values[name])}
    return changed


def _validate(raw: dict[str, Any], draft: _Draft) -> tuple[Config | None, list[Key]]:
    """The Config of raw and no bad keys; or one without the bad keys, so that the others can still be compared."""
    try:
        return Config.model_validate(raw), []
    except ValidationError as error:
        bad: list[Key] = []
        for item in error.errors(include_url=False):
            key = tuple(step for step in item["loc"] if step != "[key]")
            draft.add(key, _words(item, key))
            bad.append(key)
    pruned = {k: dict(v) if isinstance(v, dict) else v for k, v in raw.items()}
    pruned["images"] = {"unknown": {}}
    for key in bad:
        if key[0] == "images":
            continue
        if len(key) == 1:
            pruned.pop(str(key[0]), None)
        else:
            pruned[str(key[0])].pop(key[1], None)
    try:
        return Config.model_validate(pruned), [*bad, ("images",)]
    except ValidationError:
        return None, bad


def _combine(config: Config, bad: list[Key], draft: _Draft) -> None:
    for conflict in settings.conflicts(config):
        if not any(_touches(key, bad) for key in (conflict.key, *conflict.compared)):
            draft.add(tuple(conflict.key.split(".")), conflict.text)


def _touches(dotted: str, bad: list[Key]) -> bool:
    """Whether a key, one above it or one below it is among the bad ones."""
    key = tuple(dotted.split("."))
    return any(key[: len(b)] == b[: len(key)] for b in bad)


def _compare_with_lock(config: Config, folder: Path, draft: _Draft) -> None:
    try:
        wish = (folder / "patroni.in").read_text(encoding="utf-8")
        lock = (folder / "patroni.txt").read_text(encoding="utf-8")
    except OSError as error:
        draft.add(("patroni",), f"requirements/{Path(str(error.filename)).name}: {error.strerror}")
        return
    version = re.search(r"^patroni==(\S+)", lock, re.MULTILINE)
    if not version or version[1] != config.patroni.version:
        have = version[1] if version else "no Patroni"
        draft.add(("patroni", "version"), f"is {config.patroni.version}, but requirements/patroni.txt has {have}")
    extras = re.search(r"^patroni\[([^\]]*)\]", wish, re.MULTILINE)
    locked = sorted(e.strip() for e in extras[1].split(",")) if extras else []
    if locked != sorted(config.patroni.extras):
        text = f"is {sorted(config.patroni.extras)}, but requirements/patroni.in has {locked}"
        draft.add(("patroni", "extras"), text)


def _words(item: Mapping[str, Any], key: Key) -> str:
    """What a person reads for one of pydantic's errors."""
    kind, context, value = item["type"], item.get("ctx", {}), item.get("input")
    if kind == "extra_forbidden":
        names = _names_at(key[:-1])
        return f"unknown key{_closest(str(key[-1]), names) or '; here may stand: ' + ', '.join(names)}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        return f"must be {context['expected']}, not {_shown(value)}{_closest(str(value), allowed)}"
    if kind == "string_type":
        quote = "; write it in quotes" if isinstance(value, int | float) else ""
        return f"must be a text, not {_shown(value)}{quote}"
    if kind == "string_pattern_mismatch":
        named = [step for step in key if isinstance(step, str)]
        field = "images" if key == ("images", named[-1]) else named[-1]
        return f"{_PATTERNS.get(field, 'has a form that is not taken')}, not {_shown(value)}"
    if kind == "value_error":
        return f"{context['error']}" + ("" if isinstance(value, list | tuple) else f", not {_shown(value)}")
    simple = {
        "int_type": f"must be a whole number, not {_shown(value)}",
        "model_type": f"must be keys and values, not {_shown(value)}",
        "dict_type": f"must be keys and values, not {_shown(value)}",
        "tuple_type": f"must be a list, not {_shown(value)}",
        "is_instance_of": f"must be a path, not {_shown(value)}",
        "too_short": "must have at least one entry",
        "greater_than_equal": f"is too small; the least is {_bound(key, context.get('ge'))}",
        "less_than_equal": f"is too large; the most is {_bound(key, context.get('le'))}",
        "string_too_long": "is too long",
    }
    return simple.get(kind, str(item["msg"]))


_PATTERNS = {
    "images": "the name of an image must be small letters, digits and hyphens",
    "packages": "must be the name of a package",
    "suite": "must be the name of a suite",
    "uri": "must be an https:// address",
    "mirror": "must be an http:// or https:// address",
    "security_mirror": "must be an http:// or https:// address",
    "updates": "must be an http:// or https:// address",
    "sha256": "must be a sha256: 64 digits and letters a to f, in lower case",
    "version": "must be a version, such as 1.2.3",
}


def _bound(key: Key, number: Any) -> str:
    return f"{number // settings.GIB}GiB" if number and key[-1] == "disk_size" else str(number)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return "nothing" if value is None else str(value).lower()
    return repr(value)[:60]


def _names_at(key: Key) -> list[str]:
    """The keys that may stand below a key."""
    annotation: Any = Config
    for step in key:
        annotation = _inner(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            known = annotation.model_fields.get(str(step))
            annotation = known.annotation if known else None
        elif typing.get_origin(annotation) is dict:
            annotation = typing.get_args(annotation)[1]
    annotation = _inner(annotation)
    return list(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def _inner(annotation: Any) -> Any:
    if typing.get_origin(annotation) is Annotated:
        return typing.get_args(annotation)[0]
    if isinstance(annotation, types.UnionType):
        return next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation


def _closest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _dotted(key: Key) -> str:
    text = ""
    for step in key:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
