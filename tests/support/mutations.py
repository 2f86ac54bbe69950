"""Hypothesis strategies that damage files: values of a JSON, lines of a text, bytes of anything."""

import copy
import json
import math
import os
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# How many cases a fuzzer tries that takes milliseconds, or longer, for each, each time.
FAST, SLOW = 200, 25

# What stands where another value belongs: types, signs, ranges, texts that look like something.
WRONG = [
    None, True, False, 0, -1, 1, 7.9, -0.5, 1e308, -1e308, math.nan, math.inf, -math.inf,
    2**31, 2**63, -(2**63) - 1, 10**30, "", " ", "1", "nan", "0x10", "\x00", "\ud800", "é",
    "a" * 5000, "../../outside.jpg", "/dev/zero", "/etc/passwd", "..", "C:\\x.jpg", "%s{0}\n", [],
    {}, [[]], [1, 2], [None] * 4, ["1", "2", "3", "4"], [1, 2, 3, 4, 5], {"id": 1}, [[[[[[]]]]]],
]  # fmt: skip


def cases(default: int) -> settings:
    """Settings of a fuzzer: so many cases, or as many as `LIBRA_KERAS_FUZZ_CASES` says.

    A case may take two seconds on a busy machine, or ten times as much where a few are tried
    because they take longer.
    """
    number = int(os.environ.get("LIBRA_KERAS_FUZZ_CASES", default))
    return settings(
        max_examples=number,
        deadline=2000 if default == FAST else 20_000,
        database=None,
        derandomize="LIBRA_KERAS_FUZZ_CASES" not in os.environ,  # CI tries the same cases each time
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged_values(draw, content, most=3):
    """A copy of a JSON's content with up to so many changes: one `(content, changes)`.

    A change replaces, deletes, doubles or renames what stands at a random place. `changes` says
    what was done, for the message of a failing case; it is empty now and then.
    """
    content, changes = copy.deepcopy(content), []
    for _ in range(draw(st.integers(0, most))):
        places = [(holder, key) for holder, key in _places(content)]
        if not places:
            break
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        kind = draw(st.sampled_from(["replace", "replace", "delete", "double", "rename", "deepen"]))
        changes.append((kind, key))
        _change(draw, holder, key, kind)
    return content, changes


def _places(content):
    """All pairs of a list or dict and a key or position in it."""
    items = []
    if isinstance(content, dict):
        items = list(content.items())
    elif isinstance(content, list):
        items = list(enumerate(content))
    for key, value in items:
        yield content, key
        yield from _places(value)


def _change(draw, holder, key, kind):
    if kind == "delete":
        del holder[key]
    elif kind == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif kind == "rename" and isinstance(holder, dict):
        holder[draw(st.sampled_from(["", "id", "x", key.upper()]))] = holder.pop(key)
    elif kind == "deepen":
        holder[key] = [holder[key]]
    else:
        holder[key] = copy.deepcopy(draw(st.sampled_from(WRONG)))


@st.composite
def damaged_bytes(draw, content: bytes, most=4):
    """A copy of a file's bytes with up to so many changes: flipped, cut, inserted, repeated."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        end = min(len(content), place + draw(st.sampled_from([1, 2, 4, 16, 256, 2**30])))
        kind = draw(st.sampled_from(["set", "cut", "insert", "repeat", "zero"]))
        if kind == "set" and content:
            content[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place:end]
        elif kind == "insert":
            content[place:place] = draw(st.binary(max_size=16))
        elif kind == "repeat":
            content[place:place] = content[place : min(end, place + 2**16)]
        elif kind == "zero":
            content[place:end] = bytes(end - place)
    return bytes(content)


def texts_of(content, damaged):
    """JSON of damaged values, half of the time with bytes damaged besides: `bytes`."""
    whole = damaged.map(lambda pair: json.dumps(pair[0]).encode("utf-8", "surrogatepass"))
    broken = damaged_bytes(json.dumps(content).encode())
    deep = st.integers(1, 200_000).map(lambda n: b'{"images":' + b"[" * n)
    return st.one_of(whole, whole, broken, deep)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of all that lies in a folder, to see that nothing was written there."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = status.st_size, status.st_mtime_ns
    return found
