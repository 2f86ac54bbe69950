"""Detectors that others have published, by name: downloaded and converted once, then kept."""

import contextlib
import dataclasses
import inspect
from pathlib import Path

import keras

from libra_keras import models
from libra_keras.convert.conversion import (
    Conversion,
    check_free,
    load,
    read_record,
    write_detector,
)
from libra_keras.files import downloads
from libra_keras.files.locks import in_turn
from libra_keras.models.detector import Detector

MMDETECTION = "https://download.openmmlab.com/mmdetection/v2.0"
MMDETECTION_1 = "https://open-mmlab.s3.ap-northeast-2.amazonaws.com/mmdetection/models"
TORCHVISION = "https://download.pytorch.org/models"


@dataclasses.dataclass(frozen=True)
class Published:
    """A detector, trained on COCO, that its authors offer for download."""

    name: str
    model: str  # the ready-made detector that it is
    score: float  # percent on COCO's val2017, as its publisher says
    address: str  # of a file whose name ends in the first digits of its SHA-256
    metric: str = "AP"

    @property
    def file(self) -> downloads.PublishedFile:
        digits = self.address.removesuffix(".pth").rpartition("-")[2]
        return downloads.PublishedFile(self.address, digits)

    @property
    def kind(self) -> type[Detector]:
        """The class of the detector, which the constructor of the ready-made one returns."""
        return inspect.signature(getattr(models, self.model)).return_annotation

    @property
    def folder(self) -> Path:
        """Where it is kept in its converted form."""
        return _home() / self.name

    @property
    def is_converted(self) -> bool:
        """Whether it is kept already; a folder is written as a whole."""
        record = read_record(self.folder) or {}
        return str(record.get("sha256")).startswith(self.file.digits)

    @property
    def is_downloaded(self) -> bool:
        return downloads.place(self.file, _home()).is_file()


def _home():
    return downloads.keras_home() / "libra_keras"


def _zoo(folder, name, ending, model, score, metric="AP"):
    address = f"{MMDETECTION}/{folder}/{name}/{name}_{ending}.pth"
    return Published(name, model, score, address, metric)


# Addresses and scores as in mmdetection's model zoo and in torchvision's documentation.
_ENTRIES = (
    _zoo("libra_rcnn", "libra_faster_rcnn_r50_fpn_1x_coco", "20200130-3afee3a9",
         "libra_faster_rcnn_resnet50", 38.3),
    _zoo("libra_rcnn", "libra_faster_rcnn_r101_fpn_1x_coco", "20200203-8dba6a5a",
         "libra_faster_rcnn_resnet101", 40.1),
    _zoo("libra_rcnn", "libra_faster_rcnn_x101_64x4d_fpn_1x_coco", "20200315-3a7d0488",
         "libra_faster_rcnn_resnext101_64x4d", 42.7),
    _zoo("libra_rcnn", "libra_retinanet_r50_fpn_1x_coco", "20200205-804d94ce",
         "libra_retinanet_resnet50", 37.6),
    _zoo("faster_rcnn", "faster_rcnn_r50_fpn_1x_coco", "20200130-047c8118",
         "faster_rcnn_resnet50", 37.4),
    _zoo("faster_rcnn", "faster_rcnn_r101_fpn_1x_coco", "20200130-f513f705",
         "faster_rcnn_resnet101", 39.4),
    _zoo("faster_rcnn", "faster_rcnn_x101_64x4d_fpn_1x_coco", "20200204-833ee192",
         "faster_rcnn_resnext101_64x4d", 42.1),
    _zoo("pafpn", "faster_rcnn_r50_pafpn_1x_coco", "bbox_mAP-0.375_20200503_105836-b7b4b9bd",
         "faster_rcnn_pafpn_resnet50", 37.5),
    _zoo("retinanet", "retinanet_r50_fpn_1x_coco", "20200130-c2398f9e",
         "retinanet_resnet50", 36.5),
    _zoo("rpn", "rpn_r50_fpn_1x_coco", "20200218-5525fa2e", "rpn_resnet50", 58.2, "AR@1000"),
    # The paper's authors' own, of mmdetection 1.x.
    Published("libra_faster_rcnn_r50_fpn_1x", "libra_faster_rcnn_resnet50", 38.5,
              f"{MMDETECTION_1}/libra_rcnn/libra_faster_rcnn_r50_fpn_1x_20190610-bf0ea559.pth"),
    Published("fasterrcnn_resnet50_fpn_coco", "faster_rcnn_resnet50", 37.0,
              f"{TORCHVISION}/fasterrcnn_resnet50_fpn_coco-258fb6c6.pth"),
    Published("retinanet_resnet50_fpn_coco", "retinanet_resnet50", 36.4,
              f"{TORCHVISION}/retinanet_resnet50_fpn_coco-eeacb38b.pth"),
)  # fmt: skip
PUBLISHED = {entry.name: entry for entry in _ENTRIES}


def converted(name: str) -> Path:
    """Returns the folder of a published detector, as `convert` writes it; downloads and converts it
    unless that has been done.

    Raises:
        ValueError, OSError: as `downloads.fetch` does, or if the file holds another network.
    """
    entry = PUBLISHED[name]
    if not entry.is_converted:
        _home().mkdir(parents=True, exist_ok=True, mode=0o700)
        with in_turn(_home() / f".turn.{name}", f"preparing {name}"):
            if not entry.is_converted:  # by the one before
                _convert(entry)
    return entry.folder


def _convert(entry):
    check_free(entry.folder, overwrite=True)
    was_there = entry.is_downloaded
    file = downloads.fetch(entry.file, _home())
    with _in_float32():
        conversion = load(file)
    check_network(entry, conversion)
    write_detector(conversion.model, conversion.record, entry.folder)
    if not was_there:  # what the user has put there stays
        file.unlink()
    print(f"Converted to {entry.folder}", flush=True)


@contextlib.contextmanager
def _in_float32():
    """What is kept must not depend on who asks first."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def check_network(entry: Published, conversion: Conversion) -> None:
    """Raises a ValueError if the file of a published detector holds another network."""
    found = conversion.record["model"] or type(conversion.model).__name__
    if found not in (entry.model, entry.kind.__name__):
        raise ValueError(f"{entry.file.name} holds a {found}, but {entry.name} is a {entry.model}")
