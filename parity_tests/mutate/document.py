"""Damaged JSON."""

import json
from random import Random
from typing import Any

from mutate.raw import EXTREMES, Mutated

_DEEP = "\u0001deep"  # Stands for text that the JSON module would not write.
_TWIN = "\u0001twin"
_VALUES: list[Any] = [*EXTREMES, 0.5, -0.0, 1e308, True, False, None, "", "x", "x" * 5000, "\0", "\n", [], {}]
_VALUES += [[[]], {"a": {}}, "1", "(1, 1)", "\ud800", "é", f"{_DEEP}100", f"{_DEEP}100000", f"{_DEEP}-3000000"]


def paths_of(value: Any, path: tuple = ()) -> list[tuple]:
    """Where every value of a document is."""
    found = [path] if path else []
    if isinstance(value, dict):
        rows = list(value.items())
    elif isinstance(value, list):
        rows = list(enumerate(value))
    else:
        rows = []
    for key, below in rows:
        found += paths_of(below, (*path, key))
    return found


def dump(document: Any) -> bytes:
    """The document's text, with what the JSON module cannot write."""
    text = json.dumps(document).replace(json.dumps(_TWIN)[1:-1], "")
    before, mark, after = text.partition(f'"{json.dumps(_DEEP)[1:-1]}')
    if mark:
        number, _, after = after.partition('"')
        depth = int(number)
        text = before + ("[" * depth + "]" * depth if depth > 0 else "[" + "[]," * -depth + "0]") + after
    return text.encode()


def damage_value(document: Any, random: Random, paths: list[tuple]) -> str:
    path = random.choice(paths)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    key, what = path[-1], random.choice(["set", "set", "set", "drop", "double", "exchange", "rename", "nudge"])
    value = parent[key]
    if what == "nudge" and type(value) is not int:
        what = "set"
    if what == "set":
        parent[key] = random.choice(_VALUES)
        what += f" to {str(parent[key])[:20]!r}"
    elif what == "nudge":
        parent[key] += random.choice([-1, 1])
    elif what == "drop":
        del parent[key]
    elif what == "double" and isinstance(parent, dict):
        parent[f"{key}{_TWIN}"] = random.choice([value, random.choice(_VALUES)])
    elif what == "double":
        parent.insert(key, value)
    elif what == "exchange":
        other = random.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        parent[key], parent[other] = parent[other], parent[key]
    elif isinstance(parent, dict):
        parent[random.choice(["x", "", "op", "name", "sha256", "inputs"])] = parent.pop(key)
    else:
        parent[key] = {"x": value}
    return f"{'/'.join(map(str, path))}: {what}"


def damage_json(data: bytes, random: Random) -> Mutated:
    document = json.loads(data)
    return "json: " + damage_value(document, random, paths_of(document)), dump(document)
