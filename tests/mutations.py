"""How our code is changed by `./inv test --mutants`, and what of it never is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import parso
from cosmic_ray import plugins
from cosmic_ray.operators.operator import Example, Operator

Position = tuple[tuple[int, int], tuple[int, int]]

# Cosmic Ray's operators that change what is decided, without those that only make a type error of it, which every test
# of the line notices: `/` nearly always joins paths, and nobody writes `is` for `<`.
PAIRS = {
    "ReplaceComparisonOperator": (
        *("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"),
        *("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"),
    ),
    "ReplaceBinaryOperator": (
        *("Add_Sub", "Sub_Add", "Mul_FloorDiv", "FloorDiv_Mul"),
        *("BitOr_BitAnd", "BitAnd_BitOr", "LShift_RShift", "RShift_LShift"),
    ),
    "ReplaceUnaryOperator": ("Delete_Not", "Delete_USub", "Delete_Invert"),
}
SINGLE = (
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "NumberReplacer",
    "ZeroIterationForLoop",
)
_EMPTY = ("None", "False", '""', "[]", "()", "{}", "0")


def _replaced(node: Any, code: str) -> Any:
    """code with what stood before node: its indent and comments."""
    return parso.parse(node.get_first_leaf().prefix + code)


class Condition(Operator):
    """Turns a condition round: of if, elif, while, `a if c else b`, and of a comprehension."""

    @staticmethod
    def _where(node: Any) -> list[int]:
        if node.type in ("if_stmt", "while_stmt"):
            return [n + 1 for n, c in enumerate(node.children) if getattr(c, "value", "") in ("if", "elif", "while")]
        return {"ternary": [2], "test": [2], "comp_if": [1]}.get(node.type, [])

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        for where in self._where(node):
            yield node.children[where].start_pos, node.children[where].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        where = self._where(node)[index]
        old = node.children[where]
        node.children[where] = _replaced(old, f"not ({old.get_code(include_prefix=False)})")
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (
            Example("if a or b: pass\n", "if not (a or b): pass\n"),
            Example("if a: pass\nelif b: pass\n", "if a: pass\nelif not (b): pass\n", occurrence=1),
            Example("while a: pass\n", "while not (a): pass\n"),
            Example("x = 1 if a else 2\n", "x = 1 if not (a) else 2\n"),
            Example("x = [a for a in b if a]\n", "x = [a for a in b if not (a)]\n"),
        )


class Membership(Operator):
    """Makes `not in` of `in`, and the reverse."""

    @staticmethod
    def _where(node: Any) -> list[int]:
        if node.type != "comparison":
            return []
        return [n for n, child in enumerate(node.children) if child.get_code().split() in (["in"], ["not", "in"])]

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        for where in self._where(node):
            yield node.children[where].start_pos, node.children[where].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        where = self._where(node)[index]
        old = node.children[where]
        node.children[where] = _replaced(old, "not in" if old.get_code().strip() == "in" else "in")
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("a in b\n", "a not in b\n"), Example("a not in b\n", "a in b\n"))


class Returned(Operator):
    """Returns None in place of a value; not where that is as empty."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type == "return_stmt" and node.children[1].get_code().strip() not in _EMPTY:
            yield node.children[1].start_pos, node.children[1].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.children[1] = _replaced(node.children[1], "None")
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("def f():\n    return a + 1\n", "def f():\n    return None\n"),)


class Deleted(Operator):
    """Deletes a statement: a call, raise, del, return without a value, or a change of what exists already."""

    @staticmethod
    def _is_one(node: Any) -> bool:
        if node.type != "simple_stmt":
            return False
        found = node.children[0]
        if found.type == "expr_stmt":
            target, sign = found.children[:2]
            return (
                sign.type == "operator"
                and (sign.value != "=" or target.type in ("atom_expr", "power"))
                and target.type != "annassign"
            )
        if found.type in ("atom_expr", "power"):
            return str(found.children[-1].get_code()).startswith("(")
        return found.type in ("raise_stmt", "del_stmt") or getattr(found, "value", "") in ("return", "raise")

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if self._is_one(node):
            yield node.children[0].start_pos, node.children[0].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.children[0] = _replaced(node.children[0], "pass")
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (
            Example("f(1)\n", "pass\n"),
            Example("if a:\n    raise E(1)\n", "if a:\n    pass\n"),
            Example("a.b = 1\n", "pass\n"),
            Example("a += 1\n", "pass\n"),
        )


class Uncaught(Operator):
    """Lets an `except` catch nothing. Cosmic Ray's own operator for that stops at a name with a dot in it."""

    def mutation_positions(self, node: Any) -> Iterator[Position]:
        if node.type == "except_clause":
            yield node.children[1].start_pos, node.children[1].end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.children[1] = _replaced(node.children[1], "()")
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (
            Example("try:\n    f()\nexcept a.B as error: pass\n", "try:\n    f()\nexcept () as error: pass\n"),
            Example("try:\n    f()\nexcept (A, B): pass\n", "try:\n    f()\nexcept (): pass\n"),
        )


OWN = (Condition, Membership, Returned, Deleted, Uncaught)


def operators() -> dict[str, Operator]:
    """Every operator by its name."""
    names = [f"{group}_{pair}" for group, pairs in PAIRS.items() for pair in pairs]
    found = {f"core/{name}": plugins.get_operator(f"core/{name}")() for name in (*names, *SINGLE)}
    return found | {f"own/{kind.__name__}": kind() for kind in OWN}


def _ancestors(leaf: Any) -> Iterator[tuple[Any, Any]]:
    """Each node above a leaf, with the child through which it was reached."""
    child = leaf
    while child.parent is not None:
        yield child, child.parent
        child = child.parent


def _annotation(child: Any, parent: Any) -> bool:
    if parent.type == "annassign":
        return child is parent.children[1]
    if parent.type == "tfpdef":
        return child is parent.children[-1]
    return parent.type == "funcdef" and child is parent.annotation


def _alias(child: Any, parent: Any) -> bool:
    """Check = Callable[[], int]: a module's name in capitals and small letters for what is no call."""
    if parent.type != "expr_stmt" or parent.parent.parent.type != "file_input":
        return False
    name = str(parent.children[0].get_code()).strip().lstrip("_")
    return name[:1].isupper() and not name.isupper() and "(" not in parent.get_code()


def _dunder_all(child: Any, parent: Any) -> bool:
    return parent.type == "expr_stmt" and parent.children[0].get_code().strip() == "__all__"


def _type_checking(child: Any, parent: Any) -> bool:
    return parent.type == "if_stmt" and parent.children[1].get_code().strip() == "TYPE_CHECKING"


def _main(child: Any, parent: Any) -> bool:
    return parent.type == "if_stmt" and parent.children[1].get_code().strip() == '__name__ == "__main__"'


def _called(trailer: Any) -> str:
    """What a trailer's brackets call, as written."""
    siblings = trailer.parent.children
    return "".join(s.get_code() for s in siblings[: siblings.index(trailer)]).strip()


_SPEAKERS = ("log.", "console.", "tools.say", "print", "warnings.warn")
_WORDS = ("hint", "details", "help", "description", "title", "what", "brief")


def _said(child: Any, parent: Any) -> bool:
    if parent.type == "trailer":
        return _called(parent).startswith(_SPEAKERS)
    return parent.type == "simple_stmt" and parent.get_code().strip().startswith(_SPEAKERS)


def _told(child: Any, parent: Any) -> bool:
    """That an error is raised is not left out."""
    if parent.type == "argument":
        return parent.children[0].get_code().strip() in _WORDS and parent.children[1].get_code() == "="
    return parent.type == "raise_stmt" and child is not parent.children[0]


def _text(child: Any, parent: Any) -> bool:
    return bool(parent.type == "fstring_expr")


def _decorator(child: Any, parent: Any) -> bool:
    return bool(parent.type == "decorator")


@dataclass(frozen=True)
class Rule:
    """What is never changed. applies: to a node and the one above it. example: code in which nothing may be changed."""

    why: str
    applies: Callable[[Any, Any], bool]
    example: str


RULES = (
    Rule("annotations are for mypy", _annotation, "def f(a: A | B, *b: 1) -> A | None: ...\nx: A | B\n"),
    Rule("so are aliases of types", _alias, "_Part = dict[str, A | B]\n"),
    Rule(
        "and assertions, which tell it what is known",
        lambda child, parent: parent.type == "assert_stmt",
        "assert a is not None and b == 1\n",
    ),
    Rule("nobody imports everything", _dunder_all, "__all__ = [a + b]\n"),
    Rule("nothing under TYPE_CHECKING runs", _type_checking, "if TYPE_CHECKING:\n    f(1)\n"),
    Rule("and what is under __main__ in a program only", _main, 'if __name__ == "__main__":\n    f(1)\n'),
    Rule("wording: what is logged or printed", _said, "log.info(a + b)\nconsole.out(1)\nprint(1)\n"),
    Rule("wording: what an error says, and --help", _told, "x = E(hint=a or b, help=1)\n"),
    Rule("wording: what is put into a text", _text, 'x = f"{a + 1:3}"\n'),
    Rule("a decorator says what something is", _decorator, "@dataclass(frozen=True)\nclass A: ...\n"),
)
"""Strings, docstrings among them, have no operator at all."""


def left_out(leaf: Any) -> Rule | None:
    """The rule by which what begins at a leaf is never changed; None where there is none."""
    return next((rule for above in _ancestors(leaf) for rule in RULES if rule.applies(*above)), None)


def header(leaf: Any) -> tuple[int, int]:
    """The first and last line of the simple statement that a leaf is in; its own line in the head of another."""
    for child, parent in _ancestors(leaf):
        if parent.type == "simple_stmt":
            return child.start_pos[0], child.end_pos[0]
    return leaf.start_pos[0], leaf.start_pos[0]


def while_loading(leaf: Any) -> bool:
    """Whether what a leaf is in runs when its module is loaded, and not when a function is called."""
    return not any(
        parent.type in ("funcdef", "lambdef") and child is parent.children[-1] for child, parent in _ancestors(leaf)
    )
