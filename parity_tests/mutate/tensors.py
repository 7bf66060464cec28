"""Damaged ``.params`` files: magic, 0, count, tensors, count, names."""

import struct
from random import Random

from mutate.raw import EXTREMES, Mutated, pick


def _split_params(data: bytes) -> list[tuple[bytes, int, tuple[int, ...], bytes]]:
    """Name, type, shape and values of each tensor of a sound file of MXNet 1.9.1."""
    at, tensors, names = 24, [], []
    (count,) = struct.unpack_from("<Q", data, 16)
    sizes = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8}
    for _ in range(count):
        (dimensions,) = struct.unpack_from("<i", data, at + 8)
        shape = struct.unpack_from(f"<{dimensions}q", data, at + 12)
        at += 12 + 8 * dimensions + 8
        (kind,) = struct.unpack_from("<i", data, at)
        size = sizes[kind]
        for extent in shape:
            size *= extent
        tensors.append((kind, shape, data[at + 4 : at + 4 + size]))
        at += 4 + size
    at += 8
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", data, at)
        names.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return [(name, *tensor) for name, tensor in zip(names, tensors)]


# Forms of tensors that MXNet 1.9.1 reads: as it writes them, under NumPy's rules, before 0.12, of 2015, and sparse.
PARAMS_FORMS = ("new", "numpy", "old", "first", "row_sparse", "csr")
_MAGIC = {"new": 0xF993FAC9, "numpy": 0xF993FACA, "old": 0xF993FAC8, "row_sparse": 0xF993FAC9, "csr": 0xF993FAC9}


def params_bytes(tensors, form: str = "new") -> bytes:
    """A parameter file of tensors: name, MXNet's number of the type, shape and values. Sparse ones keep all of their
    rows; a csr one that has not two dimensions is written as row_sparse."""
    return _join_params(tensors, form)[0]


def reform(data: bytes, form: str) -> bytes:
    """A sound file of MXNet 1.9.1 in another form."""
    return params_bytes(_split_params(data), form)


def _join_params(tensors, form: str = "new") -> tuple[bytes, list[tuple[int, str]]]:
    """The file, and where its integer fields are: offset and form."""
    out, fields = bytearray(), []

    def put(layout: str, *numbers: int) -> None:
        for number in numbers:
            fields.append((len(out), layout))
            out.extend(struct.pack("<" + layout, number))

    def put_shape(shape: tuple[int, ...]) -> None:
        put("i", len(shape))
        put("q", *shape)

    put("Q", 0x112, 0, len(tensors))
    for _, kind, shape, values in tensors:
        storage = {"row_sparse": 1, "csr": 2 if len(shape) == 2 else 1}.get(form, 0)
        rows = [list(range(shape[0]))] if storage == 1 else []
        if storage == 2:
            rows = [[n * shape[1] for n in range(shape[0] + 1)], list(range(shape[1])) * shape[0]]
        if form == "first":
            put("I", len(shape), *shape)
        else:
            put("I", _MAGIC[form])
            if form != "old":
                put("i", storage)
            if storage:
                put_shape(shape if storage == 1 else (len(rows[1]),))
            put_shape(shape)
        put("i", 1, 0, kind)
        for indices in rows:
            put("i", 6)
            put_shape((len(indices),))
        out.extend(values)
        for indices in rows:
            out.extend(struct.pack(f"<{len(indices)}q", *indices))
    put("Q", len(tensors))
    for name, *_ in tensors:
        put("Q", len(name))
        out.extend(name)
    return bytes(out), fields


_NAMES = [b"", b"arg:", b"aux:x", b"arg:data", b"arg:x\ny", b"arg:\0", b"arg:\xff\xfe", b"arg:" + b"x" * 5000, b"x"]
_FLOATS = [float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-45, 0.0]


def damage_params(data: bytes, random: Random) -> Mutated:
    tensors = _split_params(data)
    index = random.randrange(len(tensors))
    name, kind, shape, values = tensors[index]
    what = pick(
        random,
        "field, field, field, drop, double, name, prefix, exchange, type, reshape, flatten, value, values, more",
    )
    form = random.choice(PARAMS_FORMS)
    if what == "field":
        return _damage_field(*_join_params(tensors, form), random)
    if what == "drop":
        del tensors[index]
    elif what == "double":
        tensors.insert(index, tensors[index])
    elif what == "name":
        name = random.choice(_NAMES)
    elif what == "prefix":
        name = random.choice([b"", b"aux:" if name.startswith(b"arg:") else b"arg:"]) + name[4:]
    elif what == "exchange":
        other = random.randrange(len(tensors))
        tensors[other], name = (name, *tensors[other][1:]), tensors[other][0]
    elif what == "type":
        kind = random.randrange(-1, 14)
        size = {1: 2, 6: 2, 11: 2}.get(kind, 1)
        fraction = {2: 2, 3: 4, 5: 4, 7: 4, 8: 2, 9: 2, 12: 2}.get(kind, 1)
        values = values * size if size > 1 else values[: len(values) // fraction]
    elif what == "reshape":
        shape = tuple(random.sample(shape, len(shape)))
    elif what == "flatten":
        count = len(values) // 4
        shape = random.choice([(count,), (1, count), (count, *[1] * 31), (1, *shape), (*shape, 1)])
    elif what in ("value", "values"):
        number = struct.pack("<f", random.choice(_FLOATS))
        at = 4 * random.randrange(len(values) // 4)
        values = number * (len(values) // 4) if what == "values" else values[:at] + number + values[at + 4 :]
    else:
        tensors.append((b"arg:more", 0, (2,), bytes(8)))
    if what not in ("drop", "double", "more"):
        tensors[index] = (name, kind, shape, values)
    return f"params: {what} of tensor {index}, {form}", params_bytes(tensors, form)


def _damage_field(data: bytes, fields: list[tuple[int, str]], random: Random) -> Mutated:
    at, form = random.choice(fields)
    (old,) = struct.unpack_from("<" + form, data, at)
    size = struct.calcsize(form)
    new = random.choice([*EXTREMES, old + 1, old - 1, old * 2, old // 2, -old]) & (2 ** (8 * size) - 1)
    return f"params: field at {at} from {old} to {new}", data[:at] + new.to_bytes(size, "little") + data[at + size :]
