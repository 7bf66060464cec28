"""Damaged files, made from sound ones by a seed: the same ones on any machine. ``mutations.py`` runs them.

Each function takes a ``random.Random`` and returns what it did, in words, and the damaged bytes. Half of the mutations
know nothing of the format; the other half damage one field of it and make the checksums fit again.
"""

import json
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

Mutated = tuple[str, bytes]

_BLOCK = 1 << 16
# Numbers at which types, shifts and products go wrong.
_NUMBERS = [0, 1, -1, 2, 7, 255, 256, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1]
_EXTREMES = [*_NUMBERS, 2**63, 2**64 - 1, 2**64, -(2**31), -(2**63)]


def mutate(form: str, data: bytes, other: bytes, random: Random) -> Mutated:
    """Damage a file.

    Args:
        form: one of FORMS.
        data: the sound file.
        other: another sound file, to splice in.
    """
    structured = FORMS[form]
    if random.random() < 0.4:
        whole = reform(data, random.choice(PARAMS_FORMS)) if form == "params" else data
        return _damage_bytes(whole, other, random)
    return structured(data, random)


def _pick(random: Random, words: str) -> str:
    return random.choice(words.split(", "))


# Bytes.


def _damage_bytes(data: bytes, other: bytes, random: Random) -> Mutated:
    at, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    length = min(2 ** random.randrange(10), len(data) - at)
    index = random.randrange(len(data))
    what = _pick(random, "flip, flips, set, cut, cut end, insert, insert block, delete, swap, repeat, splice, fill")
    out = bytearray(data)
    if what == "flip":
        out[index] ^= 1 << random.randrange(8)
    elif what == "flips":
        for _ in range(8):
            out[random.randrange(len(out))] ^= 1 << random.randrange(8)
    elif what == "set":
        out[index] = random.choice([0, 0xFF, 0x7F, 0x80, random.randrange(256)])
    elif what == "cut":
        del out[at:]
    elif what == "cut end":
        del out[-random.randrange(1, min(len(out), 16) + 1) :]
    elif what == "insert":
        out[at:at] = random.getrandbits(8 * 16).to_bytes(16, "little")[: random.randrange(1, 17)]
    elif what == "insert block":
        out[at:at] = bytes([random.randrange(256)]) * _BLOCK
    elif what == "delete":
        del out[at : at + length]
    elif what == "swap":
        middle = at + length // 2
        out[at : at + length] = out[middle : at + length] + out[at:middle]
    elif what == "repeat":
        out[at:at] = out[at : at + length]
    elif what == "splice":
        out[at:end] = other[min(at, len(other)) : min(end, len(other))]
    else:
        out[at : at + length] = bytes([random.choice([0, 0xFF])]) * length
    return f"bytes: {what} at {index if what in ('flip', 'set') else at} of {len(data)}", bytes(out)


# .params: magic, 0, count, tensors, count, names.


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


def _damage_params(data: bytes, random: Random) -> Mutated:
    tensors = _split_params(data)
    index = random.randrange(len(tensors))
    name, kind, shape, values = tensors[index]
    what = _pick(
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
    new = random.choice([*_EXTREMES, old + 1, old - 1, old * 2, old // 2, -old]) & (2 ** (8 * size) - 1)
    return f"params: field at {at} from {old} to {new}", data[:at] + new.to_bytes(size, "little") + data[at + size :]


# JSON: manifests and symbol files.

_DEEP = "\u0001deep"  # Stands for text that the JSON module would not write.
_TWIN = "\u0001twin"
_VALUES: list[Any] = [*_EXTREMES, 0.5, -0.0, 1e308, True, False, None, "", "x", "x" * 5000, "\0", "\n", [], {}]
_VALUES += [[[]], {"a": {}}, "1", "(1, 1)", "\ud800", "é", f"{_DEEP}100", f"{_DEEP}100000", f"{_DEEP}-3000000"]


def _paths(value: Any, path: tuple = ()) -> list[tuple]:
    """Where every value of a document is."""
    found = [path] if path else []
    if isinstance(value, dict):
        rows = list(value.items())
    elif isinstance(value, list):
        rows = list(enumerate(value))
    else:
        rows = []
    for key, below in rows:
        found += _paths(below, (*path, key))
    return found


def _dump(document: Any) -> bytes:
    """The document's text, with what the JSON module cannot write."""
    text = json.dumps(document).replace(json.dumps(_TWIN)[1:-1], "")
    before, mark, after = text.partition(f'"{json.dumps(_DEEP)[1:-1]}')
    if mark:
        number, _, after = after.partition('"')
        depth = int(number)
        text = before + ("[" * depth + "]" * depth if depth > 0 else "[" + "[]," * -depth + "0]") + after
    return text.encode()


def _damage_value(document: Any, random: Random, paths: list[tuple]) -> str:
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


def _damage_json(data: bytes, random: Random) -> Mutated:
    document = json.loads(data)
    return "json: " + _damage_value(document, random, _paths(document)), _dump(document)


_ATTRIBUTES = {
    "kernel": ["(0, 0)", "(-1, -1)", "(1,)", "(3, 3, 3)", "(2147483647, 2147483647)", "(4294967297, 1)", "()"],
    "stride": ["(0, 0)", "(-1, -1)", "(1,)", "(1000000, 1000000)", "(2147483648, 1)", "(1, 2, 3)"],
    "pad": ["(-1, -1)", "(1000000, 1000000)", "(2147483647, 0)", "(20000, 20000)", "()"],
    "dilate": ["(0, 0)", "(-1, -1)", "(1000000, 1000000)", "(1,)"],
    "adj": ["(-1, -1)", "(5, 5)", "(1000000, 0)"],
    "target_shape": ["(100000, 100000)", "(0, 0)", "(-1, -1)", "(1, 1)"],
    "num_filter": ["0", "-1", "4294967295", "2147483648", "1e9", "63"],
    "num_group": ["0", "-1", "2", "3", "4294967296", "64"],
    "no_bias": ["True", "2", "maybe"],
    "layout": ["NHWC", "NCW", "NCDHW", "x"],
    "workspace": ["0", "18446744073709551615"],
    "axis": ["99", "-99", "2147483648", "()", "(1, 1)", "None"],
    "axes": ["(0, 0, 0, 0)", "(3, 2)", "(-1, 0, 1, 2)", "(99, 3, 1, 2)", "()"],
    "shape": ["(0, 0, 0, 0)", "(-1, -1)", "(64, 16, 1, 2)", "(1099511627776, 1099511627776)", "(-4, -4)", "()"],
    "scalar": ["nan", "inf", "0", "1e400", "x"],
    "act_type": ["x", "softrelu", "", "softsign"],
    "dtype": ["float16", "int64", "uint8", "x", "99", "bool"],
    "input_dim": ["0", "-1", "65", "1000000000000", "1"],
    "output_dim": ["0", "-1", "17", "1000000000000"],
    "a_max": ["nan", "-1", "x"],
    "a_min": ["nan", "256"],
    "keepdims": ["1", "2"],
    "__shape__": ["(0,)", "(-1,)", "(1099511627776, 1099511627776)", "x", "(32, 1, 3)", "()"],
    "__dtype__": ["1", "99", "-1", "x"],
    "__storage_type__": ["1", "2", "99", "-1"],
    "__init__": ["x", "[]", '["nowhere", {}]'],
    "ctx_group": ["x"],
    "no_such_attribute": ["1"],
}
_OPERATORS = (
    "null Convolution Deconvolution FullyConnected Activation LeakyReLU BatchNorm Pooling Reshape Flatten Concat "
    "SliceChannel Embedding take argmin argmax Cast sum square transpose clip _mul_scalar _div_scalar elemwise_add dot "
    "batch_dot broadcast_add softmax SoftmaxOutput RNN ROIPooling UpSampling BilinearSampler GridGenerator Crop Pad "
    "slice slice_axis tile repeat reverse topk sort one_hot gather_nd scatter_nd pick where _zeros _ones _arange _full "
    "_random_uniform _foreach _while_loop _cond Custom _Native _NDArray _CachedOp _sg_mkldnn_conv CuDNNBatchNorm "
    "_contrib_box_nms _contrib_Proposal _contrib_fft _contrib_quantize _contrib_dgl_subgraph _copyto _cvimread "
    "_contrib_count_sketch linalg_potrf linalg_gemm _split_v2 IdentityAttachKLSparseReg sgd_update Correlation "
    "SpatialTransformer CTCLoss depth_to_space im2col col2im space_to_depth khatri_rao _npi_einsum no_such_operator"
)


def _damage_graph(data: bytes, random: Random) -> Mutated:
    document = json.loads(data)
    nodes = document["nodes"]
    computing = [node for node in nodes if node["op"] != "null"]
    node = random.choice(computing)
    what = _pick(random, "value, value, attribute, attribute, attribute, reference, head, operator")
    if what == "value":
        return "json: " + _damage_value(document, random, _paths(document)), _dump(document)
    if what == "attribute":
        node = random.choice([one for one in nodes if one.get("attrs")])
        known = [name for name in _ATTRIBUTES if name in node["attrs"]]
        name = random.choice(known if known and random.random() < 0.7 else sorted(_ATTRIBUTES))
        node["attrs"][name] = random.choice(_ATTRIBUTES[name])
        what = f"attribute {name} of {node['name']} to {node['attrs'][name]}"
    elif what == "reference":
        reference = random.choice(node["inputs"])
        index = random.randrange(3)
        reference[index] = random.choice([*_EXTREMES, random.randrange(len(nodes)), reference[index] + 1])
        what = f"reference of {node['name']} to {reference}"
    elif what == "head":
        head = random.choice([[random.randrange(len(nodes)), random.choice([0, 1, 2, 2**31, 2**32]), 0], [0, 0, 0]])
        document["heads"] = random.choice([[head], [*document["heads"], head], document["heads"] * 3])
        what = f"heads to {document['heads']}"
    else:
        node["op"] = random.choice([random.choice(_OPERATORS.split()), random.choice(computing)["op"]])
        what = f"operator of {node['name']} to {node['op']}"
    return f"json: {what}", _dump(document)


# PNG.

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _split_png(data: bytes) -> list[tuple[bytes, bytes]]:
    at, chunks = 8, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def _join_png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return _SIGNATURE + b"".join(png_chunk(*chunk) for chunk in chunks)


def exif(orientation: int, order: str = "<") -> bytes:
    """EXIF data with an orientation, as eXIf has it; a JPEG has ``Exif\\0\\0`` before it."""
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HIH", 42, 8, 1) + entry + bytes(4)


def _damage_exif(random: Random) -> bytes:
    data = exif(random.randrange(10), random.choice("<>"))
    return data if random.random() < 0.5 else _damage_bytes(data, data, random)[1][:1000]


def _damage_png(data: bytes, random: Random) -> Mutated:
    chunks = _split_png(data)
    index = random.randrange(len(chunks))
    kind, content = chunks[index]
    what = _pick(
        random,
        "header, header, header, drop, double, move, content, content, content, insert, insert, type, split, pixels, "
        "pixels, trailing, crc, length",
    )
    if what == "header":
        fields = [*struct.unpack(">II5B", chunks[0][1])]
        field = random.randrange(7)
        values = [0, 1, 2, 4, 7, 28, 1000, 13377, 13378, 2**31 - 1, 2**31, 2**32 - 1] if field < 2 else [*range(9), 16]
        fields[field] = random.choice([fields[field] + 1, fields[field] - 1 & 0xFF, *values, random.randrange(256)])
        chunks[0] = (b"IHDR", struct.pack(">II5B", *fields))
        what += f" field {field} to {fields[field]}"
    elif what == "drop":
        del chunks[index]
    elif what == "double":
        chunks.insert(index, chunks[index])
    elif what == "move":
        chunks.insert(random.randrange(len(chunks)), chunks.pop(index))
    elif what == "content":
        content = _damage_bytes(content, data, random)[1] if content else b"x"
        chunks[index] = (kind, content[: 1 << 20])
    elif what == "insert":
        extra = random.choice(
            [
                (b"eXIf", _damage_exif(random)),
                (b"tRNS", random.choice([bytes(2), bytes(6), bytes(300), b"\1"])),
                (b"gAMA", struct.pack(">I", random.choice([0, 1, 45455, 100000, 2**31]))),
                (b"PLTE", bytes(random.choice([0, 3, 4, 765, 768, 771]))),
                (b"iCCP", b"x\0\0" + zlib.compress(bytes(200), 0)),
                (b"acTL", struct.pack(">II", 1, 0)),
                (b"sBIT", b"\1"),
                (b"tEXt", b"k\0" + b"x" * 100),
                (b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20))),
                (b"ABCD", b"critical and unknown"),
                (b"IDAT", b""),
                (b"IEND", b""),
                (b"\0\0\0\0", b""),
            ]
        )
        chunks.insert(index, extra)
        what += f" {extra[0]!r}"
    elif what == "type":
        chunks[index] = (random.choice([b"IHDR", b"PLTE", b"IDAT", b"IEND", kind.lower(), kind.upper()]), content)
    elif what == "split":
        at = random.randrange(len(content) + 1)
        between = random.choice([[], [], [(b"tEXt", b"k\0v")]])
        chunks[index : index + 1] = [(kind, content[:at]), *between, (kind, content[at:])]
    elif what == "pixels":
        rows = bytearray(zlib.decompress(b"".join(below for name, below in chunks if name == b"IDAT")))
        change = random.choice(["filter", "bytes", "more", "fewer", "stored"])
        if change in ("filter", "bytes"):
            rows[0 if change == "filter" else random.randrange(len(rows))] = random.randrange(256)
        elif change == "more":
            rows += bytes(random.choice([1, 100, 1 << 20]))
        elif change == "fewer":
            del rows[-random.randrange(1, len(rows) + 1) :]
        first = next(at for at, chunk in enumerate(chunks) if chunk[0] == b"IDAT")
        chunks = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
        chunks.insert(first, (b"IDAT", zlib.compress(bytes(rows), 0)))
        what += f" {change}"
    joined = _join_png(chunks)
    if what == "trailing":
        joined += random.choice([b"\0", b"trailing", _SIGNATURE, joined])
    elif what in ("crc", "length"):
        at = 8 + sum(12 + len(below) for _, below in chunks[:index]) + (0 if what == "length" else 8 + len(content))
        number = random.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, random.getrandbits(32)])
        joined = joined[:at] + struct.pack(">I", number) + joined[at + 4 :]
    return f"png: {what}, chunk {index} {kind.decode()}", joined


# JPEG.


def _split_jpeg(data: bytes) -> tuple[list[bytes], bytes]:
    """The segments up to and with the first start of scan; the rest."""
    at, segments = 2, []
    while True:
        (length,) = struct.unpack_from(">H", data, at + 2)
        segments.append(data[at : at + 2 + length])
        at += 2 + length
        if segments[-1][1] == 0xDA:
            return segments, data[at:]


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _damage_jpeg(data: bytes, random: Random) -> Mutated:
    segments, rest = _split_jpeg(data)
    index = random.randrange(len(segments))
    segment = segments[index]
    what = _pick(
        random,
        "frame, frame, drop, double, move, content, content, content, marker, insert, insert, scan, scan, end, fill",
    )
    if what == "frame":
        index = next(at for at, one in enumerate(segments) if 0xC0 <= one[1] <= 0xC2)
        frame, field = bytearray(segments[index]), random.choice(["height", "width", "byte"])
        if field == "byte":
            frame[random.randrange(4, len(frame))] = random.choice([0, 1, 2, 4, 0x11, 0x22, 0x44, 0xFF])
        else:
            size = random.choice([0, 1, 2, 8, 28, 63, 1000, 13000, 65500, 65535])
            frame[5 if field == "height" else 7 : 7 if field == "height" else 9] = struct.pack(">H", size)
        segments[index] = bytes(frame)
        what += f" {field}"
    elif what == "drop":
        del segments[index]
    elif what == "double":
        segments.insert(index, segment)
    elif what == "move":
        segments.insert(random.randrange(len(segments)), segments.pop(index))
    elif what == "content":
        segments[index] = segment[:4] + _damage_bytes(segment[4:], data, random)[1][: _BLOCK - 100]
        if random.random() < 0.7:
            segments[index] = _segment(segment[1], segments[index][4:])
    elif what == "marker":
        segments[index] = b"\xff" + bytes([random.choice([0, 1, *range(0xC0, 256)])]) + segment[2:]
    elif what == "insert":
        extra = random.choice(
            [
                _segment(0xE1, b"Exif\0\0" + _damage_exif(random)),
                _segment(0xEE, b"Adobe\0\x64" + bytes(4) + bytes([random.randrange(4)])),
                _segment(0xDD, struct.pack(">H", random.choice([0, 1, 2, 65535]))),
                _segment(0xFE, b"x" * 65000),
                _segment(0xE0, b"JFIF\0" + bytes(9)),
                _segment(0xC4, bytes([random.choice([0, 1, 16, 17, 255]), *[random.randrange(3) for _ in range(16)]])),
                b"\xff\xd8",
                b"\xff\xff\xff",
            ]
        )
        segments.insert(index, extra)
        what += f" {extra[1]:#x}"
    elif what == "scan":
        rest = _damage_bytes(rest, data, random)[1]
    elif what == "end":
        rest = random.choice([rest[:-2], rest[:-2] + b"\xff\xd9" * 2, rest + b"trailing", rest + data])
    else:
        segments[index] = b"\xff" * random.randrange(1, 9) + segment
    return f"jpeg: {what}, segment {index} {segment[1]:#x}", data[:2] + b"".join(segments) + rest


# .npy.


def _damage_npy(data: bytes, random: Random) -> Mutated:
    (length,) = struct.unpack_from("<H", data, 8)
    header, values = data[10 : 10 + length].decode("latin-1"), data[10 + length :]
    start, end = header.index("("), header.index(")") + 1
    what = _pick(random, "shape, shape, type, order, text, version, length, values, bytes")
    shapes = [
        "()",
        "(0,)",
        "(-1, 28, 28)",
        "(1, 28, 28, 1)",
        "(1, 28, 28, 3)",
        "(28, 28)",
        "(2147483648, 28, 28)",
        "(1,)",
    ]
    shapes += [
        "(4294967296, 4294967296)",
        "(1, 28, 28, 1, 1)",
        "(1, 28, 28",
        "1, 28, 28)",
        "(1, 784, 1)",
        "(1, 1, 784)",
    ]
    shapes += ["(True, 28, 28)", "(1,28,28)", "(1, 28, 28,)", "(01, 28, 28)", "(1, 28.0, 28)", "(" + "1, " * 99 + ")"]
    if what == "shape":
        header = header[:start] + random.choice(shapes) + header[end:]
    elif what == "type":
        types = ["|i1", "<u1", "=u1", ">u1", "u1", "|b1", "<f4", ">i4", "|O8", "|V1", "<U1", "<c8", "|u1'", "x", ""]
        header = header.replace("|u1", random.choice(types))
    elif what == "order":
        header = header.replace("False", random.choice(["True", "0", "None", "false", "1"]))
    elif what == "text":
        texts = [
            "{}",
            "",
            "[" * 3000,
            "{'descr': '|u1'}",
            "__import__('os')",
            "(" * 200 + ")" * 200,
            "\0",
            "{" + header,
        ]
        header = random.choice(texts)
    elif what == "bytes":
        header = _damage_bytes(header.encode("latin-1"), data, random)[1][:60000].decode("latin-1")
    elif what == "values":
        values = _damage_bytes(values, data, random)[1]
    size = len(header) if what != "length" else random.choice([0, 1, length - 1, length + 1, 4096, 65535])
    version = b"\1\0" if what != "version" else random.choice([b"\0\0", b"\2\0", b"\3\0", b"\1\1", b"\xff\xff"])
    return f"npy: {what}", b"\x93NUMPY" + version + struct.pack("<H", size) + header.encode("latin-1") + values


# .vq.

_VQ_HEADER = "<8s32s6I"


def vq_bytes(bundle: bytes, sizes: tuple[int, int, int, int, int, int], codes: list[int]) -> bytes:
    """A .vq file by the table of its format; the sizes are N, H, W, h, w, K."""
    width = max(1, (sizes[5] - 1).bit_length())
    stream = sum(code << index * width for index, code in enumerate(codes))
    packed = stream.to_bytes((len(codes) * width + 7) // 8, "little")
    return fit_vq(struct.pack(_VQ_HEADER, b"VQCODES1", bundle, *sizes) + packed + bytes(4))


def fit_vq(data: bytes) -> bytes:
    """The file with a checksum that fits."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def _damage_vq(data: bytes, random: Random) -> Mutated:
    fields = [*struct.unpack_from(_VQ_HEADER, data)]
    codes = data[64:-4]
    what = _pick(random, "size, size, size, bundle, codes, codes, longer, magic")
    if what == "size":
        field = random.randrange(2, 8)
        fields[field] = random.choice([*(n for n in _NUMBERS if 0 <= n < 2**32), fields[field] + 1, fields[field] - 1])
        what += f" {field - 2} to {fields[field]}"
    elif what == "bundle":
        fields[1] = bytes(32)
    elif what == "codes":
        at = random.randrange(len(codes))
        codes = codes[:at] + bytes([random.randrange(256)]) + codes[at + 1 :]
    elif what == "longer":
        codes += bytes(random.choice([1, 4, 1000]))
    else:
        fields[0] = random.choice([b"VQCODES2", b"vqcodes1", bytes(8)])
    return f"vq: {what}", struct.pack(_VQ_HEADER, *fields) + codes + data[-4:]


Damage = Callable[[bytes, Random], Mutated]
FORMS: dict[str, Damage] = {
    "manifest": _damage_json,
    "json": _damage_graph,
    "params": _damage_params,
    "png": _damage_png,
    "jpeg": _damage_jpeg,
    "npy": _damage_npy,
    "vq": _damage_vq,
}

# Sound images.


def png_bytes(width: int, height: int, bits: int, color: int, interlaced: bool, random: Random) -> bytes:
    """A PNG of noise; uncompressed, so that its bytes do not depend on a library's version."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = bytearray()
    for left, top, across, down in passes if interlaced else [(0, 0, 1, 1)]:
        columns = (width - left + across - 1) // across
        size = (columns * samples * bits + 7) // 8
        for _ in range(top, height if columns > 0 else 0, down):
            rows += bytes([random.randrange(5)]) + random.getrandbits(8 * size).to_bytes(size, "little")
    header = struct.pack(">II5B", width, height, bits, color, 0, 0, int(interlaced))
    palette = [(b"PLTE", random.getrandbits(24 * 2**bits).to_bytes(3 * 2**bits, "little"))] if color == 3 else []
    return _join_png([(b"IHDR", header), *palette, (b"IDAT", zlib.compress(bytes(rows), 0)), (b"IEND", b"")])


def claimed_pixels(data: bytes) -> int:
    """Pixels that an image file says it has, more than which nobody needs to allocate; 0 if it says none."""
    limit = 178956970
    if data.startswith(_SIGNATURE) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return min(width * height, limit)
    if data.startswith(b"\xff\xd8"):
        most = 0
        for at in range(2, len(data) - 9):
            if data[at] == 0xFF and 0xC0 <= data[at + 1] <= 0xCF:
                height, width = struct.unpack_from(">HH", data, at + 5)
                most = max(most, height * width)
        return min(most, limit)
    return 0
