"""Damaged labels, lists, names and YAMLs in YOLO's form."""

import functools
import json

import pytest
from hostile_data import (
    HEIGHT,
    NO_FILES,
    WIDTH,
    boxes_of,
    damaged_lines,
    draw_images,
    fuzzer_of,
    kept,
    number,
    read_twice,
    same,
    stand_in,
)
from hypothesis import strategies as st
from mutations import damaged_bytes, damaged_values

from libra_keras.data import yolo

SOUND = "0 0.5 0.5 0.25 0.5\n1 .1 .2 .5 .1 .4 .6 .2 .5\n"
YAML = {"path": ".", "train": "train.txt", "val": "images", "nc": 2, "names": ["cat", "dog"]}
LIST = "".join(f"./images/{name}.png\n" for name in "abc")
BOXES = [("cat", 22.5, 10, 37.5, 30), ("dog", 6, 4, 30, 24)]


@pytest.fixture
def folder(tmp_path):
    draw_images(tmp_path, [f"images/{name}.png" for name in "abc"])
    (tmp_path / "labels").mkdir()
    for name in "abc":
        (tmp_path / f"labels/{name}.txt").write_text(SOUND)
    (tmp_path / "data.yaml").write_text(json.dumps(YAML))
    (tmp_path / "train.txt").write_text(LIST)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    yolo(tmp_path)  # imports what is imported late
    return tmp_path


def expected(content):
    """The boxes of a label file by the definition of the form, and how many lines are bad."""
    boxes, bad, seen = [], 0, set()
    for line in content.decode("utf-8-sig").splitlines():
        values = [number(field) for field in line.split()]
        if not values:
            continue
        is_box, is_polygon = len(values) in (5, 6), len(values) >= 9 and len(values) % 2
        fractions = values[1:] if is_polygon else values[1:5]
        is_bad = None in values or not (is_box or is_polygon) or values[0] not in (0, 1)
        if is_bad or not all(-0.01 <= value <= 1.01 for value in fractions):
            bad += 1
            continue
        x, y, w, h = values[1:5]
        corners = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        if is_polygon:
            xs, ys = values[1::2], values[2::2]
            corners = min(xs), min(ys), max(xs), max(ys)
        if (values[0], corners) not in seen:
            seen.add((values[0], corners))
            sides = WIDTH, HEIGHT, WIDTH, HEIGHT
            scaled = (side * corner for side, corner in zip(sides, corners, strict=True))
            boxes.append((("cat", "dog")[int(values[0])], *scaled))
    found, more = kept(boxes)
    return found, bad + more


def check_labels(folder, guarded, content):
    read = read_twice(functools.partial(yolo, folder), ("b.txt", "b.png"))
    guarded()
    same(boxes_of(read, "a.png"), BOXES)
    same(boxes_of(read, "c.png"), BOXES)
    found = boxes_of(read, "b.png")
    try:
        right, bad = expected(content)
    except UnicodeDecodeError:
        assert found is None and read.counts["dropped_images"] == 1
        return
    same(found, right)
    assert read.counts.get("dropped_boxes", 0) == bad


def check_list(folder, guarded, content):
    read = read_twice(functools.partial(yolo, folder), (str(folder),))
    guarded()
    lines = {line.strip() for line in content.splitlines()}
    names = {example.file.name for example in read.examples}
    assert {f"{n}.png" for n in "abc" if f"./images/{n}.png".encode() in lines} <= names
    assert names <= {"a.png", "b.png", "c.png"}


def check_yaml(folder, guarded, content):
    for split in ("train", "val"):
        named = str(folder)
        read = read_twice(functools.partial(yolo, folder, split), (named, split), named)
        guarded(may_read=lambda path: path.encode() in content)  # lists of a YAML lie anywhere
        for example in read.examples if read is not None else ():
            assert example.file.name in ("a.png", "b.png", "c.png")


def check_names(folder, guarded, content):
    names = "classes.txt", ".txt"
    read = read_twice(
        lambda **options: yolo(folder / "classes.txt", "all", **options), names, names[0]
    )
    guarded()
    if read is not None:
        lines = [line.strip() for line in content.decode("utf-8-sig").split("\n")]
        assert [*read.class_names] == [line for line in lines if line] or b"\r" in content


FIELDS = [line.split() for line in SOUND.splitlines()]
WRITTEN = damaged_values(FIELDS, most=4).map(
    lambda pair: "\n".join(
        " ".join(map(str, line)) if isinstance(line, list) else str(line) for line in pair[0]
    ).encode("utf-8", "surrogatepass")
)
PATHS = [
    "images/a.png", "data/images/b.png", "../outside.jpg", "/etc/passwd", "..", "\0", "\ud800", "*",
    "a" * 5000, "images/../../x.png", "images\\c.png", " ", "\u2028", "~/a.png", "images", ".",
    "C:\\x", "train.txt", "/dev/zero", "images/a.png ",
]  # fmt: skip
VALUES = st.sampled_from(["cat", "a\0", "\u2028", "", " ", "\ud800", "é", "x" * 5000, "\x85", "#"])
TRAPS = [
    b"train: &a [*a]\nnames: *a\n", b"!!python/object/apply:os.system ['true']\n", b"[" * 400,
    b"train: images\nnames: !!python/name:os.system [a]\n", b"? [a]\n: b\n", b"a: b: c", b"",
    b"train: !!binary /w==\nnames: [a]", b'train: "\\ud800"\nnames: ["\\ud800"]', b"- " * 400,
    b'train: "a\\0b"\nnames: [a]', b"<<: [1]\ntrain: images\nnames: {0: a}", b"{" * 400,
    b'train: "\\U7fffffff"', b"\xff\xfet\0r\0a\0i\0n\0:\0 \0.\0", b"%YAML 9.9\n---\na",
    b"train: images\nnames: [cat, dog]\nnames: [dog, cat]", b"train: ~no\nnames: [a, b]",
    b"train: /dev/zero\nnames: [a, b]",
]  # fmt: skip
KINDS = {
    "labels": (
        "labels/b.txt",
        check_labels,
        st.one_of(WRITTEN, WRITTEN, damaged_bytes(SOUND.encode())),
    ),
    "list": ("train.txt", check_list, damaged_lines([*PATHS, *LIST.splitlines()], LIST.encode())),
    "yaml": (
        "data.yaml",
        check_yaml,
        st.one_of(
            damaged_values(YAML).map(lambda pair: json.dumps(pair[0]).encode()),
            damaged_bytes(json.dumps(YAML).encode()),
            st.sampled_from(TRAPS),
        ),
    ),
    "names": (
        "classes.txt",
        check_names,
        damaged_lines(["cat", "dog", "é", "", " a", "\0", "\ud800"], b"cat\ndog\n"),
    ),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_no_files(folder, kind):
    stand_in(folder / "labels/a.txt", kind)
    with pytest.raises(ValueError, match=f"a.txt: unreadable file: .*a.txt is a {kind}, where"):
        yolo(folder)
    read = yolo(folder, skip_bad=True)
    assert len(read) == 2 and read.counts["dropped_images"] == 1
    if kind != "folder":  # which would be one of images
        stand_in(folder / "train.txt", kind)
        with pytest.raises(ValueError, match=f"data.yaml cannot be .*train.txt is a {kind}, where"):
            yolo(folder)
    stand_in(folder / "data.yaml", kind)
    (folder / "classes.txt").unlink()
    with pytest.raises(OSError, match="Expected a YOLO data set: data.yaml"):
        yolo(folder)


def test_lines_in_another_encoding(folder):
    (folder / "train.txt").write_bytes("images/a.png\nimages/café.png\n".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"train.txt: unreadable file: line 2: b'.*caf\\xe9.png' is"
    ):
        yolo(folder)
    assert yolo(folder, skip_bad=True).counts["dropped_images"] == 1
    (folder / "data.yaml").unlink()
    (folder / "classes.txt").write_bytes("cat\ncafé\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"classes.txt, line 2: b'caf\\xe9' is not UTF-8 text"):
        yolo(folder, "all", skip_bad=True)


test_damage = fuzzer_of(KINDS)
