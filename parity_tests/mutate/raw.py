"""Damage that knows nothing of a format, and what the modules of all formats use."""

from random import Random

Mutated = tuple[str, bytes]

BLOCK = 1 << 16
# Numbers at which types, shifts and products go wrong.
NUMBERS = [0, 1, -1, 2, 7, 255, 256, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1]
EXTREMES = [*NUMBERS, 2**63, 2**64 - 1, 2**64, -(2**31), -(2**63)]


def pick(random: Random, words: str) -> str:
    return random.choice(words.split(", "))


def damage_bytes(data: bytes, other: bytes, random: Random) -> Mutated:
    at, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    length = min(2 ** random.randrange(10), len(data) - at)
    index = random.randrange(len(data))
    what = pick(random, "flip, flips, set, cut, cut end, insert, insert block, delete, swap, repeat, splice, fill")
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
        out[at:at] = bytes([random.randrange(256)]) * BLOCK
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
