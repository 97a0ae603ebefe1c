"""Conditions on named values: `width < 1 and state == 'failed'`. Parsed, never evaluated as code.

    parse("magnitude == none or magnitude > 0.5", names={"magnitude"}).holds({"magnitude": 0.8})

Comparisons (`== != < <= > >=`, `in`, `not in` with a list), `and`, `or`, `not`, parentheses;
numbers, quoted strings, `none`, `true`, `false`. `none` is both the magnitude of that name and a
missing value. An order between a number and `none` or a string does not hold, either way.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError, nearest

_WORDS: dict[str, Any] = {"none": None, "null": None, "true": True, "false": False}
_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
Evaluate = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Condition:
    """A parsed condition; `text` is what the user wrote, `names` what it asks for."""

    text: str
    names: frozenset[str]
    evaluate: Evaluate

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it is true of `values`; a name without a value counts as `none`."""
        return bool(self.evaluate(values))


def parse(text: str, names: Collection[str]) -> Condition:
    """Parse `text`, in which only `names` may be asked for. Raises UserError."""
    if not isinstance(text, str):
        raise UserError(f"a condition is text such as 'width < 1', not {text!r}")
    if len(text) > 2000:
        raise UserError(f"a condition of {len(text)} characters is too long (2000 at most)")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(
            f"cannot read the condition {text!r}: write comparisons joined by and, or, not, "
            "such as width < 1 and magnitude == none"
        ) from error
    used: set[str] = set()
    try:
        evaluate = _compile(tree.body, set(names), used, text)
    except RecursionError as error:
        raise UserError(f"the condition {text[:60]!r}... is nested too deeply") from error
    return Condition(text, frozenset(used), evaluate)


def _plain(value: Any) -> Any:
    return None if value == "none" else value


def _compile(node: ast.expr, names: set[str], used: set[str], text: str) -> Evaluate:
    if isinstance(node, ast.BoolOp):
        parts = [_compile(value, names, used, text) for value in node.values]
        if isinstance(node.op, ast.And):
            return lambda values: all(part(values) for part in parts)
        return lambda values: any(part(values) for part in parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = _compile(node.operand, names, used, text)
        return lambda values: not inner(values)
    if isinstance(node, ast.Compare):
        return _comparison(node, names, used, text)
    return _operand(node, names, used, text)


def _comparison(node: ast.Compare, names: set[str], used: set[str], text: str) -> Evaluate:
    terms = [_operand(term, names, used, text) for term in (node.left, *node.comparators)]
    tests = [_test(op, text) for op in node.ops]

    def evaluate(values: Mapping[str, Any]) -> bool:
        found = [term(values) for term in terms]
        return all(test(a, b) for test, a, b in zip(tests, found, found[1:], strict=False))

    return evaluate


def _test(op: ast.cmpop, text: str) -> Callable[[Any, Any], bool]:
    if isinstance(op, ast.Eq):
        return lambda a, b: _plain(a) == _plain(b)
    if isinstance(op, ast.NotEq):
        return lambda a, b: _plain(a) != _plain(b)
    if isinstance(op, ast.In | ast.NotIn):
        wanted = isinstance(op, ast.In)
        return lambda a, b: isinstance(b, list) and (_plain(a) in [_plain(x) for x in b]) == wanted
    if type(op) in _ORDER:
        order = _ORDER[type(op)]
        return lambda a, b: _ordered(a, b) and order(a, b)
    raise UserError(f"the condition {text!r} uses a comparison that is not known here")


def _ordered(a: Any, b: Any) -> bool:
    """Two numbers, or two strings (`none` is no string here)."""
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b))
    return numbers or all(isinstance(x, str) and x != "none" for x in (a, b))


def _operand(node: ast.expr, names: set[str], used: set[str], text: str) -> Evaluate:
    if isinstance(node, ast.Name | ast.Attribute):
        name = ast.unparse(node)
        if name in names:
            used.add(name)
            return lambda values: values.get(name)
        if name in _WORDS or name == "None":
            word = _WORDS.get(name)
            return lambda values: word
        raise UserError(f"the condition {text!r} asks for '{name}'{nearest(name, names)}")
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | None):
        constant = node.value
        return lambda values: constant
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _operand(node.operand, names, used, text)
        if isinstance(node.operand, ast.Constant) and isinstance(node.operand.value, int | float):
            return lambda values: -inner(values)
    if isinstance(node, ast.List | ast.Tuple):
        parts = [_operand(value, names, used, text) for value in node.elts]
        return lambda values: [part(values) for part in parts]
    if isinstance(node, ast.BoolOp | ast.Compare | ast.UnaryOp):
        return _compile(node, names, used, text)
    raise UserError(
        f"the condition {text!r} holds {ast.unparse(node)[:60]!r}, which is no name, number, "
        "quoted string, list or comparison"
    )
