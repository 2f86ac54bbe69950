"""COCO and VOC from TensorFlow Datasets: mocked, and truly prepared in a temporary folder.

Tests that need the package count as slow ones: only for those it is installed.
"""

import importlib.resources.abc
import io
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from libra_keras import data
from libra_keras.data.known_classes import COCO_CATEGORIES, VOC_NAMES
from libra_keras.evaluation import evaluate_detections, voc_ap

SIZES = [(64, 48), (48, 64), (60, 50), (64, 64), (50, 40)]  # width, height
# Per image: label, COCO's bbox, area of the segmentation, crowd. The third image is empty.
OBJECTS = [
    [(0, [10.25, 5.5, 20.13, 10.07], 150.7, 0), (79, [0, 0, 64, 48], 1500.2, 0)],
    [(15, [3.1, 7.77, 30, 40.01], 900.9, 1), (11, [5, 5, 10.5, 12], 100, 0)],
    [],
    [(11, [20, 20, 40, 41], 1030.5, 0)],
    [(0, [1.5, 2.5, 30, 30.25], 800.4, 0), (0, [10, 5, 39, 30], 777.7, 1)],
]
CATEGORY_IDS = list(COCO_CATEGORIES)
IMAGE_IDS = [900, 25, 7, 285, 139]  # TFDS shuffles: the order tells nothing


@pytest.fixture(scope="module")
def tensorflow_datasets():
    return pytest.importorskip("tensorflow_datasets", reason="needs libra-keras[tfds]")


def jpeg(seed, size):
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 4 + 1, width // 4 + 1, 3))
    stream = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).resize(size).save(stream, "JPEG")
    return stream.getvalue()


IMAGES = [jpeg(i, size) for i, size in enumerate(SIZES)]


def shares(corners, size):
    """Corners `(x1, y1, x2, y2)` as TFDS has them: ymin, xmin, ymax, xmax over height and width."""
    x1, y1, x2, y2 = corners
    return [y1 / size[1], x1 / size[0], y2 / size[1], x2 / size[0]]


def coco_records():
    """What `coco/2017` holds of the images above."""
    number = 0
    for i, objects in enumerate(OBJECTS):
        boxes = [(x, y, x + w, y + h) for _, (x, y, w, h), _, _ in objects]
        yield {
            "image": IMAGES[i],
            "image/filename": f"{IMAGE_IDS[i]:012d}.jpg",
            "image/id": IMAGE_IDS[i],
            "objects": {
                "area": np.array([int(area) for _, _, area, _ in objects], "int64"),
                "bbox": np.array([shares(b, SIZES[i]) for b in boxes], "float32").reshape(-1, 4),
                "id": np.array([number + n for n in range(1, 1 + len(objects))], "int64"),
                "is_crowd": np.array([crowd for *_, crowd in objects], bool),
                "label": np.array([label for label, *_ in objects], "int64"),
            },
        }
        number += len(objects)


VOC_OBJECTS = [
    [("person", (1, 1, 64, 48), 0), ("tvmonitor", (11, 6, 30, 15), 1)],
    [],
    [("aeroplane", (3, 5, 40, 41), 0), ("person", (7, 7, 20, 20), 0)],
]


def voc_records():
    for i, objects in enumerate(VOC_OBJECTS):
        boxes = [shares(corners, SIZES[i]) for _, corners, _ in objects]
        yield {
            "image": IMAGES[i],
            "image/filename": f"{3 - i:06d}.jpg",
            "objects": {
                "bbox": np.array(boxes, "float32").reshape(-1, 4),
                "label": np.array([VOC_NAMES.index(name) for name, *_ in objects], "int64"),
                "is_difficult": np.array([hard for *_, hard in objects], bool),
            },
        }


def as_dataset(records):
    """Returns a function for `mock_data`; the images stay encoded, as the reader asks for."""
    import tensorflow as tf

    kinds = {"area": tf.int64, "id": tf.int64, "label": tf.int64}
    first = next(iter(records()))
    signature = {"image": tf.TensorSpec((), tf.string)}
    signature |= {"image/filename": tf.TensorSpec((), tf.string)}
    signature |= {"image/id": tf.TensorSpec((), tf.int64)} if "image/id" in first else {}
    objects = {k: tf.TensorSpec((None,), kinds.get(k, tf.bool)) for k in first["objects"]}
    signature["objects"] = objects | {"bbox": tf.TensorSpec((None, 4), tf.float32)}

    def function(self, *args, decoders, **kwargs):
        assert set(decoders) == {"image"}
        return tf.data.Dataset.from_generator(records, output_signature=signature)

    return function


@pytest.fixture
def mocked(tensorflow_datasets):
    def mock(records):
        return tensorflow_datasets.testing.mock_data(as_dataset_fn=as_dataset(records))

    return mock


@pytest.fixture
def folder(tmp_path):
    """The same images as a folder in COCO's form."""
    images, rows = [], []
    for i, objects in enumerate(OBJECTS):
        name = f"{IMAGE_IDS[i]:012d}.jpg"
        (tmp_path / "val").mkdir(exist_ok=True)
        (tmp_path / "val" / name).write_bytes(IMAGES[i])
        width, height = SIZES[i]
        image = {"id": IMAGE_IDS[i], "file_name": name, "height": height, "width": width}
        images.append(image)
        for label, bbox, area, crowd in objects:
            row = {"image_id": IMAGE_IDS[i], "category_id": CATEGORY_IDS[label], "bbox": bbox}
            rows.append({**row, "id": len(rows) + 1, "area": area, "iscrowd": crowd})
    images.sort(key=lambda image: image["id"])
    categories = [{"id": i, "name": name} for i, name in COCO_CATEGORIES.items()]
    content = {"images": images, "annotations": rows, "categories": categories}
    (tmp_path / "instances_val.json").write_text(json.dumps(content))
    return tmp_path


def assert_equal(read, expected, atol=1e-3):
    assert read.class_names == expected.class_names
    assert read.category_ids == expected.category_ids
    assert len(read) == len(expected)
    for i, (mine, other) in enumerate(zip(read.examples, expected.examples, strict=True)):
        assert (mine.height, mine.width) == (other.height, other.width)
        np.testing.assert_allclose(mine.boxes, other.boxes, atol=atol)
        np.testing.assert_array_equal(mine.labels, other.labels)
        np.testing.assert_array_equal(mine.ignore, other.ignore)
        np.testing.assert_array_equal(read.read_image(i), expected.read_image(i))


def guesses(read, seed=0):
    """Detections near the objects, some of another class, some nowhere."""
    rng = np.random.default_rng(seed)
    found = []
    for example in read.examples:
        boxes = np.concatenate([example.boxes, example.boxes, rng.uniform(0, 30, (2, 4))])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 4)
        labels = np.concatenate([example.labels, example.labels, [0, 11]])
        boxes = boxes + rng.normal(0, 1.5, boxes.shape)
        image = {"image_id": example.image_id, "boxes": boxes, "labels": labels}
        found.append({**image, "scores": rng.uniform(size=len(boxes))})
    return found


def assert_same_metrics(read, expected):
    for measure in (evaluate_detections, voc_ap):
        mine, other = measure(read, guesses(read)), measure(expected, guesses(expected))
        assert mine.keys() == other.keys() and 0 < max(other.values()) < 1.01
        np.testing.assert_allclose(list(mine.values()), list(other.values()), rtol=1e-9)


def test_the_fixed_table_is_cocos(photographs):
    read = data.coco(photographs("coco_mini"), "val2017", check_files=False)
    assert dict(zip(read.category_ids, read.class_names, strict=True)) == COCO_CATEGORIES
    assert len(COCO_CATEGORIES) == 80 and len(VOC_NAMES) == 20 and sorted(VOC_NAMES) == [*VOC_NAMES]


def test_unknown_name():
    with pytest.raises(ValueError, match="'voc/2012'.. Received: 'coco'"):
        data.tfds("coco", "train")


def test_package_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'libra-keras\[tfds\]'"):
        data.tfds("coco/2017", "train")


@pytest.mark.slow
def test_coco(mocked, folder):
    with mocked(coco_records):
        read = data.tfds("coco/2017", "validation")
    expected = data.coco(folder, "val")
    assert_equal(read, expected)
    assert [e.image_id for e in read.examples] == sorted(IMAGE_IDS)
    first, second = read.examples[:2]
    assert first.boxes.shape == (0, 4)  # image 7, the empty one
    # Image 25 is upright, with a crowd: its box is 3.1 + 30 wide.
    assert (second.width, second.height) == (48, 64) and second.ignore.tolist() == [True, False]
    np.testing.assert_allclose(second.boxes[0], [3.1, 7.77, 33.1, 47.78], atol=1e-4)
    assert second.file.as_posix() == "coco/2017/validation/000000000025.jpg"
    rows = {row["id"]: row for row in read.annotations["annotations"]}
    # To a thousandth of a pixel, the JSON's own numbers; the area has lost its fraction.
    assert rows[1]["bbox"] == [10.25, 5.5, 20.13, 10.07] and rows[1]["area"] == 150
    assert rows[2]["category_id"] == 90 and rows[4]["category_id"] == 13  # labels 79 and 11
    assert [row["id"] for row in rows.values() if row["iscrowd"]] == [3, 7]
    assert_same_metrics(read, expected)


@pytest.mark.slow
def test_original_annotations(mocked, folder):
    with mocked(coco_records):
        read = data.tfds("coco/2017", "validation", annotations=folder / "instances_val.json")
    expected = data.coco(folder, "val")
    assert_equal(read, expected, atol=0)
    assert read.annotations == expected.annotations
    assert_same_metrics(read, expected)


@pytest.mark.slow
def test_annotations_without_the_images(mocked, folder):
    file = folder / "instances_val.json"
    content = json.loads(file.read_text())
    content["images"] = content["images"][1:]
    file.write_text(json.dumps(content))
    with mocked(coco_records), pytest.raises(ValueError, match=r"1 are not .*000000000007.jpg"):
        data.tfds("coco/2017", "validation", annotations=file)


@pytest.mark.slow
def test_voc(mocked, tmp_path):
    with mocked(voc_records):
        read = data.tfds("voc/2007", "test")
    xml = "<object><name>{}</name><difficult>{}</difficult><bndbox>{}</bndbox></object>"
    corners = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    (tmp_path / "test").mkdir()
    for i, objects in enumerate(VOC_OBJECTS):
        name = tmp_path / "test" / f"{3 - i:06d}"
        name.with_suffix(".jpg").write_bytes(IMAGES[i])
        text = "".join(xml.format(n, hard, corners.format(*box)) for n, box, hard in objects)
        name.with_suffix(".xml").write_text(f"<annotation>{text}</annotation>")
    expected = data.voc(tmp_path, "test", class_names=VOC_NAMES)
    assert_equal(read, expected)
    assert [example.image_id for example in read.examples] == [1, 2, 3]
    # (1, 1)-(64, 48) are the first and the last pixel: the whole image.
    assert read.examples[2].boxes.tolist() == [[0, 0, 64, 48], [10, 5, 30, 15]]
    assert read.examples[2].ignore.tolist() == [False, True]
    assert_same_metrics(read, expected)


@pytest.mark.slow
def test_not_prepared(tensorflow_datasets, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"tfds build voc/2007 --data_dir={tmp_path}"):
        data.tfds("voc/2007", "test", data_dir=tmp_path)


def prepare(library, monkeypatch, name, records, folder, file_format):
    """Writes a split "validation" with TFDS's own writers, as `tfds build` would."""
    # TFDS 4.9.10 imports the older copy of it, which it installs for Python < 3.9 only.
    monkeypatch.setitem(sys.modules, "importlib_resources", importlib.resources)
    builder = library.builder(name, data_dir=folder, file_format=file_format)
    builder._split_generators = lambda _: {
        "validation": enumerate(map(with_open_images, records()))
    }
    settings = library.download.DownloadConfig(try_download_gcs=False, num_shards=2)
    builder.download_and_prepare(download_config=settings)


def with_open_images(record):
    """TFDS writes images from files, and objects one by one."""
    import tensorflow_datasets

    objects = {key: column.tolist() for key, column in record["objects"].items()}
    objects["bbox"] = [tensorflow_datasets.features.BBox(*box) for box in objects["bbox"]]
    rows = [dict(zip(objects, row, strict=True)) for row in zip(*objects.values(), strict=True)]
    return {**record, "image": io.BytesIO(record["image"]), "objects": rows}


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_prepared_data(tensorflow_datasets, monkeypatch, folder, tmp_path, file_format):
    where = tmp_path / "tfds"
    prepare(tensorflow_datasets, monkeypatch, "coco/2017", coco_records, where, file_format)
    read = data.tfds("coco/2017", "validation", data_dir=where)
    assert_equal(read, data.coco(folder, "val"))
    part = data.tfds("coco/2017", "validation[3:]", data_dir=where)
    assert len(part) == 2
    whole = {example.image_id: i for i, example in enumerate(read.examples)}
    for i, example in enumerate(part.examples):
        image = read.read_image(whole[example.image_id])
        np.testing.assert_array_equal(part.read_image(i), image)
    with pytest.raises(ValueError, match="Unknown split"):
        data.tfds("coco/2017", "val2017", data_dir=where)


@pytest.mark.slow
def test_damaged_files(tensorflow_datasets, monkeypatch, tmp_path):
    prepare(tensorflow_datasets, monkeypatch, "coco/2017", coco_records, tmp_path, "tfrecord")
    files = [file for file in tmp_path.glob("coco/2017/**/*") if file.is_file()]
    described, refused = {"dataset_info.json", "features.json"}, set()
    assert described < {file.name for file in files}
    for file in files:
        whole = file.read_bytes()
        for content in (b"", b"\0" + whole[1:], whole[:-9]):
            file.write_bytes(content)
            try:
                data.tfds("coco/2017", "validation", data_dir=tmp_path)
            except (ValueError, OSError) as error:
                assert str(tmp_path) in str(error)
                refused.add(file.name)
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(OSError, match=f"{file.name} is a FIFO, where a file is expected"):
            data.tfds("coco/2017", "validation", data_dir=tmp_path)
        file.unlink()
        file.write_bytes(whole)
    assert "dataset_info.json" in refused  # nothing of the other is asked
