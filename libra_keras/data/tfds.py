"""Reader of COCO and Pascal VOC as prepared by TensorFlow Datasets."""

import dataclasses
import functools
import io
import os
import struct
import threading
from pathlib import Path

import numpy as np

from libra_keras.data.coco import from_content, load
from libra_keras.data.coco_entries import is_id, sound_images
from libra_keras.data.decoding import opened
from libra_keras.data.examples import DetectionData
from libra_keras.data.images import read_image
from libra_keras.data.known_classes import COCO_CATEGORIES, VOC_CATEGORIES
from libra_keras.data.layouts import Place
from libra_keras.files.reading import check_regular, explained, open_regular, reason

HEADER = struct.Struct("<QI")  # length of the record, and its checksum
FOOTER = 4  # checksum of the record
# By name: the splits that have annotations.
SPLITS = {
    "coco/2014": ("train", "validation"),
    "coco/2017": ("train", "validation"),
    "voc/2007": ("train", "validation", "test"),
    "voc/2012": ("train", "validation"),
}
DECIMALS = 3  # of a pixel; what float32 shares of an image's side tell of it


# Such a file is a chain: each record says how long it is. The first record that is asked of a file
# makes its headers be read, 12 bytes per record; what is kept are their places. Files are opened
# for every record, so threads may read at the same time.
class TFRecords:
    """Reads records of TFRecord files by number, which other readers go through in order."""

    def __init__(self, folder):
        self.folder = Path(folder) if isinstance(folder, str) else folder
        self._places = {}
        self._lock = threading.Lock()

    def read(self, file, number):
        """Returns the bytes of record `number`, counted from 0, of a file of the folder."""
        path = self.folder / file
        # Others than local ones are TFDS's own to open.
        with open_regular(path) if os.path.exists(path) else path.open("rb") as stream:
            with self._lock:
                if file not in self._places:
                    self._places[file] = list(_places(stream))
            places = self._places[file]
            if not 0 <= number < len(places):
                raise OSError(f"{file} has {len(places)} records, none of number {number}")
            start, length = places[number]
            if start + length > stream.seek(0, os.SEEK_END):
                raise OSError(f"{file} ends in the middle of record {number}")
            stream.seek(start)
            return stream.read(length)


def _places(stream):
    """Yields start and length of every record; the last may not be there as a whole."""
    start, size = 0, stream.seek(0, os.SEEK_END)
    while start + HEADER.size <= size:
        stream.seek(start)
        length, _ = HEADER.unpack(stream.read(HEADER.size))
        yield start + HEADER.size, length
        start += HEADER.size + length + FOOTER


def tfds(
    name: str,
    split: str,
    data_dir: str | Path | None = None,
    annotations: str | Path | None = None,
    skip_bad: bool = False,
) -> DetectionData:
    """Reads COCO or Pascal VOC from TensorFlow Datasets (`pip install 'libra-keras[tfds]'`).

    The data must have been prepared: nothing is downloaded here. They are read once for boxes and
    image sizes; pixels are read on demand, from where TFDS has put them: TFRecord files or, if
    prepared so, ArrayRecord files. A source that does not report where its records are
    (`tfds.testing.mock_data`) is kept in memory, encoded.

    Examples are in the order of their image ids, which are COCO's own or, in VOC, the digits of
    the file's name. Labels are those of `data.coco`, the 80 category ids in ascending order, and
    of `data.voc`, the 20 names in alphabetical order. Crowds and difficult objects are `ignore`d;
    images without objects are kept. VOC's corners, which name first and last pixels counted from
    1, become half-open as in `data.voc`.

    For evaluation, pass COCO's original JSON as `annotations`. Without it, annotations are made
    from what TFDS keeps: boxes to a thousandth of a pixel, and areas of the segmentations without
    their fractions. An object whose area is within 1 of 32^2 or 96^2 may thus change its size
    class; AP, AP50 and AP75 are not affected. In VOC nothing is lost.

    Args:
        name: `"coco/2017"`, `"coco/2014"`, `"voc/2007"` or `"voc/2012"`.
        split: str, such as `"train"`, `"validation[:10%]"` or, as usual in VOC,
            `"train+validation"`. Splits without annotations have images without objects.
        data_dir: path of the TFDS data. Defaults to TFDS's own, which the environment variable
            `TFDS_DATA_DIR` sets.
        annotations: path of a JSON in COCO format, which then provides boxes, classes and sizes;
            TFDS provides the images, found by their ids or, in VOC, by file name.
        skip_bad: bool, whether bad boxes are dropped and counted instead of raising.

    Returns:
        `DetectionData`.

    Raises:
        ImportError: if TensorFlow Datasets is not installed.
        FileNotFoundError: if the data are not prepared. The message explains how to do so.
        ValueError: if the name or the split is unknown, if `annotations` lacks images, or if
            something is wrong with the data and `skip_bad` is false. A record whose bytes are
            not an image raises in any case.

    Example:

    >>> from libra_keras import data
    >>> try:
    ...     data.tfds("coco", "train")
    ... except ValueError as error:
    ...     print(error)
    `name` must be one of ['coco/2014', 'coco/2017', 'voc/2007', 'voc/2012']. Received: 'coco'
    """
    splits_with_annotations(name)
    library = import_tfds()
    where = Path(data_dir or library.core.constants.DATA_DIR).expanduser()
    images, rows, fetch = [], [], {}
    with explained(where, f"read as {name}"):
        for file in where.glob(f"{name}/**/*"):
            if not file.is_dir():
                check_regular(file)
        builder = library.builder(name, data_dir=data_dir)
        for record, get_record in _records(builder, split):
            image = _image(record)
            images.append(image)
            rows += _rows(record, image)
            fetch[image["id"]] = get_record
    images.sort(key=lambda image: image["id"])
    file = Path(f"tfds:{name}/{split}")
    if annotations is None:
        names = COCO_CATEGORIES if name.startswith("coco") else VOC_CATEGORIES
        categories = [{"id": number, "name": category} for number, category in names.items()]
        content = {"images": images, "annotations": rows, "categories": categories}
    else:
        file = Path(annotations).expanduser()
        content, fetch = _joined(load(file), images, fetch, by_id=name.startswith("coco"))
    # The images are those of TFDS: names of files are not followed.
    place = Place(file, (Path(name, split),), allow_outside=True)
    found = from_content(content, place, f"{name}/{split}", skip_bad, False)
    return dataclasses.replace(
        found, reader=lambda example: read_image(fetch[example.image_id]()["image"])
    )


def splits_with_annotations(name):
    """Returns the names of the splits that `tfds` reads with objects."""
    if name not in SPLITS:
        raise ValueError(f"`name` must be one of {list(SPLITS)}. Received: {name!r}")
    return SPLITS[name]


def import_tfds():
    """Returns the module `tensorflow_datasets`."""
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ImportError(
            "TensorFlow Datasets is not installed: pip install 'libra-keras[tfds]'"
        ) from error
    return tensorflow_datasets


def _records(builder, split):
    """Yields every record with its image still encoded, and a function that reads it again."""
    library = import_tfds()
    decoders = {"image": library.decode.SkipDecoding()}
    random_access = library.core.FileFormat.with_random_access()
    if builder.info.file_format in random_access and builder.is_prepared():
        source = builder.as_data_source(split, decoders=decoders)
        for i in range(len(source)):
            yield source[i], functools.partial(source.__getitem__, i)
        return
    config = library.ReadConfig(add_tfds_id=True, try_autocache=False)
    try:
        dataset = builder.as_dataset(split=split, decoders=decoders, read_config=config)
    except AssertionError as error:  # what TFDS raises where there are no data
        name = f"{builder.name}/{builder.builder_config.name}"
        where = builder.data_dir_root
        raise FileNotFoundError(
            f"{name} is not prepared in {where}. Once, with network and disk space: "
            f"tfds build {name} --data_dir={where}"
        ) from error
    shards = TFRecords(builder.data_path)
    parse = functools.partial(builder.info.features.deserialize_example_np, decoders=decoders)
    for record in dataset.as_numpy_iterator():
        place = record.pop("tfds_id", None)  # b"<file>__<number>"
        if place is None:
            yield record, functools.partial(dict, image=record["image"])
        else:
            file, _, number = place.decode().rpartition("__")
            yield record, functools.partial(_read, shards, file, int(number), parse)


def _read(shards, file, number, parse):
    return parse(shards.read(file, number))


def _image(record):
    """The image's entry of COCO's JSON; the size is that in its header."""
    file_name = record["image/filename"].decode()
    number = record.get("image/id")
    if number is None:
        number = "".join(filter(str.isdigit, file_name))
    try:
        with opened(io.BytesIO(record["image"])) as image:
            width, height = image.size
    except Exception as error:  # a broken header makes Pillow raise nearly anything
        raise ValueError(f"{file_name}: not an image: {reason(error)}") from error
    return {"id": int(number), "file_name": file_name, "height": height, "width": width}


def _rows(record, image):
    """The objects of an image as entries of COCO's JSON."""
    objects = record["objects"]
    height, width = image["height"], image["width"]
    corners = np.asarray(objects["bbox"], "float64").reshape(-1, 4)[:, [1, 0, 3, 2]]
    corners = np.round(corners * [width, height, width, height], DECIMALS)
    if "is_difficult" in objects:
        corners[:, :2] -= 1
        return [_voc_row(*row, image["id"]) for row in _columns(objects, corners, "is_difficult")]
    keys = "is_crowd", "area", "id"
    return [_coco_row(*row, image["id"]) for row in _columns(objects, corners, *keys)]


def _columns(objects, corners, *keys):
    columns = [np.asarray(objects[key]).tolist() for key in ("label", *keys)]
    return zip(corners.tolist(), *columns, strict=True)


def _voc_row(corners, label, is_difficult, image_id):
    bbox = _bbox(corners)
    row = {"image_id": image_id, "category_id": label + 1, "bbox": bbox, "area": bbox[2] * bbox[3]}
    return {**row, "iscrowd": 0, "ignore": int(is_difficult)}


def _coco_row(corners, label, is_crowd, area, number, image_id):
    row = {"id": number, "image_id": image_id, "category_id": list(COCO_CATEGORIES)[label]}
    return {**row, "bbox": _bbox(corners), "area": area, "iscrowd": int(is_crowd)}


def _bbox(corners):
    x1, y1, x2, y2 = corners
    return [x1, y1, round(x2 - x1, DECIMALS), round(y2 - y1, DECIMALS)]


def _image_id(row):
    """Which image a row is of; `None` for what `from_content` makes a finding."""
    image_id = row.get("image_id") if isinstance(row, dict) else None
    return image_id if is_id(image_id) else None


def _joined(content, images, fetch, by_id):
    """Restricts a JSON to the images of the split: its content, and where each image is read."""

    def key(image):
        return image["id"] if by_id else Path(image["file_name"]).stem

    sound, _ = sound_images(content["images"], "")
    listed = {key(image): image for image in sound}
    missing = [image["file_name"] for image in images if key(image) not in listed]
    if missing:
        raise ValueError(
            f"Expected annotations of all images. {len(missing)} are not in the JSON: {missing[:5]}"
        )
    kept = [listed[key(image)] for image in images]
    fetch = {own["id"]: fetch[image["id"]] for own, image in zip(kept, images, strict=True)}
    others = {image["id"] for image in sound} - fetch.keys()  # images of other splits
    rows = [row for row in content["annotations"] if _image_id(row) not in others]
    return {**content, "images": kept, "annotations": rows}, fetch
