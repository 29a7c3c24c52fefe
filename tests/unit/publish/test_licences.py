from __future__ import annotations

from pathlib import Path

import pytest

from foundry.publish import licences
from tests.unit.publish.small_image import BASH, FREE, MIT, put

HEAD = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"


def of(root: Path, text: str) -> licences.Licence:
    put(root, "usr/share/doc/foo/copyright", text)
    return licences.of_package(root, "foo", "foosource")


def stanza(synopsis: str, text: str = "", files: str = "*") -> str:
    body = "".join(f" {line}\n" if line else " .\n" for line in text.splitlines())
    return f"Files: {files}\nCopyright: 2020 Somebody\nLicense: {synopsis}\n{body}\n"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-2", "GPL-2.0-only"),
        ("GPL-2.0", "GPL-2.0-only"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("gpl-3.0.0+", "GPL-3.0-or-later"),
        ("AGPL-3", "AGPL-3.0-only"),
        ("GFDL-1.3+", "GFDL-1.3-or-later"),
        ("GFDL-NIV-1.3", "GFDL-1.3-no-invariants-only"),
        ("Expat", "MIT"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("Apache-2", "Apache-2.0"),
        ("CC0", "CC0-1.0"),
        ("ZLIB", "Zlib"),
        ("PostgreSQL", "PostgreSQL"),
        ("GPL-2 with Linux-syscall-note exception", "GPL-2.0-only WITH Linux-syscall-note"),
        ("GPL-2+ with Font exception", "GPL-2.0-or-later WITH Font-exception-2.0"),
        ("GPL-1+ or BSD-3-clause", "GPL-1.0-or-later OR BSD-3-Clause"),
        # copyright-format 1.0, section 7.2: "and" binds closer, unless a comma stands before it.
        ("ISC or Zlib and Expat", "ISC OR (Zlib AND MIT)"),
        ("ISC or Zlib, and Expat", "(ISC OR Zlib) AND MIT"),
        ("ISC AND Zlib and ISC", "ISC AND Zlib"),
    ],
)
def test_what_debian_calls_a_licence_that_spdx_has(tmp_path: Path, said: str, meant: str) -> None:
    found = of(tmp_path, HEAD + stanza(said, "Some text."))
    assert (found.expression, found.texts) == (meant, ())
    assert found.listed


@pytest.mark.parametrize(
    "said",
    [
        *("GPL", "Artistic", "public-domain", "MIT", "GPL-3+ with Bison exception"),
        *("LGPL-2.1 or later", "ISC and/or Zlib", "ISC or Zlib, and Expat, or curl", "the usual terms"),
    ],
)
def test_what_could_mean_several_things_keeps_its_text(tmp_path: Path, said: str) -> None:
    found = of(tmp_path, HEAD + stanza(said, "Do as you like."))
    ((ref, text),) = found.texts
    assert found.expression == ref and ref.startswith("LicenseRef-")
    assert text.strip() == "Do as you like."
    assert not found.listed


def test_a_choice_of_something_listed_and_something_explained(tmp_path: Path) -> None:
    text = HEAD + stanza("GPL-1+ or Artistic") + "License: Artistic\n The Artistic License.\n"
    found = of(tmp_path, text)
    ((ref, body),) = found.texts
    assert found.expression == f"GPL-1.0-or-later OR {ref}"
    assert body.strip() == "The Artistic License."


def test_mit_is_taken_by_its_text_alone(tmp_path: Path) -> None:
    assert of(tmp_path, HEAD + stanza("MIT", MIT)).expression == "MIT"
    more = MIT + "\nExcept as contained in this notice, the name of Somebody shall not be used.\n"
    assert str(of(tmp_path, HEAD + stanza("MIT", more)).expression).startswith("LicenseRef-MIT-")
    less = MIT.replace("without restriction, including", "with restrictions, including")
    assert str(of(tmp_path, HEAD + stanza("MIT", less)).expression).startswith("LicenseRef-MIT-")


def test_all_paragraphs_hold_at_once_and_each_is_named_once(tmp_path: Path) -> None:
    text = HEAD + stanza("GPL-2+ or ISC") + stanza("Expat and Zlib", files="a") + stanza("Zlib", files="b")
    assert of(tmp_path, text).expression == "(GPL-2.0-or-later OR ISC) AND MIT AND Zlib"


def test_a_file_for_people_is_kept_whole(tmp_path: Path) -> None:
    found = of(tmp_path, FREE)
    ((ref, text),) = found.texts
    assert found.expression == ref and ref.startswith("LicenseRef-copyright-foosource-")
    assert text == FREE.strip("\n")


def test_a_file_that_only_looks_machine_readable_is_kept_whole(tmp_path: Path) -> None:
    broken = HEAD + "Files: *\nCopyright: 2020 Somebody\n\n" + stanza("GPL-2+", files="a")
    ((_, text),) = of(tmp_path, broken).texts
    assert text == broken.strip("\n")


def test_no_copyright_file_says_nothing(tmp_path: Path) -> None:
    assert licences.of_package(tmp_path, "foo", "foo") == licences.Licence()


def test_a_link_leads_to_another_packages_file_but_never_out_of_the_image(tmp_path: Path) -> None:
    secret = put(tmp_path, "outside/copyright", BASH)
    root = tmp_path / "root"
    put(root, "usr/share/doc/bash/copyright", BASH)
    for name, target in {
        "near": "bash",
        "far": "/usr/share/doc/bash",
        "up": "../../../../../../../usr/share/doc/bash",
        "host": str(secret.parent),
        "round": "round",
    }.items():
        (root / "usr/share/doc" / name).symlink_to(target)
    found = {n: licences.of_package(root, n, n).expression for n in ("near", "far", "up", "host", "round")}
    gpl = "GPL-3.0-or-later"
    assert found == {"near": gpl, "far": gpl, "up": gpl, "host": None, "round": None}


def wheel(folder: Path, fields: str, **files: str) -> licences.Licence:
    info = folder / "foo-1.dist-info"
    put(info, "METADATA", f"Metadata-Version: 2.4\nName: foo\nVersion: 1\n{fields}\n")
    for name, text in files.items():
        put(info, f"licenses/{name}", text)
    return licences.of_wheel(info)


APACHE = "Classifier: License :: OSI Approved :: Apache Software License\n"
MIT_CLASSIFIER = "Classifier: License :: OSI Approved :: MIT License\n"


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ("License-Expression: mit and (apache-2.0 or bsd-2-clause)", "MIT AND (Apache-2.0 OR BSD-2-Clause)"),
        (f"License: BSD-3-Clause\n{MIT_CLASSIFIER}", "BSD-3-Clause"),
        (MIT_CLASSIFIER, "MIT"),
        (f"Classifier: License :: OSI Approved\n{MIT_CLASSIFIER}", "MIT"),
        (f"License: UNKNOWN\n{MIT_CLASSIFIER}", "MIT"),
    ],
)
def test_what_a_wheels_metadata_says(tmp_path: Path, fields: str, meant: str) -> None:
    found = wheel(tmp_path, fields, LICENSE="Some text")
    assert (found.expression, found.texts) == (meant, ())


@pytest.mark.parametrize("fields", [APACHE, MIT_CLASSIFIER + APACHE, "License: Apache 2", "License: LGPLv2+", ""])
def test_pep_639_forbids_to_infer_from_what_is_ambiguous(tmp_path: Path, fields: str) -> None:
    found = wheel(tmp_path, fields, LICENSE="Some text", NOTICE="A notice")
    ((ref, text),) = found.texts
    assert found.expression == ref and ref.startswith("LicenseRef-foo-")
    assert "Some text" in text and "A notice" in text


def test_a_wheels_own_reference_gets_its_text(tmp_path: Path) -> None:
    found = wheel(tmp_path, "License-Expression: MIT OR LicenseRef-Own", LICENSE="Our own terms")
    ((ref, text),) = found.texts
    assert found.expression == f"MIT OR {ref}" and ref.startswith("LicenseRef-Own-")
    assert text == "Our own terms"


def test_a_wheel_that_says_nothing(tmp_path: Path) -> None:
    assert wheel(tmp_path, "") == licences.Licence()


def test_a_wheel_whose_only_licence_file_is_mits(tmp_path: Path) -> None:
    assert wheel(tmp_path, "License: The MIT License", LICENSE=MIT).expression == "MIT"
