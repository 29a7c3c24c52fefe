"""node.yml and its drop-ins, read and checked."""

from __future__ import annotations

from patroni_node import schema
from patroni_node.checks import Checks
from patroni_node.document import Document, merge_documents, read
from patroni_node.errors import NodeError, Problem
from patroni_node.model import Settings
from patroni_node.paths import Paths

EXAMPLE = "/usr/share/patroni-node/node.example.yml"


def load(paths: Paths) -> Settings:
    """Read node.yml and its drop-ins.

    Returns:
        The checked settings.

    Raises:
        NodeError: with every problem of every file at once.
    """
    return build(read_document(paths))


def read_document(paths: Paths) -> Document:
    """Return node.yml with node.d/*.yml merged after it in the order of their names.

    Raises:
        NodeError: when there is no file at all, or with the problems of each unreadable one.
    """
    document = Document()
    problems: list[Problem] = []
    drop_ins = sorted(paths.drop_ins.glob("*.yml"))
    for path in [paths.node_file, *drop_ins]:
        try:
            found = read(path)
            # The first file is taken as it is: a key left empty there is a mistake, not a removal.
            document = merge_documents(document, found) if document.marks else found
        except FileNotFoundError:
            if not drop_ins:
                message = f"is missing: write `cluster:` and `secrets: {{key: ...}}` to it (example: {EXAMPLE})"
                problems.append(Problem(message, str(path)))
        except NodeError as error:
            problems.extend(error.problems)
    if problems:
        raise NodeError(problems)
    return document


def build(document: Document, *, new: bool = False) -> Settings:
    """Check a document against the schema and against itself.

    Args:
        document: node.yml.
        new: whether it is for a cluster that is not there yet, whose secrets have to be strong as well. On a node that
            is asked once it is known what its cluster has.

    Raises:
        NodeError: with every problem; a key that the schema refuses is not examined further.
    """
    problems = schema.problems(document)
    checks = Checks(document, {problem.key for problem in problems}, new=new)
    settings = checks.settings()
    problems += checks.problems
    if problems:
        problems.sort(key=lambda problem: (problem.file or "", problem.line or 0))
        raise NodeError(problems)
    return settings
