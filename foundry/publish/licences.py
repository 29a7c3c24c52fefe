"""Under which terms a part of an image may be used, in SPDX's words, as its own files say it.

A term becomes an SPDX identifier only where a specification says that both mean the same, or where the licence's text
is the one that SPDX has. Anything else becomes a LicenseRef that carries the text, and what says nothing has no
licence here: NOASSERTION in the documents. Nothing is guessed.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

from cyclonedx import spdx
from license_expression import get_spdx_licensing  # type: ignore[import-untyped]
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from debian import copyright as machine_readable
from foundry import tree

# python-debian complains there about copyright files that are nearly right, and people would read it on their terminal.
logging.getLogger(machine_readable.__name__).addHandler(logging.NullHandler())

# copyright-format 1.0, section 7.1: what its names mean where SPDX has another one. "MIT" is none of its names, for
# there are many licences of that name. "Artistic" is none here: SPDX knows three of version 1.0.
_DEBIAN_NAMES = {"expat": "MIT", "cc0": "CC0-1.0", "python-cnri": "CNRI-Python", "mit": None}
_GNU = re.compile(r"(gpl|lgpl|agpl|gfdl|gfdl-niv)-(\d+(?:\.\d+)*)(\+?)")
_EXCEPTION = re.compile(r"(\S+) with (\S+) exception", re.IGNORECASE)

# PEP 639, appendix "Mapping License Classifiers to SPDX Identifiers": those that name one licence. Of what it calls
# ambiguous ("BSD License", "Apache Software License", …) nothing may be inferred.
_CLASSIFIERS = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "ISC License (ISCL)": "ISC",
    "zlib/libpng License": "Zlib",
    "The Unlicense (Unlicense)": "Unlicense",
    "PostgreSQL License": "PostgreSQL",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
}

# https://spdx.org/licenses/MIT.html from the grant on; the copyright line and the title vary (matching guidelines).
MIT_TEXT = """\
permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "software"), to deal in the software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the software, and to permit
persons to whom the software is furnished to do so, subject to the following conditions: the above copyright notice
and this permission notice shall be included in all copies or substantial portions of the software. the software is
provided "as is", without warranty of any kind, express or implied, including but not limited to the warranties of
merchantability, fitness for a particular purpose and noninfringement. in no event shall the authors or copyright
holders be liable for any claim, damages or other liability, whether in an action of contract, tort or otherwise,
arising from, out of or in connection with the software or the use or other dealings in the software."""


@dataclass(frozen=True)
class Licence:
    """The terms of one component.

    expression: an SPDX licence expression, or None where nothing is said. texts: for each LicenseRef of it the name and
    the text, as its authors wrote it. said_in: where that was read, for people.
    """

    expression: str | None = None
    texts: tuple[tuple[str, str], ...] = ()
    said_in: str = ""

    @property
    def listed(self) -> bool:
        """Whether SPDX's own list has all of it."""
        return self.expression is not None and not self.texts


class _Unclear(Exception):
    """This synopsis cannot be taken apart."""


def of_package(root: Path, package: str, source: str) -> Licence:
    """The licence of a Debian package whose image's files lie in root: of all that its source package holds.

    source: the source package's name, for the LicenseRef of a copyright file that only people can read.
    """
    path = tree.inside(root, f"usr/share/doc/{package}/copyright")
    if path is None or not path.is_file():
        return Licence()
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return _machine_readable(text)
    except (machine_readable.Error, ValueError, TypeError, _Unclear):
        ref, body = _reference(f"copyright-{source}", text)
        return Licence(ref, ((ref, body),), "debian/copyright")


def _machine_readable(text: str) -> Licence:
    """Of a copyright file in the format 1.0. Raises what python-debian raises where it is not, or not quite."""
    document = machine_readable.Copyright(text.splitlines(), strict=False)
    stand_alone: list[Any] = [p.license for p in document.all_license_paragraphs()]
    alone = {licence.synopsis.lower(): licence.text for licence in stand_alone if licence.text}
    texts: dict[str, str] = {}
    terms = []
    for paragraph in document.all_files_paragraphs():
        stated: Any = paragraph.license
        if stated is None or not (stated.synopsis or stated.text):
            raise _Unclear
        synopsis = " ".join((stated.synopsis or "other").split())
        own = stated.text or alone.get(synopsis.lower(), "")
        try:
            term, found = _synopsis(synopsis, own, alone)
        except _Unclear:
            ref, body = _reference(synopsis, own or f"License: {synopsis}")
            term, found = ref, {ref: body}
        terms.append(term)
        texts |= found
    if not terms:
        raise _Unclear
    return _licence(terms, texts, "debian/copyright, machine-readable")


def _licence(terms: Iterable[str], texts: dict[str, str], said_in: str) -> Licence:
    """All of the terms at once, each named once."""
    parser = licensing()

    def conjuncts(expression: Any) -> list[Any]:
        if isinstance(expression, parser.AND):
            return [found for part in expression.args for found in conjuncts(part)]
        return [expression]

    parts = [c for term in terms for c in conjuncts(parser.parse(term, validate=False))]
    unique = {p.render("{symbol.key}"): isinstance(p, parser.OR) for p in parts}
    names = [f"({name})" if choice and len(unique) > 1 else name for name, choice in unique.items()]
    return Licence(" AND ".join(names), tuple(sorted(texts.items())), said_in)


def _synopsis(synopsis: str, own: str, alone: dict[str, str]) -> tuple[str, dict[str, str]]:
    """A license short name of copyright-format 1.0, section 7.2, as an SPDX expression and the texts of its references.

    Raises _Unclear for what does not follow its grammar.
    """
    texts: dict[str, str] = {}

    def term(name: str) -> str:
        found = _identifier(name, own if name == synopsis else alone.get(name.lower(), ""))
        if found:
            return found
        # A name that the file does not explain may be none: "LGPL-2.1 or later".
        body = own if name == synopsis else alone.get(name.lower())
        if not body:
            raise _Unclear
        ref, texts[ref] = _reference(name, body)
        return ref

    def joined(text: str, words: Sequence[str], each: Callable[[str], str]) -> str:
        parts = [each(part) for part in re.split(words[0], text, flags=re.IGNORECASE)]
        return f"({words[1].join(parts)})" if len(parts) > 1 else parts[0]

    def conjunction(text: str) -> str:
        return joined(text, (r"\s+and\s+", " AND "), term)

    def disjunction(text: str) -> str:
        return joined(text, (r"\s+or\s+", " OR "), conjunction)

    found = {word.lower() for word in re.findall(r",\s+(and|or)\s", synopsis, re.IGNORECASE)}
    if len(found) > 1:
        raise _Unclear
    word = found.pop() if found else "and"
    return joined(synopsis, (rf",\s+{word}\s+", f" {word.upper()} "), disjunction), texts


def _identifier(name: str, text: str) -> str | None:
    """What SPDX calls a term of debian/copyright, given its text; None where that is not certain."""
    lower = name.lower()
    if lower == "mit" and _is_mit(text):
        return "MIT"
    if lower in _DEBIAN_NAMES:
        return _DEBIAN_NAMES[lower]
    gnu = _GNU.fullmatch(lower)
    if gnu:
        family, version, later = gnu.groups()
        # Section 7.1: "2.0.0" is equal to "2.0" and to "2". SPDX's list writes one digit after the dot.
        number = re.sub(r"(\.0)+$", "", version)
        number = number if "." in number else f"{number}.0"
        free = "-no-invariants" if family == "gfdl-niv" else ""
        return _known(f"{family.removesuffix('-niv')}-{number}{free}-{'or-later' if later else 'only'}")
    exception = _EXCEPTION.fullmatch(name)
    if exception:
        base, addition = _identifier(exception[1], ""), _exceptions().get(exception[2].lower())
        return f"{base} WITH {addition}" if base and addition else None
    return _known(lower) or _known(f"{lower}.0")


def _known(name: str) -> str | None:
    """An identifier of SPDX's list, in whatever case, that both documents' libraries have and none deprecates."""
    found = spdx.fixup_id(name)
    return found if found and found in licensing().known_symbols else None


@cache
def licensing() -> Any:
    """The parser of SPDX's licence expressions, with SPDX's list. Making one takes a sixth of a second."""
    return get_spdx_licensing()


@cache
def _exceptions() -> dict[str, str]:
    """SPDX's names of exceptions, by the word that comes before "exception" in debian/copyright."""
    found = {k.lower(): k for k, s in licensing().known_symbols.items() if s.is_exception and "LicenseRef" not in k}
    # Section 7.1: the text of "Font exception" is the one of SPDX's Font-exception-2.0.
    return found | {"font": "Font-exception-2.0"}


def of_wheel(info: Path) -> Licence:
    """The licence of a Python distribution, by its dist-info folder (core metadata, PEP 639)."""
    metadata = PathDistribution(info).metadata
    stated = _field(metadata, "License-Expression") or _field(metadata, "License")
    where = "License-Expression" if _field(metadata, "License-Expression") else "License"
    bodies = _files(info)
    whole = "\n\n".join(bodies)
    try:
        expression = str(canonicalize_license_expression(stated))
        refs = set(re.findall(r"LicenseRef-[A-Za-z0-9.-]+", expression))
        texts = dict(_reference(ref.removeprefix("LicenseRef-"), whole or f"License: {stated}") for ref in refs)
        for ref, new in zip(sorted(refs), sorted(texts), strict=True):
            expression = re.sub(rf"{re.escape(ref)}(?![A-Za-z0-9.-])", new, expression)
        return _licence([expression], texts, where)
    except InvalidLicenseExpression:
        pass
    named = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    named = [c for c in named if not any(other.startswith(f"{c} ::") for other in named)]
    meant = _CLASSIFIERS.get(named[0].rpartition(" :: ")[2]) if len(named) == 1 else None
    if meant:
        return Licence(meant, (), "Classifier")
    if len(bodies) == 1 and _is_mit(bodies[0]):
        return Licence("MIT", (), "the text of its licence file")
    body = whole or stated or "; ".join(named)
    if not body:
        return Licence()
    ref, text = _reference(str(metadata["Name"]), body)
    return Licence(ref, ((ref, text),), "its licence files" if whole else "License, classifiers")


def _field(metadata: Any, name: str) -> str:
    values = metadata.get_all(name) or []
    text = " ".join(str(values[0]).split()) if values else ""
    return "" if text.upper() == "UNKNOWN" else text


def _files(info: Path) -> list[str]:
    """The licence files in a dist-info folder: below licenses/ as PEP 639 says, or beside METADATA as before it."""
    folder = info / "licenses"
    found = [p for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else []
    found = found or [p for p in info.iterdir() if re.match(r"LICEN[CS]E|COPYING|NOTICE", p.name, re.IGNORECASE)]
    return [p.read_text(encoding="utf-8", errors="replace") for p in sorted(found) if not p.is_symlink()]


def _is_mit(text: str) -> bool:
    """Whether a text is MIT's from the grant to its end, by SPDX's matching guidelines on white space, case, quotes."""
    words = re.sub(r"[“”]|''|``", '"', text.lower()).split()
    body = " ".join(word for word in words if word != ".")
    start = body.find("permission is hereby granted")
    return start >= 0 and body[start:].strip() == " ".join(MIT_TEXT.split())


def _reference(name: str, text: str) -> tuple[str, str]:
    """A LicenseRef for a text: equal texts of one name have one, and no two texts have the same."""
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", name.replace("+", "plus")).strip("-.")[:60] or "other"
    body = text.strip("\n") or name
    return f"LicenseRef-{slug}-{hashlib.sha256(body.encode()).hexdigest()[:8]}", body
