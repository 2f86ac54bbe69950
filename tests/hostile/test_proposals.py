"""Files of proposals that are damaged: read with the right meaning, or refused by name."""

import io
import json
import math
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import FAST, cases, damaged_bytes, damaged_values, texts_of

from libra_keras.data import read_proposals

ROWS = [
    {"image_id": 7, "category_id": 1, "bbox": [1, 2.5, 3, 4], "score": 0.5},
    {"image_id": 7, "bbox": [10, 20, 0, 40], "score": 0.75},
    {"image_id": -3, "bbox": [0, 0, 5, 5], "score": 1},
]
ARRAYS = {
    "image_ids": np.array([7, 2, -3]),
    "counts": np.array([2, 0, 1]),
    "boxes": np.array([[1, 2, 4, 6], [10, 20, 10, 60], [0, 0, 5, 5]], "float32"),
    "scores": np.array([0.5, 0.75, 1], "float32"),
}
INT64, LARGEST = range(-(2**63), 2**63), float(np.finfo("float32").max)


class StartsAProgram:
    def __reduce__(self):
        return os.system, ("true",)


WRONG_ARRAYS = [
    np.array(7), np.zeros(0), np.zeros((0, 4)), np.zeros((3, 0)), np.zeros((3, 3)),
    np.ones(3, bool), np.array(["1", "2", "3"]), np.array([b"a"] * 3), np.array([1.7, 2.2, 3.9]),
    np.full(3, np.nan), np.array([5, -4, 2]), np.array([2**62, 2**62, 3 - 2**63]),
    np.array([2**63, 2, 3], "uint64"), np.array([3, 0, 0], ">i2"), np.ones(3, complex),
    np.zeros(3, "datetime64[s]"), np.zeros(3, "V0"), np.zeros(3, [("x", "f4")]),
    np.array([None] * 3), np.array([StartsAProgram()] * 3, object), np.array([7, 7, 1]),
    np.full((3, 4), np.inf), np.full((3, 4), 1e300), np.ones((3, 4), "float16"),
    np.array([[0, 0, 1, 1], [0, 9, 1, 1], [0, 0, 1, 1]]), np.ones((3, 4), "int64", order="F"),
]  # fmt: skip


@st.composite
def damaged_arrays(draw):
    """The bytes of an archive in which arrays are others, are missing, or are cut."""
    arrays = dict(ARRAYS)
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from([*ARRAYS, "more"]))
        change = draw(st.sampled_from(["replace", "replace", "delete", "value", "length"]))
        if change == "replace" or name not in arrays:
            arrays[name] = draw(st.sampled_from(WRONG_ARRAYS))
        elif change == "delete":
            del arrays[name]
        elif change == "length":
            arrays[name] = np.repeat(arrays[name], draw(st.integers(0, 2)), axis=0)
        elif arrays[name].dtype.kind in "if" and arrays[name].size:
            arrays[name] = arrays[name].copy()
            arrays[name].flat[draw(st.integers(0, arrays[name].size - 1))] = draw(
                st.sampled_from([-1, 0, 1, 2, 7, 127])
            )
    file, save = io.BytesIO(), draw(st.sampled_from([np.savez, np.savez_compressed]))
    save(file, **arrays)
    return file.getvalue()


def other_files():
    """What is no archive of arrays: one array, a pickle, nothing."""
    array, whole = io.BytesIO(), io.BytesIO()
    np.save(array, ARRAYS["boxes"])
    np.savez(whole, **ARRAYS)
    others = st.sampled_from([array.getvalue(), pickle.dumps(StartsAProgram()), b"", b"PK\3\4"])
    return st.one_of(damaged_bytes(whole.getvalue()), others)


def best_first(images):
    """What `read_proposals` is to return of `{id: [(corners, score)]}`; `None` of bad numbers."""
    for rows in images.values():
        for (x1, y1, x2, y2), score in rows:
            if not all(abs(n) <= LARGEST for n in (x1, y1, x2, y2, score)) or x2 < x1 or y2 < y1:
                return None
        rows.sort(key=lambda row: -np.float32(row[1]))
    return [
        (image, *(np.float32([row[part] for row in rows]).tolist() for part in (0, 1)))
        for image, rows in images.items()
    ]


def meaning_of_json(text):
    """What a JSON means, read in the plainest way; `None` if it has none."""
    try:
        rows, images = json.loads(text), {}
        if type(rows) is not list:
            return None
        for row in rows:
            image, (x, y, width, height), score = row["image_id"], row["bbox"], row["score"]
            numbers = [x, y, width, height, score]
            if type(image) is not int or image not in INT64 or type(row["bbox"]) is not list:
                return None
            if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
                return None
            if any(type(n) is int and n not in INT64 for n in numbers):
                return None
            corners = x, y, float(x) + width, float(y) + height
            images.setdefault(image, []).append((corners, score))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return best_first(images)


def meaning_of_npz(content):
    """What an archive means, read in the plainest way; `None` if it has none."""
    try:
        content = content[content.index(b"PK\3\4") :]  # archives may have other bytes in front
        with np.load(io.BytesIO(content)) as file:
            ids, counts, boxes, scores = (file[name].tolist() for name in ARRAYS)
            kinds = "".join(file[name].dtype.kind for name in ARRAYS if file[name].size)
            if any(file[name].size and file[name].ndim != 1 for name in ARRAYS if name != "boxes"):
                return None
        if set(kinds) - set("iuf") or any(type(n) is not int for n in [*ids, *counts]):
            return None
        if min([0, *counts]) < 0 or any(i not in INT64 for i in ids) or len(set(ids)) < len(ids):
            return None
        if not len(ids) == len(counts) or not sum(counts) == len(boxes) == len(scores):
            return None
        rows = iter(zip(boxes, scores, strict=True))
        images = {i: [next(rows) for _ in range(n)] for i, n in zip(ids, counts, strict=True)}
        return best_first(images)
    except Exception:  # NumPy raises nearly anything
        return None


@pytest.fixture
def is_right(tmp_path, guarded):
    """Returns a check of a file's bytes against what they mean."""

    def check(suffix, content, meaning):
        path = tmp_path / f"proposals{suffix}"
        path.write_bytes(content)
        guarded.forget()
        try:
            found = read_proposals(path)
        except (ValueError, OSError) as error:
            assert str(path) in str(error) and "\n" not in str(error)
            assert meaning is None, f"{error} for {meaning}"
        else:
            rows = [(p["image_id"], p["boxes"].tolist(), p["scores"].tolist()) for p in found]
            assert rows == meaning
        guarded()

    return check


JSONS = texts_of(ROWS, damaged_values(ROWS))
ARCHIVES = st.one_of(damaged_arrays(), damaged_arrays(), other_files())


@cases(FAST)
@given(content=JSONS)
def test_json(is_right, content):
    is_right(".json", content, meaning_of_json(content))


@cases(FAST)
@given(content=ARCHIVES)
def test_npz(is_right, content):
    is_right(".npz", content, meaning_of_npz(content))
