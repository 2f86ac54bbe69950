"""The group of a run's config that says what it learns from, and how images are varied."""

import dataclasses

from libra_keras.ranges import SHARE, Range, whole
from libra_keras.runs.fields import Checked, option
from libra_keras.runs.groups import SIDE, names, sides

PROPOSALS = "which fast_rcnn models need; libra-keras propose writes them"


@dataclasses.dataclass(frozen=True)
class DataConfig(Checked):
    """What a run learns from and is measured on.

    Example:

    >>> from libra_keras.runs import DataConfig
    >>> DataConfig("my_photos", val_split="test").format
    'auto'
    """

    source: str = option(
        "shapes",
        "'shapes' (drawn scenes), a folder as annotation tools write it (COCO, Pascal VOC, YOLO, "
        "CVAT, CSV), or data that TensorFlow Datasets has prepared: tfds:coco/2017, tfds:voc/2007, "
        "tfds:voc/2012",
        name="data",
        metavar="DATA",
    )
    format: str = option(
        "auto",
        "of a folder; found out where only one fits",
        choices=("auto", "coco", "voc", "yolo", "cvat", "csv"),
    )
    annotations: str | None = option(
        None,
        "the annotations, where their place or name is another: .json, .yaml, .xml or .csv; "
        "{split} in it stands for the names of splits; of tfds: data, COCO's own JSON of what is "
        "measured on",
        metavar="FILE",
    )
    images: str | None = option(
        None, "the images, where their place is another; {split} as above", metavar="FOLDER"
    )
    class_names: tuple[str, ...] = option(
        (),
        "in the order of the labels, with commas, where the files do not say it",
        name="classes",
        metavar="NAMES",
        parse=names,
    )
    val_fraction: float | None = option(
        None,
        "measure on this share of a split, such as 0.2, and learn from the others, where there is "
        "one split; a hash of its name decides where an image goes",
        metavar="SHARE",
        within=Range(0, 1, "()"),
    )
    corners: str = option(
        "auto",
        "what corners in VOC's form are: a box's outermost pixels, counted from 1, as in VOC's own "
        "files, or its edges, as most tools write; by default the marks of these in the files "
        "tell, and the summary of the data says which",
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
    skip_bad: bool = option(False, "drop and count bad boxes, files")
    allow_outside: bool = option(
        False, "read images whose names in the annotations lead out of their folder (../a.jpg)"
    )
    max_pixels: int | None = option(
        None,
        "most pixels of an image; larger ones count as bad. Pillow's limit, of the whole process; "
        "default: 178956970",
        metavar="N",
        within=whole(1),
    )
    drop_empty: bool = option(False, "learn from no image without a box, as the reference does")
    cache: str | None = option(
        None,
        "keep decoded, resized images to learn from here, 3 bytes a pixel; later epochs and runs "
        "read them instead of the files; several runs may share the folder. Each size of "
        "--short-sides is kept; with --augment strong, images as they are before they are resized",
        metavar="FOLDER",
    )
    voc: bool = option(False, "also Pascal VOC's AP; data in its form have it anyway")
    proposals_file: str | None = option(
        None, f"proposals for the images, {PROPOSALS}", metavar="FILE"
    )
    val_proposals_file: str | None = option(
        None, f"those for the images to measure on, {PROPOSALS}", metavar="FILE"
    )
    augment: str = option(
        "none",
        "vary images: 'default' draws a size for each batch and colours, 'strong' scales from 0.5 "
        "to 2 with crops, and stronger colours; default: none",
        choices=("none", "default", "strong"),
        group="augmentation",
    )
    short_sides: tuple[int, ...] = option(
        (),
        "draw the short side of each batch from these, at most five, with commas; the long side is "
        "scaled alike. JAX compiles for each",
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
        "probability of turning upside down, for images without an up; default: 0",
        metavar="N",
        group="augmentation",
        within=SHARE,
    )
    quarter_turns: bool = option(
        False,
        "turn by a random number of quarter turns, for images without an up",
        group="augmentation",
    )
