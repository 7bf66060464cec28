"""Sound and damaged zip files, as ``.npz`` files are."""

import io
import struct
import warnings
import zipfile
from random import Random

from mutate.arrays import damage_npy
from mutate.raw import EXTREMES, Mutated, pick

Members = list[tuple[str, bytes]]

_BOMB = 64 << 20
# Layouts of the end of a zip file, of an entry of its directory, and of what stands before each member.
_LAYOUTS = {b"PK\5\6": "HHHHIIH", b"PK\1\2": "HHHHHHIIIHHHHHII", b"PK\3\4": "HHHHHIIIHH"}


def npy_bytes(descr: str, shape: tuple[int, ...], values: bytes) -> bytes:
    """An ``.npy`` file as NumPy writes it."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + values


def zip_bytes(members: Members, method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive, whatever its members are called."""
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # Of two members of one name.
        for name, content in members:
            entry = zipfile.ZipInfo(name)
            entry.compress_type = method
            archive.writestr(entry, content)
    return file.getvalue()


def members_of(data: bytes) -> Members:
    """The members of a sound archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def damage_zip(data: bytes, random: Random) -> Mutated:
    """Damage what the archive says of its members, none of which is another one then."""
    what = pick(random, "field, field, field, comment, before, behind, twice, end")
    if what == "field":
        return _damage_field(data, random)
    if what == "comment":
        return f"zip: {what}", data[:-2] + b"\4\0more"
    if what == "before":
        return f"zip: {what}", bytes(random.choice([1, 4, 1 << 16])) + data
    if what == "behind":
        return f"zip: {what}", data + random.choice([b"x", data, bytes(1 << 16)])
    if what == "twice":
        return f"zip: {what}", data + data[-22:]
    size = random.choice([0, 2**16 - 1, 2**31, 2**32 - 1, 2**48])
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, size, size, size, random.choice([0, size]))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(data) - 22, 1)
    return f"zip: end of {size}", data[:-22] + end64 + locator + data[-22:]


def _damage_field(data: bytes, random: Random) -> Mutated:
    sign = random.choice(list(_LAYOUTS))
    places = [at for at in range(len(data) - 3) if data.startswith(sign, at)]
    at, layout = random.choice(places) + 4, "<" + _LAYOUTS[sign]
    fields = list(struct.unpack_from(layout, data, at))
    index = random.randrange(len(fields))
    bits = 32 if _LAYOUTS[sign][index] == "I" else 16
    old = fields[index]
    fields[index] = random.choice([*EXTREMES, old + 1, old - 1, old ^ 1, 8, 12, 14]) & (2**bits - 1)
    changed = data[:at] + struct.pack(layout, *fields) + data[at + struct.calcsize(layout) :]
    return f"zip: field {index} of {sign!r} at {at} from {old} to {fields[index]}", changed


def damage_members(data: bytes, other: bytes, random: Random) -> Mutated:
    """Damage the members themselves; the archive is sound, and its checksums fit."""
    members, theirs = members_of(data), members_of(other)
    index = random.randrange(len(members))
    name, content = members[index]
    method = random.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    what = pick(
        random,
        "npy, npy, npy, values, values, drop, drop, double, exchange, exchange, theirs, theirs, theirs, name, empty, "
        "pickle, bomb, many, more, order",
    )
    if what == "npy":
        told, content = damage_npy(content, random)
        what = told
    elif what == "values":
        at = random.randrange(len(content) - 4)
        content = content[:at] + struct.pack("<f", random.choice([0, -1, 1e30, float("nan")])) + content[at + 4 :]
    elif what == "theirs":
        content = dict(theirs).get(name, b"")
    elif what == "name":
        name = random.choice(["x", "../x.npy", "/x.npy", "a/../../x.npy", "x.npy", ".npy", "", name + "\0x", "é.npy"])
    elif what == "empty":
        content = random.choice([b"", b"\0", b"text"])
    elif what == "pickle":
        content = npy_bytes("|O", (1,), b"\x80\4cos\nsystem\n(S'false'\ntR.")
    elif what == "bomb":
        content, method = npy_bytes("<f4", (_BOMB // 4,), bytes(_BOMB)), zipfile.ZIP_DEFLATED
    members[index] = (name, content)
    if what == "drop":
        del members[index]
    elif what == "double":
        members.append(members[index])
    elif what == "exchange":
        one = random.randrange(len(members))
        members[index], members[one] = (name, members[one][1]), (members[one][0], content)
    elif what == "many":
        members += [(f"{number}.npy", b"") for number in range(random.choice([10, 3000, 30000]))]
    elif what == "more":
        members.append((random.choice(["more.npy", "adam/99/mean.npy"]), npy_bytes("<f4", (2,), bytes(8))))
    elif what == "order":
        random.shuffle(members)
    return f"zip: {what}, member {index} {name!r}, method {method}", zip_bytes(members, method)
