"""Damaged XML of CVAT."""

import functools
import re
import xml.etree.ElementTree as ET

import pytest
from hostile_data import (
    NO_FILES,
    as_xml,
    boxes_of,
    damaged_xml,
    draw_images,
    fuzzer_of,
    kept,
    number,
    read_twice,
    same,
    stand_in,
)

from libra_keras.data import cvat

NAMES = "abc"
CORNERS = "xtl", "ytl", "xbr", "ybr"
BOX = dict(zip(CORNERS, ("2", "4.5", "40", "30"), strict=True))


def image(name):
    shapes = [
        ["box", {"label": "cat", **BOX}, []],
        ["polygon", {"label": "dog", "points": "10.5,8;20,5;15,30"}, []],
        ["points", {"label": "dog", "points": "1,1"}, []],
    ]
    return ["image", {"id": 0, "name": f"{name}.png", "width": 60, "height": 40}, shapes]


LABELS = [["label", {}, [["name", {}, name], ["type", {}, "any"]]] for name in ("cat", "dog")]
META = ["meta", {}, [["job", {}, [["labels", {}, LABELS]]]]]
WHOLE = ["annotations", {}, [META, *map(image, NAMES)]]


@pytest.fixture
def folder(tmp_path):
    draw_images(tmp_path, [f"images/{name}.png" for name in NAMES])
    (tmp_path / "annotations.xml").write_text(as_xml(WHOLE))
    cvat(tmp_path)  # imports what is imported late
    return tmp_path


def expected(content, split, label_names):
    """Boxes of the images of a split by the definition of the form, by their written names."""
    found = {}
    for element in ET.fromstring(content).findall("image"):
        if (element.get("subset") or "all") != split:
            continue
        boxes = []
        for shape in element:
            label = shape.get("label", "")
            if label not in label_names:
                continue
            if shape.tag == "box":
                corners = [number(shape.get(key)) for key in CORNERS]
            elif shape.tag == "polygon":
                points = [p.split(",") for p in shape.get("points", "").split(";")]
                points = [[number(x) for x in p] for p in points]
                whole = all(len(p) == 2 and None not in p for p in points)
                x, y = zip(*points, strict=True) if whole else ((None,), (None,))
                corners = [min(x), min(y), max(x), max(y)]
            else:
                continue
            if None not in corners:
                boxes.append((label, *corners))
        found.setdefault(element.get("name", "").strip(), kept(boxes)[0])
    return found


def check(folder, guarded, content):
    split = min(re.findall(r'subset="([^"]*)"', content.decode("utf-8", "replace")), default="all")
    read = read_twice(functools.partial(cvat, folder, split), [str(folder)], "annotations.xml")
    guarded()
    if read is None or b"<!" in content or b"rotation" in content:
        return
    right = expected(content, split, read.class_names)
    for example in read.examples:
        name = example.file.relative_to(folder / "images").as_posix()
        if name in right:
            same(boxes_of(read, example.file.name), right[name])


KINDS = {"xml": ("annotations.xml", check, damaged_xml(WHOLE))}


@pytest.mark.parametrize("kind", NO_FILES)
def test_no_files(folder, kind):
    stand_in(folder / "annotations.xml", kind)
    with pytest.raises(OSError, match=r"annotations.xml"):
        cvat(folder)


test_damage = fuzzer_of(KINDS)
