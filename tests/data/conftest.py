"""Tiny data sets, drawn into a temporary folder."""

import json

import numpy as np
import pytest
from PIL import Image

from libra_keras import data


def draw_image(path, width, height, level=0):
    """Writes an image whose red channel is the column and whose blue one is `level`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width, 3), "uint8")
    pixels[..., 0] = np.arange(width)
    pixels[..., 2] = level
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def write_coco(tmp_path):
    """Returns a function that writes a COCO data set of 60 x 40 images; it takes changes to it."""

    def write(num_images=3, **changes):
        images, rows = [], []
        for i in range(1, num_images + 1):
            draw_image(tmp_path / "val" / f"{i}.png", 60, 40, level=i)
            images.append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 60})
            box = {"id": i, "image_id": i, "category_id": 30, "bbox": [10, 5, 20, 10]}
            rows.append({**box, "area": 150.0, "iscrowd": 0})
        categories = [{"id": 30, "name": "cat"}]
        content = {"images": images, "annotations": rows, "categories": categories, **changes}
        (tmp_path / "instances_val.json").write_text(json.dumps(content))
        return tmp_path

    return write


OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
<part><name>head</name></part></object>"""


@pytest.fixture
def write_voc(tmp_path):
    """Returns a function that writes a VOC data set; it takes a list of boxes per image.

    `heads` are what a tool writes around the objects, one for each file or one for all.
    """

    def write(images, size=(60, 40), heads=""):
        heads = [heads] * len(images) if isinstance(heads, str) else heads
        for i, objects in enumerate(images):
            draw_image(tmp_path / "JPEGImages" / f"{i}.png", 60, 40)
            text = "".join(OBJECT.format(name=n, difficult=d, box=box) for n, d, box in objects)
            header = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>{heads[i]}"
            file = tmp_path / "Annotations" / f"{i}.xml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"<annotation><filename>x.jpg</filename>{header}{text}</annotation>")
        listing = tmp_path / "ImageSets" / "Main" / "val.txt"
        listing.parent.mkdir(parents=True)
        listing.write_text("\n".join(str(i) for i in range(len(images))) + "\n")
        return tmp_path

    return write


@pytest.fixture
def files(tmp_path):
    """Returns a function that makes a data set of image files of the given (width, height)."""

    def make(sizes):
        examples = []
        for i, (width, height) in enumerate(sizes):
            path = draw_image(tmp_path / f"{i:03d}.png", width, height, level=i)
            boxes = np.array([[2, 4, 12, 14]], "float32")
            label, ignore = np.array([i % 2], "int32"), np.array([False])
            examples.append(data.Example(i + 1, path, height, width, boxes, label, ignore))
        annotations = {"images": [], "annotations": [], "categories": []}
        return data.DetectionData("files", ("a", "b"), (1, 2), examples, annotations)

    return make
