"""Damaged JSON in COCO's form, names that lead outside, and folders with something in the way."""

import json
import os
import shutil

import pytest
import tool_layouts
from hostile_data import HEIGHT, NO_FILES, WIDTH, draw_images, kept, read_twice, stand_in
from hypothesis import given
from hypothesis import strategies as st
from mutations import FAST, SLOW, cases, damaged_values, texts_of
from PIL import Image

from libra_keras import data
from libra_keras.data import layouts

NAMES = "a.png", "b.png", "c.png"
CONTENT = {
    "images": [
        {"id": 10 + i, "file_name": name, "height": HEIGHT, "width": WIDTH}
        for i, name in enumerate(NAMES)
    ],
    "categories": [
        {"id": 0, "name": "animals"},
        {"id": 3, "name": "cat", "supercategory": "animals"},
        {"id": 8, "name": "dog", "supercategory": "animals"},
    ],
    "annotations": [
        {"id": 1, "image_id": 10, "category_id": 3, "bbox": [2, 4, 20, 10], "iscrowd": 0},
        {"id": 2, "image_id": 10, "category_id": 8, "bbox": [0.5, 4, 70, 10], "area": 700.0},
        {"id": 3, "image_id": 11, "category_id": 8, "bbox": [7, 7, 0, 5], "iscrowd": 1},
        {"id": 4, "image_id": 11, "category_id": 8, "bbox": [7, 7, 9, 5], "ignore": 1},
        {"id": 5, "image_id": 12, "category_id": 3, "bbox": [30, 20, 40, 30]},
    ],
}
JSONS = texts_of(CONTENT, damaged_values(CONTENT))
LARGEST = 3.4e38  # a number of 32 bits
JSON = "annotations/instances_train.json"


@pytest.fixture
def folder(tmp_path):
    draw_images(tmp_path, [f"train/{name}" for name in NAMES])
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"annotations/instances_{split}.json").write_text(json.dumps(CONTENT))
    data.check_data(data.coco(tmp_path, "train"))  # whatever is imported late
    return tmp_path


def is_whole(value):
    return type(value) is int and -(2**63) <= value < 2**63


def is_number(value):
    return is_whole(value) or type(value) is float and abs(value) < float("inf")


def is_text(value):
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def is_image(entry, folder):
    """Whether an entry is one of an image that lies in the folder."""
    if not isinstance(entry, dict) or not is_whole(entry.get("id")):
        return False
    if not is_text(entry.get("file_name")) or layouts.leads_out(entry["file_name"]):
        return False
    for key, side in (("height", HEIGHT), ("width", WIDTH)):
        value = entry.get(key)
        if value is not None and not (is_number(value) and value in (0, side)):
            return False
    return os.path.isfile(folder / "train" / entry["file_name"])


def classes(content):
    """Names by ids: of two entries of one id the first is one, of two of one name the used one."""
    used = [row.get("category_id") for row in content["annotations"] if isinstance(row, dict)]
    names = {}
    for entry in content["categories"]:
        if isinstance(entry, dict) and is_whole(entry.get("id")) and is_text(entry.get("name")):
            names.setdefault(entry["id"], entry["name"])
    for is_used in (True, False):
        for i, name in list(names.items()):
            if (i in [u for u in used if is_whole(u)]) == is_used:
                same = [j for j, other in names.items() if other == name and j != i]
                for j in same:
                    del names[j]
    return names


def is_box(row):
    if not isinstance(row, dict) or not isinstance(row.get("bbox"), list):
        return False
    if len(row["bbox"]) != 4 or not all(map(is_number, row["bbox"])):
        return False
    area, flags = row.get("area"), (row.get("iscrowd"), row.get("ignore"))
    return (area is None or is_number(area) and area >= 0) and all(f in (None, 0, 1) for f in flags)


def meaning(text, folder):
    """The file and the boxes of each image, read in the plainest way; `None` if it has none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in CONTENT):
        return None
    found, files, names = {}, set(), classes(content)
    for entry in content["images"]:
        if is_image(entry, folder) and entry["id"] not in found:
            file = os.path.normpath(entry["file_name"])
            if file not in files:
                found[entry["id"]] = entry["file_name"], []
            files.add(file)
    for row in content["annotations"]:
        if is_box(row) and is_whole(row.get("image_id")) and row["image_id"] in found:
            category = row.get("category_id")
            if is_whole(category) and category in names:
                x, y, width, height = map(float, row["bbox"])
                if max(map(abs, (x, y, x + width, y + height))) > LARGEST:
                    continue
                name = names[category], bool(row.get("iscrowd") or row.get("ignore"))
                boxes, _ = kept([(name, x, y, x + width, y + height)])
                found[row["image_id"]][1].extend(boxes)
    return found


def boxes_of(read, folder):
    """The same of what a reader has made."""
    found = {}
    for example in read.examples:
        names = [read.class_names[label] for label in example.labels]
        names = zip(names, example.ignore.tolist(), strict=True)
        boxes = [(n, *box) for n, box in zip(names, example.boxes.tolist(), strict=True)]
        found[example.image_id] = os.path.relpath(example.file, folder / "train"), boxes
    return found


def assert_same(found, right):
    assert found.keys() == right.keys()
    for image, (name, boxes) in right.items():
        assert found[image][0] == os.path.normpath(name)
        assert [box[0] for box in found[image][1]] == [box[0] for box in boxes]
        for one, other in zip(found[image][1], boxes, strict=True):
            assert one[1:] == pytest.approx(other[1:], rel=1e-6, abs=1e-4)


def check_json(folder, guarded, content):
    (folder / JSON).write_bytes(content)
    guarded.forget()
    named = "instances_train.json"
    read = read_twice(lambda **options: data.coco(folder, "train", **options), [named], named)
    guarded()
    right = meaning(content, folder)
    assert (read is None) == (right is None)
    if read is not None:
        assert_same(boxes_of(read, folder), right)
        ids = [row["id"] for row in read.annotations["annotations"]]
        assert len(set(ids)) == len(ids) and all(i > 0 for i in ids)
        assert {image["id"] for image in read.annotations["images"]} == right.keys()


@cases(FAST)
@given(content=JSONS)
def test_json(folder, guarded, content):
    check_json(folder, guarded, content)


OUTSIDE = "outside.png"
STARTS = [
    "",
    "./",
    "../",
    "../../",
    "train/../../",
    "x\\..\\..\\..\\",
    "C:\\",
    "\\\\host\\",
    "/dev/",
    "..\0/",
]
ENDS = ["a.png", OUTSIDE, "zero", "..", "", "\udcff.png", "\x1b[2J", "%s", "link.png"]


@cases(FAST)
@given(start=st.sampled_from(STARTS), end=st.sampled_from(ENDS), is_allowed=st.booleans())
def test_names(folder, guarded, start, end, is_allowed):
    """`train/link.png` is a symbolic link to an image outside, which a name may say."""
    outside = folder.parent / f"{folder.name}_{OUTSIDE}"
    if not outside.exists():
        Image.new("RGB", (WIDTH, HEIGHT)).save(outside)
        (folder / "train/link.png").symlink_to(outside)
    name = start + end.replace(OUTSIDE, outside.name)
    images = [{"id": 20, "file_name": name, "height": HEIGHT, "width": WIDTH}]
    (folder / JSON).write_text(json.dumps({**CONTENT, "images": images, "annotations": []}))
    guarded.forget()
    read = read_twice(
        lambda **options: data.coco(folder, "train", allow_outside=is_allowed, **options),
        ["instances_train.json"],
    )
    if not is_allowed:
        guarded()
    kinds = [finding.kind for finding in read.findings]
    spellings = name, name.replace("\\", "/"), name.replace("\\", "/").rpartition("/")[2]
    found = [
        os.path.isfile(root / each)
        for root in (folder / "train", folder)
        for each in spellings
        if "\0" not in name and (is_allowed or not layouts.leads_out(each))
    ]
    assert (20 in boxes_of(read, folder)) == any(found)
    is_outside = layouts.leads_out(name) and not is_allowed and "\0" not in name
    assert ("file outside" in kinds) == (is_outside and not any(found))
    if "file outside" in kinds:
        (finding,) = (f for f in read.findings if f.kind == "file outside")
        assert finding.image.endswith(JSON) and "--allow-outside" in finding.message


@cases(SLOW)
@given(content=JSONS | st.sampled_from(NO_FILES))
def test_what_lies_beside(folder, guarded, content):
    """The JSON of another split, which is asked for the classes that have boxes there."""
    beside = folder / "annotations/instances_val.json"
    shutil.rmtree(beside) if beside.is_dir() else beside.unlink(missing_ok=True)
    beside.touch()
    if content in NO_FILES:
        stand_in(beside, content)
    else:
        beside.write_bytes(content)
    guarded.forget()
    read = data.coco(folder, "train")
    guarded()
    assert_same(boxes_of(read, folder), meaning(json.dumps(CONTENT), folder))
    assert read.class_names in (("cat", "dog"), ("animals", "cat", "dog"))


TOOLS = [title for title in tool_layouts.LAYOUTS if "COCO" in title]
CHANGES = ["delete", "rename", "double", "empty", "damage", *NO_FILES]


@st.composite
def damaged_folders(draw):
    """The title of a layout, and what to do to which of its files and folders."""
    change = st.tuples(st.integers(0, 2**16), st.sampled_from(CHANGES), st.randoms())
    return draw(st.sampled_from(TOOLS)), draw(st.lists(change, max_size=3))


def change_folder(folder, number, change, random):
    entries = sorted(folder.rglob("*"))
    if not entries:
        return
    entry = entries[number % len(entries)]
    if change == "delete":
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    elif change == "rename":
        entry.rename(entry.with_name(random.choice(["x", "train", "labels.json", "data", "a.xml"])))
    elif change == "double" and entry.is_file():
        shutil.copy(entry, entry.with_name(f"instances_{entry.name}.json"))
    elif change in ("empty", "damage") and entry.is_file():
        content = bytearray(entry.read_bytes() if change == "damage" else b"")
        for _ in range(min(2, len(content))):
            content[random.randrange(len(content))] = random.randrange(256)
        entry.write_bytes(content)
    elif change in NO_FILES and entry.is_file():
        stand_in(entry, change)


@cases(SLOW)
@given(damaged=damaged_folders())
def test_layouts(tmp_path, guarded, damaged):
    """What is read of a damaged folder are the tool's boxes, or the files that are wrong."""
    title, changes = damaged
    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    expected = tool_layouts.LAYOUTS[title](folder)
    data.load(folder, expected.splits[0])  # whatever is imported late
    for change in changes:
        try:
            change_folder(folder, *change)
        except OSError:  # a name that is taken
            continue
    for split in expected.splits:
        guarded.forget()
        try:
            read = data.load(folder, split, skip_bad=True)
        except (ValueError, OSError) as error:
            assert str(folder) in str(error), repr(error)
            continue
        finally:
            guarded()
        if not any(change[1] == "damage" for change in changes):
            assert set(read.class_names) <= {"cat", "dog", "pets-x1"}
            sizes = {(e.width, e.height): len(e.boxes) for e in read.examples if len(e.boxes)}
            assert sizes.items() <= {(64, 48): 2, (48, 64): 1}.items()
