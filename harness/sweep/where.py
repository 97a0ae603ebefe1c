"""Conditions on named values, such as `width < 1 and state == 'failed'`.

    parse("magnitude == none or magnitude > 0.5", names={"magnitude"}).holds({"magnitude": 0.8})

The language has comparisons (`== != < <= > >=`, `in`, `not in` with a list), `and`, `or`, `not`,
parentheses, numbers, quoted strings, lists, `none`, `true` and `false`. `none` is a missing value
and the magnitude of that name. A number is neither below nor above `none` or a string.

Conditions are never evaluated as Python code: each part is compiled into a function of the values.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError, closest, nearest
from harness.fields import canonical
from harness.sweep.axes import choices

_WORDS: dict[str, Any] = {"none": None, "None": None, "null": None, "true": True, "false": False}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_NAME = ast.Name | ast.Attribute
Evaluate = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Condition:
    """A parsed condition: the text that the user wrote, and the names that it uses."""

    text: str
    names: frozenset[str]
    evaluate: Evaluate

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether the condition is true of `values`. A missing value counts as `none`."""
        return bool(self.evaluate(values))


def parse(text: str, names: Collection[str]) -> Condition:
    """Return the condition that `text` states about `names`. Raises UserError."""
    if not isinstance(text, str):
        raise UserError(f"a condition is text such as 'width < 1', not {text!r}")
    if len(text) > 2000:
        raise UserError(f"a condition of {len(text)} characters is too long (2000 at most)")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(
            f"the condition {text!r} cannot be read: write comparisons joined by and, or, not, "
            "such as width < 1 and magnitude == none"
        ) from error
    compiler = _Compiler(text, names)
    try:
        evaluate = compiler.compile(tree.body)
    except RecursionError as error:
        raise UserError(f"the condition {text[:60]!r}... is nested too deeply") from error
    return Condition(text, frozenset(compiler.used), evaluate)


class _Compiler:
    """Turns the syntax tree of a condition into a function of the values."""

    def __init__(self, text: str, names: Collection[str]):
        self.text = text
        self.names = set(names)
        self.used: set[str] = set()

    def compile(self, node: ast.expr) -> Evaluate:
        """Return the function that evaluates a node. Raises UserError."""
        if isinstance(node, ast.BoolOp):
            parts = [self.compile(value) for value in node.values]
            if isinstance(node.op, ast.And):
                return lambda values: all(part(values) for part in parts)
            return lambda values: any(part(values) for part in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.compile(node.operand)
            return lambda values: not inner(values)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        is_truth = isinstance(node, ast.Constant) and isinstance(node.value, bool)
        if isinstance(node, ast.Constant | ast.List | ast.Tuple) and not is_truth:
            comma = "; decimals are written with a point" if isinstance(node, ast.Tuple) else ""
            raise UserError(
                f"the condition {self.text!r} has {ast.unparse(node)[:60]!r} in the place of a "
                f"comparison, such as width < 1{comma}"
            )
        return self._operand(node)

    def _comparison(self, node: ast.Compare) -> Evaluate:
        """Compile a chain such as `0.2 < magnitude <= 0.5`."""
        nodes = [node.left, *node.comparators]
        self._check_texts(nodes)
        for op, term in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn) and isinstance(term, ast.Constant):
                raise UserError(
                    f"the condition {self.text!r} looks for a value in {ast.unparse(term)[:60]}, "
                    f"which is not a list: write [{ast.unparse(term)[:60]}]"
                )
        terms = [self._operand(term) for term in nodes]
        tests = [_comparison_of(op, self.text) for op in node.ops]

        def evaluate(values: Mapping[str, Any]) -> bool:
            sides = [term(values) for term in terms]
            return all(test(a, b) for test, a, b in zip(tests, sides, sides[1:], strict=False))

        return evaluate

    def _check_texts(self, nodes: list[ast.expr]) -> None:
        """Refuse texts that a compared column never has, and texts without quotes."""
        columns = [ast.unparse(node) for node in nodes if isinstance(node, _NAME)]
        columns = [name for name in columns if name in self.names]
        items = [item for node in nodes for item in getattr(node, "elts", [node])]
        for item in items if columns else ():
            if isinstance(item, _NAME):
                word = ast.unparse(item)
                if word not in self.names and word not in _WORDS:
                    similar = f", or is it '{name}'" if (name := closest(word, self.names)) else ""
                    raise UserError(
                        f"the condition {self.text!r} uses the unknown name '{word}': write text "
                        f"in quotes: '{word}'{similar}"
                    )
            elif isinstance(item, ast.Constant) and isinstance(item.value, str):
                valid = choices(columns[0])
                if valid and item.value not in valid:
                    raise UserError(
                        f"the condition {self.text!r} compares {columns[0]} with '{item.value}', "
                        f"which it never is{nearest(item.value, valid)}"
                    )

    def _operand(self, node: ast.expr) -> Evaluate:
        if isinstance(node, _NAME):
            return self._name(ast.unparse(node))
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | None):
            constant = node.value
            return lambda values: constant
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            number = node.operand.value if isinstance(node.operand, ast.Constant) else None
            if isinstance(number, int | float):
                signed = -number if isinstance(node.op, ast.USub) else number
                return lambda values: signed
        elif isinstance(node, ast.BoolOp | ast.Compare) or isinstance(
            getattr(node, "op", None), ast.Not
        ):
            return self.compile(node)
        if isinstance(node, ast.List | ast.Tuple):
            parts = [self._operand(value) for value in node.elts]
            return lambda values: [part(values) for part in parts]
        raise UserError(
            f"the condition {self.text!r} contains {ast.unparse(node)[:60]!r}, which is not a "
            "name, number, quoted string, list or comparison"
        )

    def _name(self, name: str) -> Evaluate:
        if name in self.names:
            self.used.add(name)
            return lambda values: values.get(name)
        if name in _WORDS:
            word = _WORDS[name]
            return lambda values: word
        raise UserError(
            f"the condition {self.text!r} uses the unknown name '{name}'{nearest(name, self.names)}"
        )


def _comparable(value: Any) -> Any:
    """Return a value as it is compared: None for `none`, a list for a tuple, a rounded number."""
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    return None if value == "none" else canonical(value)


def _comparison_of(op: ast.cmpop, text: str) -> Callable[[Any, Any], bool]:
    """Return the function that compares two values by `op`."""
    if isinstance(op, ast.Eq):
        return lambda a, b: bool(_comparable(a) == _comparable(b))
    if isinstance(op, ast.NotEq):
        return lambda a, b: bool(_comparable(a) != _comparable(b))
    if isinstance(op, ast.In):
        return lambda a, b: _contains(b, a)
    if isinstance(op, ast.NotIn):
        return lambda a, b: isinstance(b, list | tuple) and not _contains(b, a)
    if type(op) in _ORDER:
        order = _ORDER[type(op)]
        return lambda a, b: _have_order(a, b) and order(canonical(a), canonical(b))
    raise UserError(
        f"the condition {text!r} uses a comparison that is not one of ==, !=, <, <=, >, >=, in "
        "and not in"
    )


def _contains(values: Any, value: Any) -> bool:
    return isinstance(values, list | tuple) and _comparable(value) in _comparable(values)


def _have_order(a: Any, b: Any) -> bool:
    """Return whether both are numbers, or both are strings other than `none`."""
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b))
    return numbers or all(isinstance(x, str) and x != "none" for x in (a, b))
