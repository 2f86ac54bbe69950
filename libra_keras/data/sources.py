"""From the name of a data set to a `DetectionData`: shapes, a COCO or VOC folder, TFDS."""

from pathlib import Path

from libra_keras.data.coco import coco
from libra_keras.data.examples import DetectionData
from libra_keras.data.shapes import shapes
from libra_keras.data.tfds import splits_with_annotations, tfds
from libra_keras.data.voc import voc

# What the splits of a data set are usually called, best first.
USUAL = {
    "train": ("train", "trainval", "train2017", "train2014", "training"),
    "val": ("val", "test", "val2017", "val2014", "valid", "validation"),
}
TFDS = "tfds:"  # before a name of TensorFlow Datasets
USUAL_TFDS = {"train": ("train",), "val": ("validation",)}
# What a folder must hold.
LAYOUTS = {
    "coco": "annotations/instances_<split>.json or instances_<split>.json, and images in <split>/ "
    "or images/<split>/",
    "voc": "Annotations/*.xml, JPEGImages/* and ImageSets/Main/<split>.txt, or <split>/*.xml "
    "beside their images",
}


def load(
    where: str | Path,
    split: str | None = None,
    role: str = "train",
    form: str = "auto",
    skip_bad: bool = False,
    annotations: str | Path | None = None,
    corners: str = "auto",
) -> DetectionData:
    """Reads one split of a data set, whatever form it has.

    Args:
        where: `"shapes"`, a folder in COCO's or Pascal VOC's form, or `"tfds:<name>"`.
        split: str, or `None` for the split that is usually called so. A number is that many of the
            drawn scenes, of those held out if the role is `"val"`.
        role: `"train"` or `"val"`, which usual names are looked for.
        form: `"coco"` or `"voc"`, of a folder; by default its layout tells.
        skip_bad: bool, whether bad boxes and files are dropped and counted.
        annotations: path of COCO's original JSON, for data of TFDS, or `None`.
        corners: `"pixels"` or `"edges"`, what the corners in VOC's files are, or `"auto"`; see
            `data.voc`.

    Returns:
        `DetectionData`.

    Raises:
        ValueError: if there is no such data, or it is bad and `skip_bad` is false.

    Example:

    >>> from libra_keras import data
    >>> data.load("shapes", "4", role="val").summary()
    'shapes/val: 4 images, 27 boxes, 6 classes'
    """
    where = str(where)
    if annotations and not where.startswith(TFDS):
        raise ValueError(f"--annotations is for data of TFDS. Received: DATA {where!r}")
    is_folder = where != "shapes" and not where.startswith(TFDS)
    found = find_format(where, form) if is_folder else None
    if corners != "auto" and found != "voc":
        raise ValueError(f"--corners is for folders in VOC's form. Received: DATA {where!r}")
    split = split or usual_split(where, form, role)
    if where == "shapes":
        return shapes(role, int(split)) if split.isdigit() else shapes(split)
    if where.startswith(TFDS):
        name = where.removeprefix(TFDS)
        return tfds(name, split, annotations=annotations, skip_bad=skip_bad)
    if found == "coco":
        return coco(where, split, skip_bad=skip_bad)
    return voc(where, split, skip_bad=skip_bad, corners=corners)


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
    """Returns the names of all splits of a data set, sorted."""
    if where == "shapes":
        return ["train", "val"]
    if str(where).startswith(TFDS):
        return list(splits_with_annotations(where.removeprefix(TFDS)))
    folder, form = Path(where), find_format(where, form)
    found = {"coco": _coco_splits, "voc": _voc_splits}[form](folder)
    if not found:
        raise ValueError(f"no split found in {folder} (expected {LAYOUTS[form]})")
    return found


def find_format(where, form="auto"):
    """Returns `"coco"` or `"voc"`, by the layout of the folder unless `form` says it."""
    folder = Path(where)
    if not folder.is_dir():
        raise ValueError(
            f"DATA must be 'shapes', an existing folder, or tfds:<name>. Received: {str(where)!r}"
        )
    if form != "auto":
        return form
    if _coco_splits(folder):
        return "coco"
    if _voc_splits(folder):
        return "voc"
    raise ValueError(
        f"{folder} is neither a COCO folder ({LAYOUTS['coco']}) nor a Pascal VOC folder "
        f"({LAYOUTS['voc']})"
    )


def short_name(where):
    """Returns a name for folders of runs."""
    if where.startswith(TFDS):
        return where.removeprefix(TFDS).replace("/", "-")
    return Path(where).resolve().name


def is_voc(where, form="auto"):
    """Whether data are in Pascal VOC's form, whose AP is then measured too."""
    if where.startswith(TFDS):
        return where.startswith(f"{TFDS}voc/")
    return Path(where).is_dir() and find_format(where, form) == "voc"


def _coco_splits(folder):
    files = *folder.glob("annotations/instances_*.json"), *folder.glob("instances_*.json")
    return sorted({file.stem.removeprefix("instances_") for file in files})


def _voc_splits(folder):
    """VOC's own lists per class (`dog_train.txt`) are not splits: they come with `train.txt`."""
    names = {file.stem for file in folder.glob("ImageSets/Main/*.txt")}
    names = {name for name in names if not names & set(name.split("_")[1:])}
    return sorted(names or {file.parent.name for file in folder.glob("*/*.xml")})
