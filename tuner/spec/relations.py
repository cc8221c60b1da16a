"""Relations between knobs, such as `tensor_parallel_size * data_parallel_size <= gpus`.

A relation is an expression of Python that is true or false: numbers, texts, names of knobs,
`+ - * / // %`, comparisons, `in`, `and`, `or` and `not`. Nothing else is read, and nothing is run.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tuner.configuration import UNSET, Value
from tuner.errors import unknown_name

GPUS: Final = "gpus"  # how many GPUs the study may use
Values: TypeAlias = Mapping[str, Value]

_LONGEST = 500
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda one, many: one in many,
    ast.NotIn: lambda one, many: one not in many,
}


class _UnknownError(Exception):
    """A value that the relation needs is not known, or has no number."""


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation that every configuration of a study has to keep.

    `names` are the knobs, fixed flags and `gpus` that it reads.
    """

    text: str
    names: frozenset[str]
    _tree: ast.expr

    @classmethod
    def parse(cls, text: str, known: Collection[str]) -> Relation:
        """Read a relation between `known` names; raises `ValueError` saying what is wrong."""
        if len(text) > _LONGEST:
            raise ValueError(f"a relation of {len(text)} characters; {_LONGEST} are allowed")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
            names = frozenset(_names(tree))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            said = error.args[0] if error.args else type(error).__name__
            raise ValueError(f"'{text}' cannot be read: {said}") from None
        if not isinstance(tree, ast.Compare | ast.BoolOp | ast.UnaryOp):
            raise ValueError(f"'{text}' compares nothing; write e.g. a * b <= {GPUS}")
        for name in sorted(names - {UNSET}):
            if name not in known:
                raise ValueError(f"'{text}': " + unknown_name("knob", name, known))
        return cls(text, names - {UNSET}, tree)

    def holds(self, values: Values) -> bool:
        """Say whether values keep it; a knob that is left unset is `unset`.

        What cannot be told, because a value that is needed is not known, holds.
        """
        try:
            return bool(_value(self._tree, values))
        except (_UnknownError, ZeroDivisionError):
            return True


def _names(node: ast.expr) -> list[str]:
    """Return the names that an expression reads; raises `ValueError` for what is not allowed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        return []
    if isinstance(node, ast.Name):
        return [] if node.id in ("true", "false") else [node.id]
    if isinstance(node, ast.Attribute):
        return [_dotted(node)]
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        parts: list[ast.expr] = [node.left, node.right]
    elif isinstance(node, ast.Compare) and all(type(op) in _COMPARISONS for op in node.ops):
        parts = [node.left, *node.comparators]
    elif isinstance(node, ast.BoolOp):
        parts = node.values
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        parts = [node.operand]
    elif isinstance(node, ast.Tuple | ast.List):
        parts = node.elts
    else:
        raise ValueError(f"'{ast.unparse(node)}' is not allowed in a relation")
    return [name for part in parts for name in _names(part)]


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    raise ValueError(f"'{ast.unparse(node)}' is not allowed in a relation")


def _value(node: ast.expr, values: Values) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name | ast.Attribute):
        return _named(_dotted(node), values)
    if isinstance(node, ast.BinOp):
        return _computed(
            _ARITHMETIC[type(node.op)], _value(node.left, values), _value(node.right, values)
        )
    if isinstance(node, ast.BoolOp):
        return _joined(node, values)
    if isinstance(node, ast.UnaryOp):
        operand = _value(node.operand, values)
        return not operand if isinstance(node.op, ast.Not) else _computed(operator.sub, 0, operand)
    if isinstance(node, ast.Tuple | ast.List):
        return [_value(part, values) for part in node.elts]
    assert isinstance(node, ast.Compare)
    left = _value(node.left, values)
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        right = _value(comparator, values)
        if not _computed(_COMPARISONS[type(op)], left, right):
            return False
        left = right
    return True


def _named(name: str, values: Values) -> Value:
    if name == UNSET:
        return UNSET
    if name in ("true", "false"):
        return name == "true"
    if name not in values:
        raise _UnknownError(name)
    return values[name]


def _joined(node: ast.BoolOp, values: Values) -> bool:
    """Join by `and` or `or`; a part that cannot be told holds."""
    join = all if isinstance(node.op, ast.And) else any

    def holds(part: ast.expr) -> bool:
        try:
            return bool(_value(part, values))
        except (_UnknownError, ZeroDivisionError):
            return True

    return join(map(holds, node.values))


def _computed(operation: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    try:
        return operation(one, other)
    except TypeError:  # a number beside `unset`, whose value nobody knows
        raise _UnknownError from None
