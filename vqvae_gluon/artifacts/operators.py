"""Which operators a graph may hold, and which numbers their attributes: ``operators.json``, a table of both languages.
The C++ side (cpp_bindings/src/operators.cc) follows the same rules.

MXNet believes a graph. It has operators that call what lies at an address of the file, read files or run code, and it
reserves memory or divides by a number of an attribute before it looks whether the number makes sense. So both are
checked before MXNet sees the graph.
"""

import contextlib
import itertools
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple, Union

TABLE = Path(__file__).with_name("operators.json")
MAX_EXTENT = 2**31 - 1  # MXNet counts the elements of a tensor in 31 bits.
_NUMBER = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)L?", re.ASCII)  # The L is Python 2's.
_WORD = re.compile(r"[^\s,()\[\]]+", re.ASCII)
_MAX_NUMBERS = 4096  # of one attribute
_MAX_DIGITS = 40  # of one number
_LAST_INPUT = "last input"
_SHAPE = "__shape__"  # of a variable, what "shape" is of an operator

_trusted: set[str] = set()


class RefusedOperator(ValueError):
    """An operator that a graph may not hold."""


class Rule(NamedTuple):
    """What the numbers of an attribute may be.

    Attributes:
        least: each of them is at least this,
        most: and at most this: a number, ``inputs``, as many as the node has, subgraphs too, or ``last input``.
        product: of those above 0 it is at most :data:`MAX_EXTENT`.
        nonzero: none of them is 0.
    """

    least: int
    most: Union[int, str]
    product: bool = False
    nonzero: bool = False


class Table(NamedTuple):
    """The table, ready to be asked.

    Attributes:
        bundles: operators that compute tensors from tensors and that the graphs of bundles may hold,
        others: and those that only plain exports may.
        refused: why no graph may hold the others.
        subgraphs: operators within whose nodes graphs lie.
        numbers: by the name of the attribute.
    """

    bundles: frozenset[str]
    others: frozenset[str]
    refused: dict[str, str]
    subgraphs: frozenset[str]
    numbers: dict[str, Rule]


@cache
def table() -> Table:
    """The table of this package."""
    rows = json.loads(TABLE.read_text())
    refused = {operator: row["because"] for row in rows["refused"] for operator in row["operators"]}
    numbers = {name: Rule(**row) for row in rows["numbers"] for name in row.pop("attributes")}
    return Table(frozenset(rows["bundles"]), frozenset(rows["others"]), refused, frozenset(rows["subgraphs"]), numbers)


@contextlib.contextmanager
def trusting(operators: Collection[str]) -> Iterator[None]:
    """Let graphs hold these operators, too, in this process for a while."""
    known = table()
    new = set(operators) - known.bundles - {"null"} - _trusted
    _trusted.update(new)
    try:
        yield
    finally:
        _trusted.difference_update(new)


def is_operator(name: str) -> bool:
    """Whether MXNet's registry has an operator of this name."""
    known = table()
    return name in known.bundles or name in known.others or name in known.refused


def trusted() -> list[str]:
    """What is let through by :func:`trusting`."""
    return sorted(_trusted)


def check_operator(operator: str, of_bundle: bool) -> None:
    """Refuse an operator that a graph may not hold.

    Args:
        of_bundle: the graph is one of a bundle.

    Raises:
        RefusedOperator: says why.
    """
    known = table()
    if operator in known.bundles or operator == "null" or operator in _trusted:
        return
    if operator in known.refused:
        raise RefusedOperator(f"the operator {operator} is refused: {known.refused[operator]}")
    if operator not in known.others:
        raise RefusedOperator(f"there is no operator {operator}")
    if of_bundle:
        raise RefusedOperator(f"the operator {operator} is refused: it is none of those of bundles")


def takes_subgraphs(operator: str) -> bool:
    """Whether graphs may lie within nodes of this operator."""
    return operator in table().subgraphs


def check_attributes(attributes: Mapping[str, str], inputs: int, subgraphs: int = 0) -> None:
    """Refuse numbers that no operator takes.

    Args:
        attributes: of a node, as the file has them.
        inputs: how many the node has.
        subgraphs: how many it has; MXNet counts them among its arguments.

    Raises:
        ValueError: says which attribute is wrong.
    """
    rules = table().numbers
    for name, text in attributes.items():
        rule = rules.get("shape" if name == _SHAPE else name)
        if rule is not None:
            why = _objection(rule, text, inputs - 1 if rule.most == _LAST_INPUT else inputs + subgraphs)
            if why:
                raise ValueError(f"{name} is {text[:40]!r}: {why}")


def _objection(rule: Rule, text: str, inputs: int) -> str:
    """What is wrong with the numbers of an attribute; empty if nothing is."""
    found = (match[0] for match in _WORD.finditer(text))
    words = list(itertools.islice((word for word in found if word != "None"), _MAX_NUMBERS + 1))
    if len(words) > _MAX_NUMBERS:
        return f"more than {_MAX_NUMBERS} numbers"
    most = rule.most if isinstance(rule.most, int) else inputs
    product = 1.0
    for word in words:
        match = _NUMBER.fullmatch(word) if len(word.lstrip("+-").rstrip("L")) <= _MAX_DIGITS else None
        number = float(match[1]) if match else math.nan
        if not rule.least <= number <= most:
            return f"it takes numbers from {rule.least} to {most}"
        if rule.nonzero and number == 0:
            return "it does not take 0"
        product *= max(1.0, number)
    return f"the product is above {MAX_EXTENT}" if rule.product and product > MAX_EXTENT else ""
