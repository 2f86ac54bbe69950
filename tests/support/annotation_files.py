"""Writes three drawn scenes and their boxes in the forms of COCO, Pascal VOC and YOLO."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"dog": (200, 150, 60), "cat": (90, 90, 160)}
BOXES = [("dog", (8, 12, 40, 30)), ("cat", (24, 6, 60, 42))]
# (width, height) and objects
SCENES = (((64, 48), BOXES), ((48, 64), [("cat", (12, 24, 36, 60))]), ((64, 48), []))
POSE = "<pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"


def draw(folder, pattern, first=0):
    """Draws the scenes, numbered from `first`; returns `(name, size, objects)` of each."""
    scenes = []
    for i, (size, objects) in enumerate(SCENES, first):
        image = Image.new("RGB", size, (40, 120, 80))
        for label, (x1, y1, x2, y2) in objects:
            ImageDraw.Draw(image).rectangle((x1, y1, x2 - 1, y2 - 1), COLOURS[label])
        scenes.append((pattern.format(i), size, objects))
        (folder / scenes[-1][0]).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / scenes[-1][0])
    return scenes


def write(file, *lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def categories(names, first=1, **more):
    return [{"id": i, "name": name, **more} for i, name in enumerate(names, first)]


def write_coco(file, scenes, categories, first=1, of_image=(), of_box=(), segmented=True):
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
            more = {"segmentation": []} if segmented else {}
            rows.append({**row, **more, **dict(of_box)})
    content = {"info": {}, "images": images, "annotations": rows, "categories": categories}
    write(file, json.dumps(content))


def write_voc(folder, scene, head, inside=POSE, order="xmin ymin xmax ymax", first=0, number=int):
    """Writes VOC's XML: `head` before the size, `inside` each object, `first` the first pixel."""
    name, (width, height), objects = scene
    text = f"<annotation>{head.format(name)}<size><width>{width}</width><height>{height}</height>"
    text += "<depth>3</depth></size><segmented>0</segmented>"
    for label, (x1, y1, x2, y2) in objects:
        corners = {"xmin": x1 + first, "ymin": y1 + first, "xmax": x2, "ymax": y2}
        text += f"<object><name>{label}</name>{inside}<bndbox>"
        text += "".join(f"<{key}>{number(corners[key])}</{key}>" for key in order.split())
        text += "</bndbox></object>"
    write(folder / f"{name.removesuffix('.jpg')}.xml", f"{text}</annotation>")


def write_yolo(folder, scenes, classes, number="{:.6f}", empty=True):
    """Writes a text file per image; `empty` says whether images without objects have one."""
    for name, (width, height), objects in scenes:
        lines = []
        for label, (x1, y1, x2, y2) in objects:
            numbers = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
            numbers += (x2 - x1) / width, (y2 - y1) / height
            lines.append(" ".join([str(classes.index(label)), *map(number.format, numbers)]))
        if lines or empty:
            write(folder / Path(name).with_suffix(".txt"), *lines)
