"""What docs/ says is so: node.yml's keys and sentences, its examples, and the links between the pages."""

from __future__ import annotations

import ast
import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patroni_node import document, packet_filter, schema, settings
from patroni_node.errors import NodeError
from patroni_node.model import Settings
from patroni_node.paths import schema_file

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / "docs/node.md"
EXAMPLE = ROOT / "files/usr/share/patroni-node/node.example.yml"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

PLACEHOLDER = "replace-with-a-long-random-key"
SECRET = "p7Vw2kQz9Rt4Lx8Bn6Hd"
LEAST = f"cluster: pg-15-cluster\nsecrets:\n  key: {SECRET}\nnetworks: [10.129.0.0/24]\n"

CODE = re.compile(r"(`+)(.+?)\1")


def keys(part: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every key path below a schema with what it may hold and whether it is required, $ref followed."""
    for name, own in part.get("properties", {}).items():
        found = dict(own)
        if "$ref" in own:
            target = schema.load_schema()
            for step in own["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            found = {**target, **own}
        for part_of in found.get("allOf", ()):
            found = {**schema.load_schema()["definitions"][part_of["$ref"].rpartition("/")[2]], **found}
        key = f"{path}.{name}" if path else name
        yield key, found, name in part.get("required", [])
        # What a text can be replaced with is described once, for all of them.
        if not str(own.get("$ref", "")).endswith(("/source", "/pem")):
            yield from keys(found, key)


SCHEMA = {key: (found, required) for key, found, required in keys(schema.load_schema())}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def tables(text: str, first: str) -> Iterator[list[str]]:
    """The rows of all tables whose first column is headed so."""
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
        elif line.startswith(f"| {first} |"):
            inside = True
        elif inside and not line.startswith("|---"):
            yield cells(line)


ROWS = {row[0].strip("`"): row for row in tables(NODE.read_text(), "key")}


@pytest.mark.parametrize("key", SCHEMA)
def test_every_key_is_described_with_its_type_and_default(key: str) -> None:
    found, required = SCHEMA[key]
    if key not in ROWS:
        parent, _, name = key.rpartition(".")
        assert f"`{name}`" in " ".join(ROWS.get(parent, [])), f"docs/node.md has no row for {key}"
        return
    _, kind, default, meaning, tutorial = ROWS[key]
    assert meaning and tutorial
    words = [word for word in found.get("enum", []) if isinstance(word, str)]
    limits = [found[limit] for limit in ("minimum", "maximum") if limit in found]
    assert [text for text in (*words, *map(str, limits)) if text not in kind] == []
    if required:
        assert default == "**required**" or default.startswith("**required** in")
    elif "default" in found:
        shown = json.dumps(found["default"]).strip('"')
        assert default == f"`{shown}`"
    else:
        assert default


def test_no_key_is_described_that_the_schema_does_not_have() -> None:
    assert [key for key in ROWS if key not in SCHEMA and not key.startswith("{")] == []
    assert {"{file: …}", "{credential: …}"} <= set(ROWS)


def examples(page: Path) -> list[tuple[int, str]]:
    """The blocks marked as yaml, with the line that each begins in."""
    text = page.read_text()
    return [
        (text.count("\n", 0, m.start()) + 2, m[1])
        for m in re.finditer(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


PAGES_WITH_EXAMPLES = (NODE, ROOT / "docs/migrating.md")
EXAMPLES = [
    *[(f"{page.name}:{line}", text) for page in PAGES_WITH_EXAMPLES for line, text in examples(page)],
    (EXAMPLE.name, EXAMPLE.read_text()),
]


def built(text: str, name: str) -> Settings:
    """A whole node.yml, or a part of one: what else it needs is added."""
    given = document.parse(text, name)
    if "cluster" not in given.data:
        given = document.merge_documents(document.parse(LEAST, "least"), given)
    return settings.build(given)


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_examples_are_accepted(name: str, text: str) -> None:
    assert built(text.replace(PLACEHOLDER, SECRET), name).cluster


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_examples_hold_no_secret_that_works(name: str, text: str) -> None:
    if PLACEHOLDER in text:
        with pytest.raises(NodeError, match="well-known or example value"):
            built(text, name)
    given = document.parse(text, name).data.get("secrets", {})
    assert all(isinstance(value, dict) or value == PLACEHOLDER for value in given.values())


def test_what_the_example_leaves_out_is_accepted_too() -> None:
    text = re.sub(r"^# (?=[a-z]+: )", "", EXAMPLE.read_text().replace(PLACEHOLDER, SECRET), flags=re.MULTILINE)
    assert built(text, EXAMPLE.name).name
    assert set(document.parse(text, "").data) == {key for key in SCHEMA if "." not in key}


def named(value: Any, path: str = "") -> Iterator[str]:
    for name, below in value.items():
        key = f"{path}.{name}" if path else name
        yield key
        if isinstance(below, dict):
            yield from named(below, key)


def test_every_key_has_an_example() -> None:
    shown = {key for _, text in examples(NODE) for key in named(document.parse(text, "").data)}
    assert set(SCHEMA) - shown == set()


def sentences() -> set[str]:
    """All texts in the node's program and schema, with … for what is put in at run time."""
    found: set[str] = set()
    for path in (ROOT / "patroni_node").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                found.add("".join(str(part) for part in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value.replace("{}", "…"))
    return found | set(re.findall(r'"errorMessage": "(.*)"', schema_file().read_text()))


def test_refusals_are_quoted_as_they_are() -> None:
    said = [span for row in tables(NODE.read_text(), "it says") for _, span in CODE.findall(row[0]) if " " in span]
    assert len(said) > 60
    real = sentences()
    patterns = {span: re.compile(".*".join(re.escape(part) for part in span.split("…"))) for span in said}
    assert [span for span, pattern in patterns.items() if not any(pattern.search(text) for text in real)] == []


def test_the_table_of_ports_is_what_the_packet_filter_says() -> None:
    script = packet_filter.ruleset([], [], ipaddress.ip_address("10.129.0.21"), consul=True)
    found: dict[str, set[str]] = {"ask": set(), "refuse": set()}
    for kind, ports, chain in re.findall(r"(tcp|udp) dport (.+) goto (\w+)", script):
        found[chain] |= {f"{port} {kind.upper()}" for port in ports.strip("{ }").split(", ")}
    table: dict[str, set[str]] = {"ask": set(), "refuse": set()}
    for number, _, _, whom in tables(NODE.read_text(), "port"):
        port, *kinds = number.replace(",", "").split()
        table["refuse" if whom == "the node itself" else "ask"] |= {f"{port} {kind}" for kind in kinds}
    assert table == found


def anchor(heading: str) -> str:
    """A heading's anchor as GitHub makes it: small letters, no punctuation, hyphens for spaces."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def prose(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"(?<!\\)\[[^]]*\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, part = target.partition("#")
        other = page.parent / name if name else page
        if not other.exists() or (part and part not in anchors(other)):
            broken.append(target)
    assert broken == []
