"""The pages: they say what they shall, whatever is in it stays text, and the same values give the same bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry.console import clean
from foundry.errors import FoundryError
from foundry.evidence import Unit
from foundry.publish import diff, page
from foundry.publish.version import File
from foundry.verify import Outcome, Verdict
from tests.unit.publish.made_versions import BOOT, NASTY, manifest, version

ROOT = Path(__file__).parents[3]
LAUNCHING = (ROOT / "docs/launching.md").read_text(encoding="utf-8")
STYLE = (ROOT / "foundry/publish/style.css.j2").read_text(encoding="utf-8")
DISK = "debian-12-20261124-aaaaaaaa.qcow2"
VOID = {"meta", "link", "br", "img", "input"}


class Read(HTMLParser):
    """What a page is made of: its tags with the names of their attributes, their links, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.skeleton: list[str] = []
        self.links: list[str] = []
        self.attributes: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.skeleton.append(f"<{tag} {' '.join(name for name, _ in attrs)}>")
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        self.attributes += [value or "" for _, value in attrs]
        if tag not in VOID and tag not in ("rect", "line", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.skeleton.append(f"</{tag}>")
        if tag in ("rect", "line", "circle"):
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


OUTCOMES = (
    Outcome("test_boot.py::test_no_unit_failed", "booted", "passed", 35.196),
    Outcome("test_boot.py::test_service_is_active_and_enabled[consul.service]", "booted", "passed", 0.01),
    Outcome("test_node.py::test_modes", "booted", "passed", 1.0),
    Outcome("test_reboot.py::test_identity_lasts", "rebooted", "passed", 30.0),
)
NOW = "2026-11-24T14:52:51+00:00"
VERDICT = Verdict(
    image="a" * 64,
    file=DISK,
    suite="e" * 64,
    machine="vm",
    firmware="bios",
    accelerator="tcg",
    host={"cpu": "AMD EPYC", "qemu": "QEMU emulator version 7.2.22"},
    started=NOW,
    ended=NOW,
    boot_seconds=61.8,
    reboot_seconds=48.0,
    seconds=212.0,
    outcomes=OUTCOMES,
)
FILES = tuple(
    File(name, 1234, "f" * 64)
    for name in ("manifest.json", "verdict.json", "sbom.cdx.json", "sbom.spdx.json", "provenance.json", "index.html")
)


def rendered(values: dict[str, Any] | None = None, **changes: Any) -> str:
    """The page of the version that nobody built."""
    files = changes.pop("files", FILES)
    told: dict[str, Any] = {
        "verdict": VERDICT,
        "boot": (BOOT, replace(BOOT, phase="rebooted")),
        "console": "[    0.000000] Linux version 6.1\n[  OK  ] Started patroni.service.\n",
        "diff": None,
        "launching": LAUNCHING,
    }
    return page.render(version(values or manifest(), *files), **{**told, **changes})


def test_what_people_look_for_is_on_the_page() -> None:
    text = Read(rendered(licences={"bash": "GPL-3+", "psycopg2-2.9.13.tar.gz": "LGPL-3"}, fingerprint="AAAA BBBB")).text
    for words in (
        "debian-12 20261124-aaaaaaaa",
        "PostgreSQL 15.9-0+deb12u1",
        "Patroni 4.1.5",
        "built on 2026-11-24 at 14:49 UTC",
        "4 of 4",
        "278.3 MB",
        "This is the first version",
        "no unit failed passed 35.2 s",
        "service is active and enabled: consul.service passed 0 s",
        "Boot 2 of 2 35.2 s",
        "First boot: 48.0 s",
        "After a restart: 48.0 s",
        "at 50.0 s",
        "bash 5.2.15-2+b13 amd64 GPL-3+",
        "psycopg2 2.9.13 LGPL-3",
        "Licences are known for 2 of them",
        "Started patroni.service.",
        "gpgv --keyring ./key.gpg SHA256SUMS.gpg SHA256SUMS sha256sum --check --ignore-missing SHA256SUMS",
        "AAAA BBBB",
        "CycloneDX 1.6, sbom.cdx.json ; SPDX 2.3, sbom.spdx.json",
        "d" * 40,
        f"{DISK} 278.3 MB {'a' * 64}",
        "mke2fs 1.47.0 (5-Feb-2023)",
        "virt-install",
        "qm importdisk",
        "openstack image create",
    ):
        assert words in text, words


def test_every_check_is_on_the_page() -> None:
    found = Read(rendered()).attributes
    assert [a for a in found if "::" in a] == [f"{o.phase} {o.name}" for o in OUTCOMES]


def test_a_failed_check_says_why_and_is_open() -> None:
    bad = replace(OUTCOMES[2], outcome="failed", message="assert 0644 == 0600")
    found = rendered(verdict=replace(VERDICT, outcomes=(*OUTCOMES[:2], bad, OUTCOMES[3])))
    assert "assert 0644 == 0600" in found and "not passed" in found
    summary = found.index("<b>Node</b>")
    assert found.rindex("<details", 0, summary) == found.rindex("<details open>", 0, summary)
    assert "not passed" not in rendered()


def test_what_was_only_needed_to_build_is_not_listed() -> None:
    values = manifest()
    values["wheels"].append({"name": "flit_core-3.12.0-py3-none-any.whl", "sha256": "0" * 64, "shipped": False})
    text = Read(rendered(values)).text
    assert "flit" not in text and "4 of Debian, 2 of Python" in text


def test_a_page_does_not_name_its_own_digest() -> None:
    assert "./index.html" not in Read(rendered()).links
    assert "./manifest.json" in Read(rendered()).links


def test_only_files_that_are_there_are_linked() -> None:
    names = {link.removeprefix("./") for link in Read(rendered(files=())).links if link.startswith("./")}
    assert names == {DISK, "SHA256SUMS", "SHA256SUMS.gpg"}


def test_no_address_of_anybody_else() -> None:
    found = Read(rendered(files=(*FILES, File("javascript:alert(1)", 1, "f" * 64))))
    assert found.links
    assert [link for link in found.links if not link.startswith(("#", "./", "../../../", "data:,"))] == []
    assert "url(" not in STYLE and "@import" not in STYLE
    assert "default-src 'none'" in rendered()


def changed(**values: Any) -> diff.Diff:
    return replace(diff.Diff("debian-12", "20261101-00000000", "20261124-aaaaaaaa"), **values)


def test_what_changed() -> None:
    change = diff.Change("bash", "upgraded", "5.2.14-1", "5.2.15-2+b13")
    disk = diff.Change("qcow2", "changed", 278_000_000, 278_265_856)
    text = Read(rendered(diff=changed(packages=(change,), disks=(disk,)))).text
    assert "Since 20261101-00000000: 1 Debian package upgraded Name What bash 5.2.14-1 → 5.2.15-2+b13" in text
    assert "Size: qcow2: 278.0 MB → 278.3 MB (+265.9 kB)." in text
    assert "Compared with 20261101-00000000: no difference." in Read(rendered(diff=changed())).text


def test_what_the_provenance_says_of_the_builder() -> None:
    statement = {
        "predicate": {
            "buildDefinition": {"buildType": "https://example.org/build", "resolvedDependencies": [{}, {}]},
            "runDetails": {"builder": {"id": "https://example.org/builder"}, "metadata": {"startedOn": NOW}},
        }
    }
    text = Read(rendered(provenance=statement)).text
    assert f"Builder https://example.org/builder Kind of build https://example.org/build Started {NOW}" in text
    assert "Inputs with digests 2" in text
    assert "Builder" not in Read(rendered(provenance={"predicate": None})).text


def test_without_boots_and_with_kvm() -> None:
    text = Read(rendered(boot=(), verdict=replace(VERDICT, accelerator="kvm"))).text
    assert "No boot timeline was kept." in text
    assert "under KVM" in text and "emulated" not in text


def test_the_same_values_give_the_same_bytes() -> None:
    values = manifest()
    values["packages"].reverse()
    values["wheels"].reverse()
    values["tools"] = dict(reversed(values["tools"].items()))
    assert rendered(values, files=FILES[::-1]) == rendered()


def nasty(text: str) -> str:
    """A page with that text wherever a value may come from elsewhere."""
    values = manifest()
    values["packages"].append({"name": f"p{text}", "version": f"v{text}", "arch": f"a{text}", "sha256": "0" * 64})
    values["wheels"].append({"name": f"w{text}", "sha256": "0" * 64})
    values["tools"] = {f"t{text}": f"t{text}"}
    values["inputs"]["commit"] = f"c{text}"
    values["inputs"]["debs"] = [{"name": f"d{text}", "sha256": "0" * 64}]
    values["suite"] = f"s{text}"
    values["files"].append({"name": f"d{text}.qcow2", "size": 1, "sha256": "0" * 64})
    values["files"].reverse()
    outcome = Outcome(f"test_x.py::test_{text}", "booted", f"o{text}", 1.0, f"m{text}")
    change = diff.Change(f"n{text}", "changed", f"o{text}", f"n{text}")
    unit = Unit(f"u{text}.service", 1000, 9000)
    boot = replace(BOOT, units=(*BOOT.units, unit), milestones={f"m{text}": 5000})
    return rendered(
        values,
        files=(*FILES, File(f"f{text}", 1, f"d{text}")),
        verdict=replace(VERDICT, outcomes=(*OUTCOMES[:3], outcome), host={f"h{text}": f"h{text}"}, suite=f"s{text}"),
        boot=(boot,),
        console=f"c{text}",
        diff=changed(packages=(change,), old=f"o{text}"),
        licences={"bash": f"l{text}"},
        fingerprint=f"f{text}",
        provenance={"predicate": {"runDetails": {"builder": {"id": f"b{text}"}}}},
    )


PLAIN = Read(nasty("x"))


def same(text: str) -> None:
    found = Read(nasty(text))
    assert found.skeleton == PLAIN.skeleton
    assert [link for link in found.links if not link.startswith(("#", "./", "../../../", "data:,"))] == []
    assert found.open == []
    # It is there nevertheless, and to be read.
    assert " ".join(f"c{clean(text)}".split()) in found.text
    assert [c for c in "".join(found.texts) if not c.isprintable() and c != "\n"] == []


@pytest.mark.parametrize("text", NASTY)
def test_no_known_trick_becomes_markup(text: str) -> None:
    same(text)


@given(st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=12)), max_size=3).map("".join))
def test_no_text_becomes_markup(text: str) -> None:
    same(text)


def test_the_commands_are_those_of_the_docs() -> None:
    found = dict(page.launch(LAUNCHING, version(manifest())))
    assert tuple(found) == page.LAUNCHING
    commands = {title: "\n".join(p.text for p in pieces if p.code) for title, pieces in found.items()}
    for text in commands.values():
        assert "…" not in text and "build/images" not in text
    for words in ("image=$PWD/", "cp ", "qm importdisk 121 ", "--file "):
        assert any(f"{words}{DISK}" in text for text in commands.values()), words
    # All that is not the disk's name stands in the docs as it stands here.
    for line in "\n".join(commands.values()).splitlines():
        assert DISK in line or line in LAUNCHING
    prose = [p.text for p in found["Plain QEMU"] if not p.code]
    assert prose[0].startswith("A cluster of one.") and all("](" not in text for text in prose)


def test_a_section_that_is_not_there_is_missed() -> None:
    with pytest.raises(FoundryError, match="no commands in a section called Proxmox"):
        page.launch(LAUNCHING.replace("## Proxmox", "## Proxmox VE"), version(manifest()))


def test_prose_keeps_its_words_and_loses_its_links() -> None:
    text = "".join(f"## {title}\nSee [node.md](node.md) and `x`.\n\n```sh\nls\n```\n" for title in page.LAUNCHING)
    found = page.launch(text, version(manifest()))
    pieces = [page.Piece("See node.md and `x`.", code=False), page.Piece("ls", code=True)]
    assert found == [(title, pieces) for title in page.LAUNCHING]
    assert "<p>See node.md and <code>x</code>.</p>" in rendered(launching=text)


def test_licences_are_counted() -> None:
    given = {"bash": "MIT", "tzdata": "Apache-2.0", "patroni-node": "MIT", "postgresql-15": "public-domain", "no": "X"}
    text = Read(rendered(licences=given)).text
    assert "3 licences Licence Packages MIT 2 Apache-2.0 1 public-domain 1 " in text


def test_a_raw_disk_gets_no_commands_of_a_qcow2() -> None:
    values = manifest()
    values["files"][0]["name"] = "debian-12-20261124-aaaaaaaa.raw"
    assert page.launch(LAUNCHING, version(values)) == []
    assert "This version has no qcow2." in rendered(values)


def listed(number: str) -> page.Listed:
    return page.Listed(number, datetime(2026, 11, 24, 16, 48, tzinfo=UTC), 278_134_784, 120)


def test_the_index_of_a_store() -> None:
    images = {"ubuntu": [], "debian-12": [listed("20261124-bbbbbbbb"), listed("20261101-aaaaaaaa")]}
    channels: Mapping[str, Mapping[str, str]] = {"debian-12": {"stable": "20261101-aaaaaaaa"}}
    found = Read(page.index(images, channels, fingerprint="AAAA"))
    assert "debian-12 stable 20261101-aaaaaaaa Version Built" in found.text
    assert "20261124-bbbbbbbb 2026-11-24 16:48 278.1 MB 120 20261101-aaaaaaaa" in found.text
    assert found.text.index("debian-12") < found.text.index("ubuntu No version yet.")
    assert found.links.count("./images/debian-12/20261101-aaaaaaaa/index.html") == 2
    assert "Nothing is published here yet." in page.index({}, {})
    strange = Read(page.index({"a#b": [listed("c?d")]}, {"a#b": {"stable": "e%f"}})).links
    assert {"./images/a%23b/c%3Fd/index.html", "./images/a%23b/e%25f/index.html"} < set(strange)


@given(st.one_of(st.sampled_from(NASTY), st.text(min_size=1, max_size=12)))
def test_no_text_becomes_markup_in_the_index(text: str) -> None:
    def read(words: str) -> Read:
        return Read(page.index({words: [listed(words)]}, {words: {words: words}}, fingerprint=words))

    found = read(f"v{text}")
    assert found.skeleton == read("v").skeleton
    assert all(link.startswith(("./", "data:,")) for link in found.links)


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, two: str) -> float:
    """WCAG 2.2, "contrast ratio"."""
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_letters_can_be_read(scheme: int) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text; 1.4.11: 3 to 1 for parts of pictures."""
    colours = dict(
        re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", STYLE.split("* { box-sizing")[0].split("@media")[scheme])
    )
    for letters in ("text", "soft", "accent"):
        for ground in ("ground", "panel"):
            assert contrast(colours[letters], colours[ground]) >= 4.5, (letters, ground)
    for kind in ("good", "bad"):
        assert contrast(colours[kind], colours[f"{kind}-ground"]) >= 4.5, kind
    for bar in ("unit", "waited", "kernel", "initrd", "userspace", "moment"):
        assert contrast(colours[bar], colours["rail"]) >= 2, bar
        assert contrast(colours[bar], colours["ground"]) >= 2.5, bar
