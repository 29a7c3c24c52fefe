"""Properties of reading and merging: they hold for whatever a file says."""

from __future__ import annotations

import copy
import string
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import assume, event, example, given
from hypothesis import strategies as st

from patroni_node import derivation, document, secret, tuning
from patroni_node.document import LATER, MAX_BYTES, Document, merge, merge_documents, parse
from patroni_node.errors import Key, NodeError
from patroni_node.hardware import MIB
from patroni_node.settings import read_document
from tests.unit.node.conftest import KEY, Node
from tests.unit.node.documents import ANYTHING, NUMBER, PRINTABLE, TEXT, often, written

CPU_SECONDS = 20
"""Of one reading; the largest file takes half of one where these tests were written."""

# Few names, so that mappings meet each other's keys; what they hold is of every kind.
NAMES = st.sampled_from("abc")
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(0, 9), st.lists(st.integers(0, 3), max_size=2))
TREES = st.recursive(LEAVES, lambda below: st.dictionaries(NAMES, below, max_size=3), max_leaves=12)
MAPPINGS = st.dictionaries(NAMES, TREES, max_size=3)
FILES = st.dictionaries(st.one_of(NAMES, st.just(LATER)), TREES, min_size=1, max_size=4)


def without_nulls(value: Any) -> Any:
    """What is left when nothing has to be removed any more: lists are values, and keep theirs."""
    if not isinstance(value, dict):
        return value
    return {name: without_nulls(below) for name, below in value.items() if below is not None}


def keys(value: Any, path: Key = ()) -> list[Key]:
    if not isinstance(value, dict):
        return [path]
    return [path, *(key for name, below in value.items() for key in keys(below, (*path, name)))]


def at(value: Any, path: Key) -> Any:
    for part in path:
        value = value[part]
    return value


def has(value: Any, path: Key) -> bool:
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


@given(MAPPINGS, MAPPINGS, st.booleans())
def test_merge_changes_neither_of_the_two(base: Any, over: Any, keep_null: bool) -> None:
    before = copy.deepcopy((base, over))
    merge(base, over, keep_null=keep_null)
    assert (base, over) == before


@given(MAPPINGS, st.booleans())
def test_merging_nothing_changes_nothing(base: Any, keep_null: bool) -> None:
    assert merge(base, {}, keep_null=keep_null) == base
    assert merge({}, base, keep_null=True) == base
    assert merge({}, base) == without_nulls(base)


@given(MAPPINGS, MAPPINGS)
def test_the_later_wins_and_null_removes(base: Any, over: Any) -> None:
    merged = merge(base, over)
    for key in keys(over)[1:]:
        value = at(over, key)
        if isinstance(value, dict):
            assert isinstance(at(merged, key), dict)
        elif value is None:
            assert not has(merged, key)
        else:
            assert at(merged, key) == value


@given(MAPPINGS, MAPPINGS, st.booleans())
def test_what_the_later_does_not_name_stays(base: Any, over: Any, keep_null: bool) -> None:
    merged = merge(base, over, keep_null=keep_null)
    for key in keys(base)[1:]:
        replaced = any(has(over, key[:n]) and not isinstance(at(over, key[:n]), dict) for n in range(1, len(key) + 1))
        if not replaced and not isinstance(at(base, key), dict):
            assert has(over, key) or at(merged, key) == at(base, key)
    named = set(keys(base)) | set(keys(over))
    assert set(keys(merged)) <= named, "nothing appears that neither of the two names"


@given(MAPPINGS, MAPPINGS)
def test_merging_twice_is_merging_once(base: Any, over: Any) -> None:
    once = merge(base, over)
    assert merge(once, over) == once


@given(MAPPINGS, MAPPINGS, MAPPINGS)
def test_kept_nulls_remove_when_their_time_has_come(base: Any, first: Any, second: Any) -> None:
    """A drop-in's patroni: over node.yml's, and both over patroni.yml, is one after the other over patroni.yml.

    But for a mapping where the earlier one has anything else: it merges with what patroni.yml has there.
    """
    clean = without_nulls(base)
    mappings = [key for key in keys(second) if isinstance(at(second, key), dict) and has(first, key)]
    assume(all(isinstance(at(first, key), dict) for key in mappings))
    one_by_one = merge(merge(clean, first), second)
    assert merge(clean, merge(first, second, keep_null=True)) == one_by_one


@given(st.lists(FILES, min_size=1, max_size=4))
def test_drop_ins_merge_one_after_another_in_their_order(node: Node, files: list[Any]) -> None:
    """docs/node.md: mappings merge key by key, null removes a key, lists and other values replace."""
    for path in node.paths.drop_ins.glob("*.yml"):
        path.unlink()
    node.write(written(files[0]))
    for number, content in enumerate(files[1:]):
        node.write(written(content), f"{number}0-more.yml")
    found = read_document(node.paths)
    expected = files[0]
    for content in files[1:]:
        later = merge(expected.get(LATER) or {}, content.get(LATER), keep_null=True)
        kept = {LATER: later} if isinstance(content.get(LATER), dict) else {}
        expected = {**merge(expected, content), **kept}
    assert found.data == expected
    names = [node.paths.node_file, *sorted(node.paths.drop_ins.glob("*.yml"))]
    for key in keys(found.data)[1:]:
        saying = [str(name) for name, content in zip(names, files, strict=True) if has(content, key)]
        assert found.marks[key].file == saying[-1], key


@given(st.lists(FILES, min_size=2, max_size=3))
def test_merge_documents_changes_neither_of_the_two(files: list[Any]) -> None:
    documents = [parse(written(content), f"{n}.yml") for n, content in enumerate(files)]
    before = copy.deepcopy(documents)
    merge_documents(documents[0], documents[1])
    assert documents == before


def refused(act: Callable[[], object]) -> NodeError | None:
    """How something was refused; None where it was not."""
    try:
        act()
    except NodeError as error:
        return error
    return None


def fit_for_a_terminal(error: NodeError) -> bool:
    """Whether it is one line or more for each problem, and each begins with where it is."""
    lines = str(error).split("\n")
    return len(lines) == len(error.problems) > 0 and all(line.isprintable() for line in lines)


def reads(text: str) -> Document | None:
    """Read a text: a document, or a refusal that a terminal can show; nothing else may happen, nor take long."""
    found: list[Document] = []
    begin = time.process_time()
    error = refused(lambda: found.append(parse(text, "node.yml")))
    assert time.process_time() - begin < CPU_SECONDS
    assert found or fit_for_a_terminal(error)
    return found[0] if found else None


# What YAML is made of, much more often than chance would bring it.
TOKENS = st.sampled_from(
    [
        "a",
        "b: ",
        ": ",
        "- ",
        "? ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "\n",
        "\n  ",
        "\t",
        "'",
        '"',
        "|\n",
        ">",
        "# ",
        "&a ",
        "*a",
        "!x ",
        "!!int ",
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        "\\",
        "\\ud83d",
        "\\x",
        "<<",
        "=",
        "~",
        "1:2",
        "2026-01-01",
        "@",
    ]
)
YAMLISH = st.one_of(st.text(max_size=60), st.lists(st.one_of(TOKENS, TEXT), max_size=25).map("".join))


@given(YAMLISH)
@often(4)
def test_any_text_is_read_or_refused(text: str) -> None:
    found = reads(text)
    event("read" if found else "refused")
    if found:
        assert all(isinstance(name, str) for key in keys(found.data) for name in key)
        assert all(key in found.marks for key in keys(found.data))
        assert all(1 <= mark.line <= len(text.splitlines()) + 1 for mark in found.marks.values())


@given(st.one_of(st.binary(max_size=80), YAMLISH.map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_any_bytes_are_read_or_refused(node: Node, raw: bytes) -> None:
    node.paths.node_file.write_bytes(raw)
    error = refused(lambda: document.read(node.paths.node_file))
    assert error is None or fit_for_a_terminal(error)


@given(st.lists(TOKENS, min_size=1, max_size=4).map("".join))
@often(0.25)
@example("[")
@example("- ")
@example("a: {")
@example("&a ")
@example("a: 1\n")
@example('"')
def test_the_largest_files_take_no_longer(piece: str) -> None:
    reads((piece * MAX_BYTES)[:MAX_BYTES])


HIDDEN = "hunter2Xy7Qw3r"


@given(st.lists(TOKENS, max_size=5).map("".join), st.lists(TOKENS, max_size=5).map("".join), st.sampled_from("'\" "))
@often(3)
def test_no_refusal_quotes_a_secret(before: str, after: str, quote: str) -> None:
    text = f"cluster: a\nsecrets:\n  key: {before}{quote}{HIDDEN}{after}{quote}\n"
    error = refused(lambda: parse(text, "node.yml"))
    for problem in error.problems if error else ():
        # A name is no secret, and no message is about anything else that it could be quoted for.
        assert any(HIDDEN in str(part) for part in problem.key) or HIDDEN not in str(problem)


@given(st.dictionaries(TEXT, ANYTHING, min_size=1, max_size=4))
def test_what_yaml_writes_is_read_back(data: dict[str, Any]) -> None:
    """Except that a date is text here, and 1:30 no number, so a text that looks like one of those is no difference."""
    text = written(data)
    assume(len(text.encode()) <= MAX_BYTES)
    assert parse(text, "f").data == data
    assert yaml.safe_load(text) == data


SIZES = st.tuples(st.integers(1, 999_999_999), st.sampled_from(("MB", "MiB", "GB", "GiB", "TB", "TiB")))


@given(SIZES)
def test_sizes_are_what_they_say(size: tuple[int, str]) -> None:
    number, unit = size
    scale = MIB * 1024 ** "MGT".index(unit[0])
    assert tuning.parse_size(f"{number}{unit}") == number * scale
    kilobytes = number * scale // 1024
    assert tuning._kilobytes(tuning.spell(kilobytes)) == kilobytes


@given(st.one_of(st.text(max_size=12), NUMBER.map(str)))
def test_what_is_no_size_is_refused(text: str) -> None:
    try:
        assert tuning.parse_size(text) > 0
    except ValueError:
        return
    assert text[0] in "123456789" and text.rstrip("MGTiB").isdecimal()


CLUSTERS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20)
KEYS = PRINTABLE.map(lambda text: KEY + text)


@given(KEYS, CLUSTERS, KEYS, CLUSTERS)
def test_derived_secrets_are_good_and_differ(key: str, cluster: str, other: str, elsewhere: str) -> None:
    found = derived(key, cluster)
    assert found == derived(key, cluster)
    assert len(set(found.values())) == len(found)
    for purpose, text in found.items():
        assert secret.weakness(purpose.removesuffix(" 2"), text) is None
        assert key not in text
    if (key, cluster) != (other, elsewhere):
        assert not set(found.values()) & set(derived(other, elsewhere).values())


def derived(key: str, cluster: str) -> dict[str, str]:
    """The texts of both versions; what is a purpose of version 2 has its name behind it."""
    one, two = (derivation.derive(key, cluster, version) for version in (1, 2))
    tokens = {"consul_token": str(two.agent), "management": str(two.management)}
    again = {f"{name} 2": text for name, text in two.passwords.items()}
    return {**one.passwords, "gossip": one.gossip, **again, "gossip 2": two.gossip, **tokens}


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=20), st.integers(1, 255 * 32))
def test_hkdf_gives_less_of_the_same(key: bytes, salt: bytes, info: bytes, length: int) -> None:
    """RFC 5869, section 2.3: OKM is the first L octets of T."""
    found = derivation.hkdf_sha256(key, salt, info, length)
    assert len(found) == length
    assert derivation.hkdf_sha256(key, salt, info, 255 * 32).startswith(found)


@pytest.mark.parametrize("length", [0, -1, 255 * 32 + 1])
def test_hkdf_has_an_end(length: int) -> None:
    with pytest.raises(ValueError, match="HKDF"):
        derivation.hkdf_sha256(b"k", b"", b"", length)
