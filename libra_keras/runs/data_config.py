"""The group of a run's config that says what it learns from, and how images are varied."""

import dataclasses

from libra_keras.ranges import SHARE, Range, whole
from libra_keras.runs.fields import Checked, option
from libra_keras.runs.groups import SIDE, names, sides

PROPOSALS = "as fast_rcnn models require; libra-keras propose writes them"


@dataclasses.dataclass(frozen=True)
class DataConfig(Checked):
    """What a run learns from and is measured on.

    Fields are options of `libra-keras train`, whose `--help` explains them, under the same names;
    `source` is DATA there, and `class_names` is `--classes`.

    Example:

    >>> from libra_keras.runs import DataConfig
    >>> DataConfig("my_photos", val_split="test").format
    'auto'
    """

    source: str = option(
        "shapes",
        "'shapes' (drawn scenes), a folder as annotation tools write it (COCO, Pascal VOC, YOLO, "
        "CVAT, CSV), or data prepared by TensorFlow Datasets: tfds:coco/2017, tfds:voc/2007, "
        "tfds:voc/2012",
        name="data",
        metavar="DATA",
    )
    format: str = option(
        "auto",
        "format of a folder; default: detected, if only one fits",
        choices=("auto", "coco", "voc", "yolo", "cvat", "csv"),
    )
    annotations: str | None = option(
        None,
        "the annotations, if they are not in the usual place: .json, .yaml, .xml or .csv; {split} "
        "stands for the name of each split; for tfds: data, COCO's own JSON of the split to "
        "measure on",
        metavar="FILE",
    )
    images: str | None = option(
        None,
        "the images, if they are not in the usual place; {split} as above",
        metavar="FOLDER",
    )
    class_names: tuple[str, ...] = option(
        (),
        "class names in the order of the labels, separated by commas, if the files lack them",
        name="classes",
        metavar="NAMES",
        parse=names,
    )
    val_fraction: float | None = option(
        None,
        "divide the only split, or the one that --train-split names: measure on this share of its "
        "images, such as 0.2, and learn from the rest; a hash of its name decides where an image "
        "goes",
        metavar="SHARE",
        within=Range(0, 1, "()"),
    )
    corners: str = option(
        "auto",
        "what corners in VOC format mean: a box's outermost pixels, counted from 1, as in VOC's "
        "own files, or its edges, as most tools write them; by default this is inferred from the "
        "files, and the summary of the data states which",
        choices=("auto", "pixels", "edges"),
    )
    train_split: str | None = option(
        None,
        "what to learn from (default: train, or trainval); of shapes, also a number of scenes",
    )
    val_split: str | None = option(
        None,
        "what to measure on (default: val, or test); of shapes, also a number (held out)",
    )
    skip_bad: bool = option(False, "drop and count bad boxes and files")
    allow_outside: bool = option(
        False, "read images whose names in the annotations point out of their folder (../a.jpg)"
    )
    max_pixels: int | None = option(
        None,
        "maximum pixels of an image; larger images count as bad. Sets Pillow's limit for the "
        "entire process; default: 178956970",
        metavar="N",
        within=whole(1),
    )
    drop_empty: bool = option(False, "do not learn from images without boxes, as in the reference")
    cache: str | None = option(
        None,
        "keep decoded, resized training images here, 3 bytes per pixel; later epochs and runs read "
        "them instead of the files, and several runs may share the folder. Each size of "
        "--short-sides is kept; with --augment strong, the images before resizing",
        metavar="FOLDER",
    )
    voc: bool = option(False, "also measure Pascal VOC's AP; always on for VOC data")
    proposals_file: str | None = option(
        None, f"proposals for the images, {PROPOSALS}", metavar="FILE"
    )
    val_proposals_file: str | None = option(
        None, f"those for the images to measure on, {PROPOSALS}", metavar="FILE"
    )
    augment: str = option(
        "none",
        "vary images: 'default' varies the size of each batch and the colours, 'strong' scales by "
        "0.5 to 2 with crops, and varies colours more; default: none",
        choices=("none", "default", "strong"),
        group="augmentation",
    )
    short_sides: tuple[int, ...] = option(
        (),
        "draw the short side of each batch from these, at most five, separated by commas; the long "
        "side is scaled to match. JAX compiles for each",
        metavar="PIXELS",
        parse=sides,
        group="augmentation",
        within=SIDE,
    )
    flip: float = option(
        0.5,
        "probability of mirroring; default: 0.5",
        metavar="N",
        group="augmentation",
        within=SHARE,
    )
    vertical_flip: float = option(
        0.0,
        "probability of flipping upside down, for images without a natural top; default: 0",
        metavar="N",
        group="augmentation",
        within=SHARE,
    )
    quarter_turns: bool = option(
        False,
        "rotate by a random number of quarter turns, for images without a natural top",
        group="augmentation",
    )
