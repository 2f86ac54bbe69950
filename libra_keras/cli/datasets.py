"""From the DATA argument of a verb to a `DetectionData`: shapes, a COCO or VOC folder, TFDS."""

from pathlib import Path

FORMATS = ("auto", "coco", "voc")
# What the splits of a data set are usually called, best first.
USUAL = {
    "train": ("train", "trainval", "train2017", "train2014", "training"),
    "val": ("val", "test", "val2017", "val2014", "valid", "validation"),
}
TFDS = "tfds:"  # before a name of TensorFlow Datasets
USUAL_TFDS = {"train": ("train",), "val": ("validation",)}


def add_data_arguments(parser, default=None):
    """Adds DATA and --format; DATA may be left out if there is a `default`."""
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?" if default else None,
        default=default,
        help="'shapes' (drawn scenes), a folder in COCO's or Pascal VOC's form, or data that "
        "TensorFlow Datasets has prepared: tfds:coco/2017, tfds:voc/2007, tfds:voc/2012",
    )
    parser.add_argument("--format", choices=FORMATS, default="auto", help="of a folder")


def load_data(options, split, role):
    """Reads one split.

    Args:
        options: namespace with `data`, `format` and `skip_bad`; `annotations`, a JSON for data of
            TFDS, is optional.
        split: str, or `None` for the folder's split that is usually called so. A number is that
            many of the drawn scenes, of those held out if the role is `"val"`.
        role: `"train"` or `"val"`, which usual names are looked for.

    Returns:
        `DetectionData`.

    Raises:
        ValueError: if there is no such data, or it is bad and `skip_bad` is false.
    """
    from libra_keras import data

    annotations = getattr(options, "annotations", None)
    if annotations and not options.data.startswith(TFDS):
        raise ValueError(f"--annotations is for data of TFDS. Received: DATA {options.data!r}")
    split = split or usual_split(options.data, options.format, role)
    if options.data == "shapes":
        return data.shapes(role, int(split)) if split.isdigit() else data.shapes(split)
    if options.data.startswith(TFDS):
        name = options.data.removeprefix(TFDS)
        return data.tfds(name, split, annotations=annotations, skip_bad=options.skip_bad)
    read = {"coco": data.coco, "voc": data.voc}[find_format(options.data, options.format)]
    return read(options.data, split, skip_bad=options.skip_bad)


def usual_split(where, form, role):
    """Returns the first split of a data set whose name is usual for its role."""
    found = find_splits(where, form)
    usual = USUAL_TFDS if str(where).startswith(TFDS) else USUAL
    for name in usual[role]:
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
    if str(where).startswith(TFDS):
        from libra_keras.data.tfds import splits_with_annotations

        return list(splits_with_annotations(where.removeprefix(TFDS)))
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
        raise ValueError(
            f"DATA must be 'shapes', an existing folder, or tfds:<name>. Received: {str(where)!r}"
        )
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


def short_name(where):
    """Returns a name for folders of runs.

    Example:

    >>> from libra_keras.cli.datasets import short_name
    >>> short_name("tfds:coco/2017"), short_name("data/my_photos")
    ('coco-2017', 'my_photos')
    """
    if where.startswith(TFDS):
        return where.removeprefix(TFDS).replace("/", "-")
    return Path(where).resolve().name


def wants_voc(options):
    """Whether Pascal VOC's AP is to be measured too: if the data are VOC's, or --voc asks for it.

    Example:

    >>> import argparse
    >>> from libra_keras.cli.datasets import wants_voc
    >>> wants_voc(argparse.Namespace(data="tfds:voc/2007", format="auto", voc=False))
    True
    """
    if options.voc or options.data == "shapes":
        return options.voc
    if options.data.startswith(TFDS):
        return options.data.startswith(f"{TFDS}voc/")
    return find_format(options.data, options.format) == "voc"


def check_voc(options, model):
    """Refuses --voc for a model that knows no classes.

    Raises:
        ValueError: if the option was given for a `RegionProposalNetwork`.
    """
    from libra_keras.models import RegionProposalNetwork

    if options.voc and isinstance(model, RegionProposalNetwork):
        raise ValueError("--voc is for detectors of classes; a RegionProposalNetwork has a recall")


def add_voc_argument(parser):
    """Adds --voc."""
    parser.add_argument(
        "--voc", action="store_true", help="also Pascal VOC's AP; data in its form have it anyway"
    )


def _coco_files(folder):
    return [*folder.glob("annotations/instances_*.json"), *folder.glob("instances_*.json")]


def _voc_splits(folder):
    """VOC's own lists per class (`dog_train.txt`) are not splits: they come with `train.txt`."""
    names = {file.stem for file in folder.glob("ImageSets/Main/*.txt")}
    names = {name for name in names if not names & set(name.split("_")[1:])}
    return sorted(names or {file.parent.name for file in folder.glob("*/*.xml")})
