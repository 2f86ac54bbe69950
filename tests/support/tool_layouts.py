"""Small data sets in the layouts of annotation tools, written as the tools write them.

Every split has the three scenes of `SCENES`. Where a comment names a version, its exporter was run
and its folder compared with the one drawn here.
"""

import dataclasses
import functools
import json
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"dog": (200, 150, 60), "cat": (90, 90, 160)}
BOXES = [("dog", (8, 12, 40, 30)), ("cat", (24, 6, 60, 42))]
# (width, height) and objects
SCENES = (((64, 48), BOXES), ((48, 64), [("cat", (12, 24, 36, 60))]), ((64, 48), []))


@dataclasses.dataclass(frozen=True)
class Expected:
    """What is to be read: splits of three images, and `BOXES` in the image of that name."""

    splits: tuple[str, ...]
    image: str
    class_names: tuple[str, ...] = ("cat", "dog")


def _draw(folder, names):
    """Draws the scenes as files of these names; returns `(name, size, objects)` of each."""
    for name, (size, objects) in zip(names, SCENES, strict=True):
        image = Image.new("RGB", size, (40, 120, 80))
        for label, (x1, y1, x2, y2) in objects:
            ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), COLOURS[label])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    return [(name, *scene) for name, scene in zip(names, SCENES, strict=True)]


def _names(pattern, first=0):
    return [pattern.format(i) for i in range(first, first + len(SCENES))]


def _write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


SEGMENTED = {"segmentation": []}


def _coco(file, scenes, categories, first=1, of_image=(), of_box=SEGMENTED):
    """Writes COCO's JSON; `first` is the first number of images and boxes."""
    ids = {entry["name"]: entry["id"] for entry in categories}
    images, rows = [], []
    for i, (name, (width, height), objects) in enumerate(scenes, first):
        size = {"width": width, "height": height}
        images.append({"id": i, "file_name": name, **size, **dict(of_image)})
        for label, (x1, y1, x2, y2) in objects:
            row = {"id": first + len(rows), "image_id": i, "category_id": ids[label]}
            w, h = float(x2 - x1), float(y2 - y1)
            row |= {"bbox": [float(x1), float(y1), w, h], "area": w * h, "iscrowd": 0}
            rows.append(row | of_box)
    content = {"info": {}, "images": images, "annotations": rows, "categories": categories}
    _write(file, json.dumps(content))


def _categories(names, first=1, **more):
    return [{"id": i, "name": name, **more} for i, name in enumerate(names, first)]


# COCO's own files: images beside `annotations/`, or in `images/` as Ultralytics unpacks them.
def coco(folder, images=""):
    categories = [
        {"supercategory": "animal", "id": i, "name": n} for i, n in ((17, "cat"), (18, "dog"))
    ]
    for first, split in ((0, "train2017"), (3, "val2017")):
        scenes = _draw(folder / images / split, _names("{:012d}.jpg", first))
        _coco(folder / f"annotations/instances_{split}.json", scenes, categories)
    return Expected(("train2017", "val2017"), "000000000000.jpg")


# Category 0 is the project (roboflow-100-benchmark, issue 45); numbers start at 0.
def roboflow_coco(folder):
    categories = [{"id": 0, "name": "pets-x1", "supercategory": "none"}]
    categories += _categories(("cat", "dog"), supercategory="pets-x1")
    for split, names in _roboflow(folder):
        more = {"license": 1, "date_captured": "2024-05-01T10:00:00+00:00", "extra": {}}
        scenes = _draw(folder / split, names)
        _coco(folder / split / "_annotations.coco.json", scenes, categories, 0, more)
    return Expected(("train", "valid", "test"), "train-0_jpg.rf.0f1e.jpg")


def _roboflow(folder):
    for name in ("README.dataset.txt", "README.roboflow.txt"):
        _write(folder / name, "pets\n")
    for split in ("train", "valid", "test"):
        yield split, _names(split + "-{}_jpg.rf.0f1e.jpg")


# cvat-ai/datumaro, coco_format/converter.py; datumaro 1.13. A task's subset is "default", those of
# a project are named by its tasks; names of images keep their folders. Once, images/ was flat.
def cvat_coco(folder, subsets=("default",), flat=False):
    for subset in subsets:
        scenes = _draw(folder / "images" / ("" if flat else subset), _names("day 1/{}.jpg"))
        categories = _categories(("dog", "cat"), supercategory="")
        more = {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
        rows = SEGMENTED | {"attributes": {"occluded": False}}
        file = folder / f"annotations/instances_{subset}.json"
        _coco(file, scenes, categories, of_image=more, of_box=rows)
    return Expected(subsets, "0.jpg", ("dog", "cat"))


# fiftyone 1.22
def fiftyone_coco(folder, splits=("all",)):
    for split in splits:
        place = folder / ("" if splits == ("all",) else split)
        scenes = _draw(place / "data", _names("{}.png"))
        categories = _categories(("cat", "dog"), supercategory=None)
        more = {"license": None, "coco_url": None}
        _coco(place / "labels.json", scenes, categories, of_image=more, of_box={})
    return Expected(splits, "0.png")


# label-studio-sdk 2.1 and label-studio-converter 0.0.59: all numbers start at 0. Newer versions
# write where the image lay on the server (label-studio, issue 7294), Windows backslashes.
def label_studio_coco(folder, prefix="images/"):
    scenes = _draw(folder / "images", _names("ab12cd{}-street.jpg"))
    scenes = [(prefix + name, *scene) for name, *scene in scenes]
    categories = _categories(("cat", "dog"), 0)
    _coco(folder / "result.json", scenes, categories, 0, of_box=SEGMENTED | {"ignore": 0})
    return Expected(("all",), "ab12cd0-street.jpg")


def _voc(file, scene, head, inside="", order="xmin ymin xmax ymax", first=0, corner=int, name="{}"):
    """Writes VOC's XML: `head` before the size, `inside` each object, `first` the first pixel."""
    image, (width, height), objects = scene
    text = f"<annotation>{head.format(name.format(image))}<size><width>{width}</width>"
    text += f"<height>{height}</height><depth>3</depth></size><segmented>0</segmented>"
    for label, (x1, y1, x2, y2) in objects:
        corners = {"xmin": x1 + first, "ymin": y1 + first, "xmax": x2, "ymax": y2}
        text += f"<object><name>{label}</name>{inside}<bndbox>"
        text += "".join(f"<{key}>{corner(corners[key])}</{key}>" for key in order.split())
        text += "</bndbox></object>"
    _write(file, f"{text}</annotation>\n")


POSE = "<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"


# The devkit: corners are the first and last pixel from 1; a list per class lies beside the splits.
def voc(folder):
    head = "<folder>VOC2007</folder><filename>{}</filename><source><database>The VOC2007 Database"
    head += "</database><annotation>PASCAL VOC2007</annotation><image>flickr</image></source>"
    for first, split in ((0, "trainval"), (3, "test")):
        scenes = _draw(folder / "JPEGImages", _names("{:06d}.jpg", first))
        for scene in scenes:
            file = (folder / "Annotations" / scene[0]).with_suffix(".xml")
            _voc(file, scene, head, POSE, first=1)
        stems = [Path(name).stem for name, *_ in scenes]
        _write(folder / f"ImageSets/Main/{split}.txt", "\n".join(stems) + "\n")
        signs = [f"{stem} {sign:2d}\n" for stem, sign in zip(stems, (1, -1, -1), strict=True)]
        _write(folder / f"ImageSets/Main/dog_{split}.txt", "".join(signs))
    return Expected(("trainval", "test"), "000000.jpg")


# Public exports; openvinotoolkit/datumaro, tests/assets/roboflow_dataset: x before y.
def roboflow_voc(folder):
    head = "<folder></folder><filename>{0}</filename><path>{0}</path>"
    head += "<source><database>roboflow.com</database></source>"
    for split, names in _roboflow(folder):
        for scene in _draw(folder / split, names):
            file = (folder / split / scene[0]).with_suffix(".xml")
            _voc(file, scene, head, POSE + "<occluded>0</occluded>", "xmin xmax ymin ymax")
    return Expected(("train", "valid", "test"), "train-0_jpg.rf.0f1e.jpg")


# labelImg 1.8.6: the path is that of the annotator's machine.
def labelimg(folder):
    head = r"<folder>photos</folder><filename>{0}</filename><path>C:\Users\ann\photos\{0}</path>"
    head += "<source><database>Unknown</database></source>"
    for scene in _draw(folder, _names("IMG_{}.jpg")):
        _voc((folder / scene[0]).with_suffix(".xml"), scene, head, POSE)
    return Expected(("all",), "IMG_0.jpg")


# cvat-ai/datumaro, voc_format/converter.py; datumaro 1.13: fractions, an empty folder, and a further
# list of the images without objects.
def cvat_voc(folder, subsets=("default",)):
    head = "<folder></folder><filename>{}</filename><source><database>Unknown</database>"
    head += "<annotation>Unknown</annotation><image>Unknown</image></source>"
    inside = "<truncated>0</truncated><occluded>0</occluded><difficult>0</difficult>"
    for subset in subsets:
        names = _names(f"day 1/{subset}{{}}.jpg")
        for scene in _draw(folder / "JPEGImages", names):
            file = (folder / "Annotations" / scene[0]).with_suffix(".xml")
            _voc(file, scene, head, inside, corner=float)
        lines = [f"{name.removesuffix('.jpg')}\n" for name in names]
        _write(folder / f"ImageSets/Main/{subset}.txt", "".join(lines))
        _write(folder / f"ImageSets/Layout/{subset}.txt", lines[2])
    labels = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:128,0,0::\ncat:0,128,0::\n"
    _write(folder / "labelmap.txt", labels)
    return Expected(subsets, f"{subsets[0]}0.jpg")


# label-studio-sdk 2.1; until converter 0.0.36 the name was without its suffix. A task without
# objects gets no file.
def label_studio_voc(folder, has_suffix=True):
    head = "<folder>images</folder><filename>{}</filename><source><database>MyDatabase</database>"
    head += "<annotation>COCO2017</annotation><image>flickr</image></source>"
    head += "<owner><flickrid>NULL</flickrid><name>Label Studio</name></owner>"
    for name, *scene in _draw(folder / "images", _names("ab12cd{}-street.jpg")):
        written = name if has_suffix else Path(name).stem
        if scene[1]:
            _voc((folder / "Annotations" / name).with_suffix(".xml"), (written, *scene), head, POSE)
    return Expected(("all",), "ab12cd0-street.jpg")


def _yolo(folder, scenes, classes, number="{:.6f}", empty=True):
    """Writes a text file per image; `empty` says whether images without objects have one."""
    for name, (width, height), objects in scenes:
        lines = []
        for label, (x1, y1, x2, y2) in objects:
            numbers = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
            numbers += (x2 - x1) / width, (y2 - y1) / height
            lines.append(" ".join([str(classes.index(label)), *map(number.format, numbers)]) + "\n")
        if lines or empty:
            _write((folder / name).with_suffix(".txt"), "".join(lines))


# ultralytics' coco8.yaml: `path` starts from another folder, and `test` is left open.
ULTRALYTICS = """path: ../datasets/pets # dataset root dir
train: images/train # train images (relative to 'path')
val: images/val
test: # test images (optional)

names:
  0: dog
  1: cat
"""
# fiftyone 1.22: the absolute path of the machine it ran on.
FIFTYONE = """names:
  0: dog
  1: cat
path: /home/ann/pets
train: ./images/train/
val: ./images/val/
"""


# Both: images without objects have no file.
def ultralytics(folder, yaml="data.yaml", text=ULTRALYTICS):
    for split in ("train", "val"):
        scenes = _draw(folder / "images" / split, _names(split + "{}.jpg"))
        _yolo(folder / "labels" / split, scenes, ("dog", "cat"), empty=False)
    _write(folder / yaml, text)
    return Expected(("train", "val"), "train0.jpg", ("dog", "cat"))


# Public exports: paths go up once too often, and the key of the folder valid/ is val.
def roboflow_yolo(folder):
    for split, names in _roboflow(folder):
        scenes = _draw(folder / split / "images", names)
        _yolo(folder / split / "labels", scenes, ("cat", "dog"), "{}")
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
    text += (
        "names: ['cat', 'dog']\n\nroboflow:\n  workspace: pets\n  project: pets-x1\n  version: 3\n"
    )
    _write(folder / "data.yaml", text)
    return Expected(("train", "val", "test"), "train-0_jpg.rf.0f1e.jpg")


# cvat-ai/datumaro, data_formats/yolo/exporter.py; datumaro 1.13: there is no folder data/.
def cvat_yolo(folder, subsets=("train",)):
    lists = ""
    for subset in subsets:
        scenes = _draw(folder / f"obj_{subset}_data", _names("day 1/{}.jpg"))
        _yolo(folder / f"obj_{subset}_data", scenes, ("dog", "cat"))
        lines = [f"data/obj_{subset}_data/{name}\n" for name, *_ in scenes]
        _write(folder / f"{subset}.txt", "".join(lines))
        lists += f"{subset} = data/{subset}.txt\n"
    _write(folder / "obj.names", "dog\ncat\n")
    text = f"classes = 2\n{lists}names = data/obj.names\nbackup = backup/\n"
    _write(folder / "obj.data", text)
    return Expected(subsets, "0.jpg", ("dog", "cat"))


# The same file of cvat-ai/datumaro: keys sorted, data/ again, which CVAT's manual does not show.
def cvat_ultralytics(folder, subsets=("train",), prefix="data/"):
    for subset in subsets:
        scenes = _draw(folder / "images" / subset, _names("day 1/{}.jpg"))
        _yolo(folder / "labels" / subset, scenes, ("dog", "cat"), empty=False)
        lines = [f"{prefix}images/{subset}/{name}\n" for name, *_ in scenes]
        _write(folder / f"{subset}.txt", "".join(lines))
    entries = ["names:\n  0: dog\n  1: cat\n", "path: .\n", *(f"{s}: {s}.txt\n" for s in subsets)]
    _write(folder / "data.yaml", "".join(sorted(entries)))
    return Expected(subsets, "0.jpg", ("dog", "cat"))


# label-studio-sdk 2.1
def label_studio_yolo(folder):
    scenes = _draw(folder / "images", _names("ab12cd{}-street.jpg"))
    _yolo(folder / "labels", scenes, ("cat", "dog"), "{}")
    _write(folder / "classes.txt", "cat\ndog\n")
    notes = {"categories": _categories(("cat", "dog"), 0), "info": {"contributor": "Label Studio"}}
    _write(folder / "notes.json", json.dumps(notes))
    return Expected(("all",), "ab12cd0-street.jpg")


# cvat-ai/cvat, dataset_manager/formats/cvat.py: a project says the subset of each image, which is
# a folder below images/ but no part of its name.
def cvat_images(folder, subsets=("all",)):
    kind = "task" if subsets == ("all",) else "project"
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("dog", "cat"))
    text = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta>'
    text += f"<{kind}><name>pets</name><labels>{labels}</labels></{kind}></meta>\n"
    for subset in subsets:
        of = f'subset="{subset}" task_id="7" ' if kind == "project" else ""
        place = folder / "images" / ("" if kind == "task" else subset)
        for i, (name, (width, height), objects) in enumerate(_draw(place, _names("day 1/{}.jpg"))):
            text += f'<image id="{i}" name="{name}" {of}width="{width}" height="{height}">\n'
            for label, (x1, y1, x2, y2) in objects:
                text += f'<box label="{label}" source="manual" occluded="0" xtl="{x1:.2f}" '
                text += f'ytl="{y1:.2f}" xbr="{x2:.2f}" ybr="{y2:.2f}" z_order="0">\n</box>\n'
            text += "</image>\n"
    _write(folder / "annotations.xml", f"{text}</annotations>\n")
    return Expected(subsets, "0.jpg", ("dog", "cat"))


def _csv(file, scenes, header, row, empty=None):
    lines = [header]
    for name, size, objects in scenes:
        lines += [row.format(name, *size, label, *box) for label, box in objects]
        lines += [] if objects or empty is None else [empty.format(name)]
    _write(file, "\n".join(lines) + "\n")


# keras-retinanet's columns with a header; an image without objects has empty fields there.
def csv(folder):
    scenes = _draw(folder / "images", _names("{}.jpg"))
    row = "{0},{4},{5},{6},{7},{3}"
    _csv(folder / "annotations.csv", scenes, "image,x1,y1,x2,y2,class", row, "{},,,,,")
    return Expected(("all",), "0.jpg")


# roboflow.com/formats: an image without objects has no row.
def roboflow_csv(folder):
    header, row = "filename,width,height,class,xmin,ymin,xmax,ymax", "{},{},{},{},{},{},{},{}"
    for split, names in _roboflow(folder):
        _csv(folder / split / "_annotations.csv", _draw(folder / split, names), header, row)
    return Expected(("train", "valid", "test"), "train-0_jpg.rf.0f1e.jpg")


PROJECT = ("Train", "Validation")
_with = functools.partial
LAYOUTS = {
    "COCO": coco,
    "COCO, images/<split>": _with(coco, images="images"),
    "Roboflow COCO": roboflow_coco,
    "CVAT COCO": cvat_coco,
    "CVAT COCO, project": _with(cvat_coco, subsets=PROJECT),
    "CVAT COCO, images/ flat": _with(cvat_coco, flat=True),
    "FiftyOne COCO": fiftyone_coco,
    "FiftyOne COCO, a folder per split": _with(fiftyone_coco, splits=("train", "val")),
    "Label Studio COCO": label_studio_coco,
    "Label Studio COCO, Windows": _with(label_studio_coco, prefix="images\\"),
    "Label Studio COCO, names of a server": _with(
        label_studio_coco, prefix="../../media/upload/4/"
    ),
    "VOC": voc,
    "Roboflow VOC": roboflow_voc,
    "LabelImg": labelimg,
    "CVAT VOC": cvat_voc,
    "CVAT VOC, project": _with(cvat_voc, subsets=PROJECT),
    "Label Studio VOC": label_studio_voc,
    "Label Studio VOC, names without suffix": _with(label_studio_voc, has_suffix=False),
    "Ultralytics": ultralytics,
    "FiftyOne YOLO": _with(ultralytics, yaml="dataset.yaml", text=FIFTYONE),
    "Roboflow YOLO": roboflow_yolo,
    "CVAT YOLO": cvat_yolo,
    "CVAT YOLO, project": _with(cvat_yolo, subsets=PROJECT),
    "CVAT Ultralytics": cvat_ultralytics,
    "CVAT Ultralytics, project": _with(cvat_ultralytics, subsets=PROJECT, prefix=""),
    "Label Studio YOLO": label_studio_yolo,
    "CVAT images": cvat_images,
    "CVAT images, project": _with(cvat_images, subsets=PROJECT),
    "CSV": csv,
    "Roboflow CSV": roboflow_csv,
}
