"""Damaged XML and lists in Pascal VOC's form."""

import functools
import re
import xml.etree.ElementTree as ET

import pytest
from hostile_data import (
    HEIGHT,
    NO_FILES,
    WIDTH,
    as_xml,
    boxes_of,
    damaged_lines,
    damaged_xml,
    draw_images,
    fuzzer_of,
    kept,
    number,
    read_twice,
    same,
    stand_in,
)

from libra_keras.data import voc

NAMES = "abc"
CORNERS = "xmin", "ymin", "xmax", "ymax"
NO_TEXT = re.compile("[\0\udc80-\udcff]")


def written(name):
    objects = [
        ["object", {}, [
            ["name", {}, label], ["difficult", {}, "0"],
            ["bndbox", {}, [[k, {}, v] for k, v in zip(CORNERS, box, strict=True)]],
        ]]
        for label, box in (("cat", (3, 5, 30, 20)), ("dog", (11, 6, 60, 40)))
    ]  # fmt: skip
    size = ["size", {}, [["width", {}, WIDTH], ["height", {}, HEIGHT]]]
    return ["annotation", {}, [["filename", {}, f"{name}.png"], size, *objects]]


@pytest.fixture
def folder(tmp_path):
    draw_images(tmp_path, [f"JPEGImages/{name}.png" for name in NAMES])
    for place in ("Annotations", "ImageSets/Main"):
        (tmp_path / place).mkdir(parents=True)
    for name in NAMES:
        (tmp_path / f"Annotations/{name}.xml").write_text(as_xml(written(name)))
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\nc\n")
    voc(tmp_path, "train")  # imports what is imported late
    return tmp_path


def expected(content):
    """The boxes of a file by the definition of the form, and how many are bad; `None` if it is
    no XML, has entities of its own, or another size than its image."""
    try:
        root = ET.fromstring(content)
    except Exception:
        return None
    if b"<!ENTITY" in content.replace(b"\0", b""):
        return None
    for side, length in (("width", WIDTH), ("height", HEIGHT)):
        text = (root.findtext(f"size/{side}") or "").strip()
        if text and number(text) not in (0, length):
            return None
    boxes, bad = [], 0
    for entry in root.findall("object"):
        corners = [number(entry.findtext(f"bndbox/{key}")) for key in CORNERS]
        name = (entry.findtext("name") or "").strip()
        if name and None not in corners:
            x1, y1, x2, y2 = corners
            boxes.append((name, x1 - 1, y1 - 1, x2, y2))
        else:
            bad += 1
    found, more = kept(boxes)
    return found, bad + more


def check_xml(folder, guarded, content):
    read = read_twice(functools.partial(voc, folder, "train"), ["b."])
    guarded()
    assert boxes_of(read, "a.png") == boxes_of(read, "c.png") == [
        ("cat", 2, 4, 30, 20), ("dog", 10, 5, 60, 40),
    ]  # fmt: skip
    right, found = expected(content), boxes_of(read, "b.png")
    if right is None:
        assert found is None and read.counts["dropped_images"] == 1
    else:
        same(found, right[0])
        assert read.counts.get("dropped_boxes", 0) == right[1]


def check_listing(folder, guarded, content):
    read = read_twice(functools.partial(voc, folder, "train"), [str(folder)])
    guarded()
    text = content.decode("utf-8-sig", "surrogateescape")
    lines = [line for line in re.split("[\r\n]", text) if not NO_TEXT.search(line)]
    listed = {line.split()[0] for line in lines if line.strip()}
    names = {example.file.stem for example in read.examples}
    assert listed & set(NAMES) <= names <= set(NAMES)


LINES = [
    "a", "b 1", "b -1", "../a", "/etc/passwd", "..", "a" * 5000, "x/../a", "\0", " ", "é", "\ud800",
    "a\nb", "\u2028", "*", "~", "%", "C:\\a", "a/", ".",
]  # fmt: skip
KINDS = {
    "xml": ("Annotations/b.xml", check_xml, damaged_xml(written("b"))),
    "listing": ("ImageSets/Main/train.txt", check_listing, damaged_lines(LINES, b"a\nb\nc\n")),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_no_files(folder, kind):
    stand_in(folder / "Annotations/a.xml", kind)
    with pytest.raises(ValueError, match=f"a.xml: unreadable file: .*a.xml is a {kind}, where"):
        voc(folder, "train")
    read = voc(folder, "train", skip_bad=True)
    assert len(read) == 2 and read.counts == {"dropped_images": 1}
    if kind != "folder":  # which would be one of XML
        stand_in(folder / "ImageSets/Main/train.txt", kind)
        with pytest.raises(OSError, match=f"train.txt is a {kind}, where a file is expected"):
            voc(folder, "train")


def test_lines_in_another_encoding(folder):
    (folder / "ImageSets/Main/train.txt").write_bytes("a\ncafé\nc\n".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"train.txt: unreadable file: line 2: b'caf\\xe9' is not UTF-8"
    ):
        voc(folder, "train")
    read = voc(folder, "train", skip_bad=True)
    assert [e.image_id for e in read.examples] == [1, 3] and read.counts == {"dropped_images": 1}


test_damage = fuzzer_of(KINDS)
