"""A sound file of settings, and damaged ones."""

from random import Random

from mutate.raw import EXTREMES, Mutated, pick

TOML = b"""preset = "mnist"

[model]
hidden_channels = [2, 3]
embedding_dim = 2
num_embeddings = 4
commitment_cost = 0.25
residual_blocks = 1
residual_channels = 2
quantizer = "ema"

[training]
data = "images"
epochs = 2
batch_size = 2
learning_rate = 1e-3
validation_images = 2
mean_start = true

[run]
output = "nowhere"
data_directory = "none"
num_workers = 0
"""
_VALUES = [
    *map(str, EXTREMES),
    *('""', '"x"', "'''x'''", '"\\u0000"', '"\\uD800"', "true", "nan", "-inf", "1e999", "0x7fffffffffffffff", "1_000"),
    *("[]", "[1, 'x']", "[[1], [2]]", "{}", "{a = {b = 1}}", "1979-05-27T07:32:00Z", "07:32:00", "1.", "", "[", "]"),
    *("9" * 5000, "9" * 100000, "0x" + "f" * 100000, "[" * 50000, "[" * 900 + "]" * 900, "{a=" * 400 + "1" + "}" * 400),
    *(
        '"' + "x" * 500000 + '"',
        '"' + "x" * 500000,
        '"""' + "\\" * 100001,
        "[" + "1," * 100000 + "1]",
        "1e" + "9" * 300,
    ),
    *("[" + "[]," * 900 + "1]", "65537", "300", "1000000000", "[60000, 60000]", "[" + "2," * 20 + "2]", '"../../x"'),
]
_KEYS = ["x", "", "a.b.c", '"a b"', '"' + "k" * 100000 + '"', "a" + ".a" * 400, "a" + ".a" * 300000, "k" * 100000, "é"]
_SECTIONS = ["[x]", "[[model]]", "[model.x]", "[]", "[" * 500, "[training]", "[run", "[" + "a." * 9000 + "a]"]


def damage_toml(data: bytes, random: Random) -> Mutated:
    lines = data.decode().splitlines()
    index = random.choice([at for at, line in enumerate(lines) if " = " in line])
    key, value = lines[index].split(" = ", 1)
    what = pick(
        random, "value, value, value, value, key, key, double, drop, move, section, many, dots, inline, exchange"
    )
    if what == "value":
        value = random.choice(_VALUES)
        what += f" of {key} to {value[:30]}"
    elif what == "key":
        key = random.choice(_KEYS)
        what += f" to {key[:30]}"
    lines[index] = f"{key} = {value}"
    if what == "double":
        lines.insert(index, lines[index])
    elif what == "drop":
        del lines[random.randrange(len(lines))]
    elif what == "move":
        lines.insert(random.randrange(len(lines)), lines.pop(index))
    elif what == "section":
        at = random.choice([at for at, line in enumerate(lines) if line.startswith("[") and "=" not in line])
        lines[at] = random.choice(
            ["[x]", "[[model]]", "[model.x]", "[]", "[" * 500, "[training]", "[run", f"[{'a.' * 9000}a]"]
        )
        what += f" to {lines[at][:30]}"
    elif what == "many":
        count = random.choice([100, 10000, 100000])
        lines += [f"k{number} = 1" for number in range(count)][: 1000000 // 14]
    elif what == "dots":
        lines[:0] = [f"a{number}.b.c.d = 1" for number in range(random.choice([30, 300, 50000]))]
    elif what == "inline":
        lines[:0] = ["x = " + "{a." + "b." * random.choice([1, 90, 90000]) + "c = 1}"]
    elif what == "exchange":
        other = random.randrange(len(lines))
        lines[index], lines[other] = lines[other], lines[index]
    return f"toml: {what}", "\n".join(lines).encode() + b"\n"
