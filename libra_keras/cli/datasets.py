"""From the DATA argument of a verb to a `DetectionData`: drawn shapes, a COCO or a VOC folder."""

from pathlib import Path

FORMATS = ("auto", "coco", "voc")
# What the splits of a data set are usually called, best first.
USUAL = {
    "train": ("train", "trainval", "train2017", "train2014", "training"),
    "val": ("val", "test", "val2017", "val2014", "valid", "validation"),
}


def add_data_arguments(parser, default=None):
    """Adds DATA and --format; DATA may be left out if there is a `default`."""
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?" if default else None,
        default=default,
        help="'shapes' (drawn scenes), or a folder in COCO's or Pascal VOC's form",
    )
    parser.add_argument("--format", choices=FORMATS, default="auto", help="of a folder")


def load_data(options, split, role):
    """Reads one split.

    Args:
        options: namespace with `data`, `format` and `skip_bad`.
        split: str, or `None` for the folder's split that is usually called so.
        role: `"train"` or `"val"`, which usual names are looked for.

    Returns:
        `DetectionData`.

    Raises:
        ValueError: if there is no such data, or it is bad and `skip_bad` is false.
    """
    from libra_keras import data

    split = split or usual_split(options.data, options.format, role)
    if options.data == "shapes":
        return data.shapes(int(split) if split.isdigit() else split)
    read = {"coco": data.coco, "voc": data.voc}[find_format(options.data, options.format)]
    return read(options.data, split, skip_bad=options.skip_bad)


def usual_split(where, form, role):
    """Returns the first split of a data set whose name is usual for its role."""
    found = find_splits(where, form)
    for name in USUAL[role]:
        if name in found:
            return name
    option = "--train-split or --split" if role == "train" else "--val-split or --split"
    raise ValueError(f"name a split of {where} with {option}; it has {', '.join(found)}")


def find_splits(where, form="auto"):
    """Returns the names of all splits of a data set, sorted.

    Example:

    >>> from libra_keras.cli.datasets import find_splits
    >>> find_splits("shapes")
    ['train', 'val']
    """
    if where == "shapes":
        return ["train", "val"]
    folder = Path(where)
    if find_format(where, form) == "coco":
        return sorted({file.stem.removeprefix("instances_") for file in _coco_files(folder)})
    return _voc_splits(folder)


def find_format(where, form="auto"):
    """Returns `"coco"` or `"voc"`, by the layout of the folder unless `form` says it.

    Raises:
        ValueError: if the folder has neither layout, or is none.
    """
    folder = Path(where)
    if not folder.is_dir():
        raise ValueError(f"DATA must be 'shapes' or an existing folder. Received: {str(where)!r}")
    if form != "auto":
        return form
    if _coco_files(folder):
        return "coco"
    if _voc_splits(folder):
        return "voc"
    raise ValueError(
        f"{folder} is neither a COCO folder (annotations/instances_<split>.json or "
        "instances_<split>.json, and images in <split>/ or images/<split>/) nor a Pascal VOC "
        "folder (Annotations/*.xml, JPEGImages/* and ImageSets/Main/<split>.txt, or <split>/*.xml "
        "beside their images)"
    )


def _coco_files(folder):
    return [*folder.glob("annotations/instances_*.json"), *folder.glob("instances_*.json")]


def _voc_splits(folder):
    """VOC's own lists per class (`dog_train.txt`) are not splits: they come with `train.txt`."""
    names = {file.stem for file in folder.glob("ImageSets/Main/*.txt")}
    names = {name for name in names if not names & set(name.split("_")[1:])}
    return sorted(names or {file.parent.name for file in folder.glob("*/*.xml")})
