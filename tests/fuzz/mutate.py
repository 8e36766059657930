"""Real bytes made wrong: bits, pieces, JSON values, and the lies that a safetensors header can tell."""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutation = Callable[[Random, bytes, Sequence[bytes]], bytes]

MAX_BYTES = (
    64 * 1024
)  # of a mutated value: rubbish need not be large to be rubbish; sizes are a target of their own
NUMBERS = (0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(10**30), 1e308, -1e308, 5e-324, 0.5)
TEXTS = (
    "",
    " ",
    "\x00",
    "\ufeff",
    "é",
    "𝄞",
    "\u202e",
    "a" * 300,
    "a" * 5_000,
    "null",
    "rides:acorn",
    "../..",
    "%s{}",
)
RAW = (b"NaN", b"-Infinity", b"1e999", b"0" * 40, b"1" * 5_000, b'"\\ud800"', b"\xff\xfe", b"[" * 3_000, b"{}")
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "", "X")


def mutated(random: Random, seed: bytes, seeds: Sequence[bytes]) -> bytes:
    """One to four mutations, one after the other."""
    data = seed
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = random.choice(MUTATIONS)(random, data, seeds)[:MAX_BYTES]
    return data


def flip(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(random.choice((1, 2, 8))):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def cut(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    start, end = _piece(random, data)
    return random.choice((data[:start], data[end:], data[:start] + data[end:]))


def repeat(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    start, end = _piece(random, data)
    return data[:end] + data[start:end] * random.choice((1, 2, 50)) + data[end:]


def splice(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = random.choice(seeds)
    return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]


def insert(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = random.randint(0, len(data))
    return data[:at] + random.choice((*RAW, random.randbytes(random.choice((1, 4, 64))))) + data[at:]


def change_json(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Another value somewhere in it, a key more, a key fewer; flipped where it is no JSON."""
    try:
        root = [json.loads(data)]
    except (ValueError, RecursionError):
        return flip(random, data, seeds)
    node: Any = root
    while True:
        keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = random.choice(keys)
        if not isinstance(node[key], dict | list) or random.random() < 0.3:
            node[key] = _other(random, node[key])
            break
        node = node[key]
    if isinstance(node, dict) and random.random() < 0.3:
        node[random.choice(TEXTS)] = random.choice(NUMBERS)
    if isinstance(node, dict) and node and random.random() < 0.2:
        del node[random.choice(list(node))]
    return json.dumps(root[0]).encode()


def replace_number(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A raw token in place of what stands behind a colon."""
    places = [at for at in range(len(data)) if data[at : at + 1] == b":"]
    if not places:
        return insert(random, data, seeds)
    start = random.choice(places) + 1
    ends = [at for mark in b",}" if (at := data.find(mark, start)) >= 0]
    token = random.choice((*RAW, *(json.dumps(one).encode() for one in (*NUMBERS, *TEXTS))))
    return data[:start] + token + data[min(ends, default=len(data)) :]


def lie_in_header(random: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """What a safetensors header says: its length, a tensor's type, its shape, where it stands."""
    size = int.from_bytes(data[:8], "little")
    if random.random() < 0.2 or not 2 <= size <= len(data) - 8:
        lie = random.choice((0, 1, size - 1, size + 1, size * 2, len(data), 2**31, 2**63, 2**64 - 1))
        return (lie % 2**64).to_bytes(8, "little") + data[8:]
    try:
        header = json.loads(data[8 : 8 + size])
        entries = [name for name in header if name != "__metadata__"]
        _lie(random, header, entries)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return flip(random, data, seeds)
    said = json.dumps(header).encode()
    return len(said).to_bytes(8, "little") + said + data[8 + size :]


def _lie(random: Random, header: dict[str, Any], entries: list[str]) -> None:
    name = random.choice(entries)
    entry, other = header[name], header[random.choice(entries)]
    kind = random.randrange(7)
    if kind == 0:
        entry["dtype"] = random.choice(DTYPES)
    elif kind == 1:
        entry["shape"] = [*entry["shape"], random.choice((0, 1, 2, 2**31, 2**63, 2**64, -1))]
    elif kind == 2:
        entry["shape"] = [2**32, 2**32]
    elif kind == 3:
        entry["data_offsets"] = other["data_offsets"]
    elif kind == 4:
        start, end = entry["data_offsets"]
        entry["data_offsets"] = random.choice(([end, start], [start, end + 1], [start, 2**62], [-1, end], []))
    elif kind == 5:
        header[random.choice(TEXTS)] = header.pop(name)
    else:
        entry["shape"] = list(reversed(entry["shape"]))


def _piece(random: Random, data: bytes) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.choice((1, 4, 32, 512)))


def _other(random: Random, value: object) -> object:
    choices: tuple[object, ...] = (
        *NUMBERS,
        *TEXTS,
        None,
        True,
        [],
        {},
        [value],
        {"x": value},
        [value] * random.choice((2, 101, 501)),
    )
    return random.choice(choices)


MUTATIONS: tuple[Mutation, ...] = (
    flip,
    cut,
    repeat,
    splice,
    insert,
    change_json,
    change_json,
    replace_number,
    lie_in_header,
)
