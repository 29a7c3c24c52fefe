"""Makes a random sample of mutants of our own code, and says which unit tests may notice each.

`./inv test --mutants` runs this with what requirements/mutation.txt names on the path. Cosmic Ray's operators make the
changes, and those of tests/mutations.py, which says as well what is never changed. Usage:

    python -m tests.mutants COUNT SEED COVERAGE OUTCOMES TARGET

writes a list of mutants to TARGET as JSON. COVERAGE: what pytest-cov has written, with
a context for each test. OUTCOMES: what tests/outcomes.py has.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from coverage import CoverageData

from tests import mutations

FOLDERS = ("foundry", "patroni_node")


# Leaves that no operator changes, and there are many of them.
_DULL = ("name", "string", "newline", "endmarker", "fstring_string", "fstring_start", "fstring_end")


@dataclass(frozen=True, order=True)
class Place:
    """Where something can be changed by operators of a kind."""

    file: str
    line: int
    column: int
    kind: str


@dataclass(frozen=True)
class Mutant:
    """A file with one change.

    lines: the first and the last of the statement, without what is nested in it; None where it runs when the module is
    loaded.
    """

    place: Place
    operator: str
    lines: tuple[int, int] | None
    code: str


class Source:
    """A file of ours, and what the operators can do to it."""

    def __init__(self, file: str, text: str, operators: dict[str, Operator]) -> None:
        self.file, self.text, self.operators = file, text, operators
        self.tree = get_ast(text)

    def places(self) -> dict[Place, list[tuple[str, int]]]:
        """Each place, and its changes: an operator's name, and which of its places in the file it is."""
        seen = dict.fromkeys(self.operators, 0)
        found: dict[Place, list[tuple[str, int]]] = {}
        for node in ast_nodes(self.tree):
            for name, operator in () if node.type in _DULL else self.operators.items():
                for (line, column), _ in operator.mutation_positions(node):
                    place = Place(self.file, line, column, name.partition("_")[0])
                    found.setdefault(place, []).append((name, seen[name]))
                    seen[name] += 1
        return found

    def mutant(self, place: Place, operator: str, occurrence: int) -> Mutant | None:
        """The file with a change; None for one that a rule leaves out, or Python does not take."""
        leaf = self.tree.get_leaf_for_position((place.line, place.column))
        if mutations.left_out(leaf) is not None:
            return None
        code = mutate_code(self.text, self.operators[operator], occurrence)
        if code is None or code == self.text or not compiles(code):
            return None
        lines = None if mutations.while_loading(leaf) else mutations.header(leaf)
        return Mutant(place, operator, lines, code)


def sample(root: Path, count: int, seed: int) -> Iterator[Mutant]:
    """As many mutants as are wanted, each place as likely as the others."""
    operators = mutations.operators()
    sources: dict[str, Source] = {}
    every: dict[Place, list[tuple[str, int]]] = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            source = Source(str(path.relative_to(root)), path.read_text(encoding="utf-8"), operators)
            sources[source.file] = source
            every.update(source.places())
    chance = random.Random(seed)
    order = sorted(every)
    chance.shuffle(order)
    for place in order:
        made = sources[place.file].mutant(place, *chance.choice(every[place])) if count else None
        if made is not None:
            count -= 1
            yield made


def compiles(code: str) -> bool:
    """Whether Python takes it at all."""
    try:
        compile(code, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


class Reach:
    """Which tests run which line."""

    def __init__(self, coverage: Path, outcomes: Path) -> None:
        self.data = CoverageData(str(coverage))
        self.data.read()
        rows = json.loads(outcomes.read_text(encoding="utf-8"))
        self.seconds = {row["name"]: row["seconds"] for row in rows if row["outcome"] == "passed"}
        self._lines: dict[str, dict[int, set[str]]] = {}

    def lines(self, file: str) -> dict[int, set[str]]:
        """The tests of each line that ran; "" stands for what ran outside of any test."""
        if file not in self._lines:
            found = self.data.contexts_by_lineno(file)
            self._lines[file] = {line: {c.rpartition("|")[0] for c in own} for line, own in found.items()}
        return self._lines[file]

    def tests(self, mutant: Mutant) -> list[str]:
        """The tests that run what was changed, the quickest first.

        What runs when its module is loaded concerns every test that runs anything of the module: whichever test has
        loaded it says nothing about the others. So does what runs only while pytest collects the tests.
        """
        lines = self.lines(mutant.place.file)
        own: set[str] = set()
        if mutant.lines is not None:
            first, last = mutant.lines
            own = lines.get(mutant.place.line) or set().union(*(lines.get(n, set()) for n in range(first, last + 1)))
        if mutant.lines is None or own == {""}:
            own = set().union(*lines.values())
        return sorted(own & self.seconds.keys(), key=lambda name: (self.seconds[name], name))


def check() -> None:
    """See that operators and rules do what their examples say: what they rest on is another project's tree of code."""
    operators = mutations.operators()
    for kind in mutations.OWN:
        for example in kind.examples():
            made = mutate_code(example.pre_mutation_code, kind(), example.occurrence)
            assert made == example.post_mutation_code, f"{kind.__name__}: {made} is not {example.post_mutation_code}"
    for rule in mutations.RULES:
        source = Source("example", rule.example, operators)
        changed = [
            place for place, changes in source.places().items() for c in changes if source.mutant(place, *c) is not None
        ]
        assert not changed, f"{rule.why}: {changed} of {rule.example}"


def main(words: list[str]) -> None:
    check()
    count, seed, coverage, outcomes, target = words
    reach = Reach(Path(coverage), Path(outcomes))
    rows: list[dict[str, Any]] = []
    for mutant in sample(Path.cwd(), int(count), int(seed)):
        tests = reach.tests(mutant)
        row = {"file": mutant.place.file, "line": mutant.place.line, "operator": mutant.operator.partition("/")[2]}
        rows.append({**row, "code": mutant.code, "tests": tests, "seconds": sum(reach.seconds[t] for t in tests)})
    Path(target).write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
