"""From a checkpoint file to a detector or a backbone of ours, and to files that keep it."""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

import libra_keras
from libra_keras import models
from libra_keras.convert.architecture import build_backbone, build_detector
from libra_keras.convert.backbones import (
    from_detectron2,
    from_keras_applications,
    from_torch_backbone,
    is_backbone,
    is_detectron2,
)
from libra_keras.convert.canonical import backbone_variables, named_variables, place
from libra_keras.convert.checkpoint import Checkpoint, file_hash, read_checkpoint
from libra_keras.convert.mmdetection import from_mmdetection, is_mmdetection
from libra_keras.convert.torchvision import from_torchvision, is_torchvision
from libra_keras.files import atomic
from libra_keras.files.reading import read_object
from libra_keras.files.replacing import Kind, check_replaceable, check_replaceable_files
from libra_keras.layers import PathAggregationPyramid
from libra_keras.models import FasterRCNN, FastRCNN, RegionProposalNetwork, RetinaNet
from libra_keras.models.constructors.parts import NETWORKS
from libra_keras.models.saved import ARCHITECTURE, WEIGHTS, write_folder

RECORD = "conversion.json"
OF_BACKBONE = ".weights.h5"
DETECTOR = Kind("conversion", RECORD, (ARCHITECTURE, WEIGHTS, RECORD))
# Patterns of names of tensors, and what that cannot be converted has such names; the first fits.
ORIGINS = [
    (r"(model\.)?model\.\d+\.(conv|bn|cv\d|m|dfl)\b", "a YOLO of ultralytics"),
    (r"(conv1|res_conv1|res\d_\d+_branch\w+?)(_bn)?_[wbs]", "a network of Caffe2 (Detectron)"),
    (r"backbone\.bottom_up\.|proposal_generator\.|roi_heads\.res5\.", "a network of detectron2"),
    (r"(model\.)?(backbone\.(conv_encoder|model)|encoder|decoder)\.", "a transformer such as DETR"),
    (r".*(\.attn\.|cls_token|patch_embed)", "a transformer of images such as ViT or Swin"),
    (r"(backbone|neck|bbox_head|roi_head|rpn_head)\.", "another detector, such as mmdetection's"),
    (r"features\.(\d+|conv0|denseblock\d)\.", "a torchvision network that is not a ResNet"),
    (r"(module|model|net|backbone)\.", "a network inside another one, whose name comes first"),
]
_OPTIONS = {  # of `load`, which concern the files of each kind
    "mmdetection": {"class_names", "era", "backbone_style", "epsilon"},
    "torchvision": {"class_names", "epsilon"},
    "a backbone": {"backbone_style", "epsilon"},
    "keras.applications": set(),
}


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A converted network, and where it came from.

    Attributes:
        model: `FasterRCNN`, `FastRCNN`, `RetinaNet` or `RegionProposalNetwork`, or for a backbone
            a `keras.Model` from images to its features.
        record: JSON-serialisable dict: `"source"`, the file's name; `"sha256"`; `"taken_for"`,
            what wrote it; `"kind"`, `"detector"` or `"backbone"`; `"model"` or `"network"`, the
            name of the ready-made one that it equals, or `None`; `"class_names"`;
            `"preprocessing"`; `"parameters"`; `"unused"`, a dict from unneeded tensors to the
            reason; `"notes"`; and `"libra_keras"`, the version that converted.

    Example:

    >>> from libra_keras.convert import Conversion
    >>> [field for field in Conversion.__dataclass_fields__]
    ['model', 'record']
    """

    model: keras.Model
    record: dict[str, Any]

    def summary(self) -> str:
        """Returns a few readable lines: what was converted, and what was left out."""
        record = self.record
        what = record.get("model") or record.get("network") or type(self.model).__name__
        lines = [f"{record['source']}: {what} of {record['taken_for']}"]
        lines.append(f"  {record['parameters']:,} parameters, sha256 {record['sha256'][:16]}...")
        names = record.get("class_names")
        if names:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            lines.append(f"  {len(names)} classes: {shown}")
        reasons: dict[str, list[str]] = {}
        for name, why in record["unused"].items():
            reasons.setdefault(why, []).append(name)
        for why, left in reasons.items():
            lines.append(f"  not needed: {len(left)} tensor(s) like {left[0]}: {why}")
        return "\n".join([*lines, *(f"  {note}" for note in record["notes"])])


def convert(
    source: str | os.PathLike[str] | Checkpoint,
    to: str | os.PathLike[str],
    overwrite: bool = False,
    **options: Any,
) -> Conversion:
    """Converts a checkpoint and writes files that `predict`, `evaluate`, `export` and `train` read.

    A detector becomes a folder with `model.json`, `last.weights.h5` and `conversion.json`; it is
    used like the folder of a training run. A backbone becomes a file whose name ends in
    `.weights.h5`, and a `.json` beside it.

    Args:
        source, **options: see `load`.
        to: path of the folder, or of the file.
        overwrite: whether an earlier conversion there is replaced. A folder must hold
            nothing else.

    Returns:
        `Conversion`.

    Raises:
        ValueError: as `load` does, or if `to` exists already or has an unsuitable name. Nothing is
            written then.

    Example:

    ```python
    from libra_keras.convert import convert
    detector = convert("libra_faster_rcnn_r50_fpn_1x_coco.pth", "runs/libra_r50").model
    print(detector.detect("street.jpg")["names"])
    ```
    """
    check_free(Path(to), overwrite)
    conversion = load(source, **options)
    if conversion.record["kind"] == "backbone":
        write_backbone(conversion.model, conversion.record, Path(to))
    else:
        write_detector(conversion.model, conversion.record, Path(to))
    return conversion


def load(
    source: str | os.PathLike[str] | Checkpoint,
    class_names: Sequence[str] | None = None,
    era: str | None = None,
    backbone_style: str | None = None,
    epsilon: float | None = None,
) -> Conversion:
    """Converts a checkpoint in memory.

    What can be converted: of mmdetection, all eras, Faster R-CNN (FPN, PAFPN, Libra), Fast R-CNN,
    RetinaNet (plain and Libra) and region proposal networks with ResNets and ResNeXts; of
    torchvision `fasterrcnn_resnet50_fpn` and `retinanet_resnet50_fpn`; ResNets and ResNeXts on
    their own, of torchvision, timm and detectron2 (also those in its detectors); and the ResNets of
    keras.applications. Nothing in a file is executed.

    Args:
        source: path of a `.pth`, `.pt`, `.safetensors`, `.pkl` or `.h5` file, or a `Checkpoint`.
        class_names: the classes without background. Defaults to those in the
            file, or those of COCO if there are 80 (of VOC: 20).
        era: `"1.x"` or `"2.x"`, of mmdetection; `None` detects it where the file shows it.
        backbone_style: `"pytorch"` or `"caffe"`, see `ResNet`; by default what the file states, or
            `"pytorch"`.
        epsilon: of batch normalisation. Defaults to 1e-5, or 0 for the detectors that
            torchvision has published.

    Returns:
        `Conversion`.

    Raises:
        ValueError: if the file is not a checkpoint, has an unsupported architecture, or has
            missing, surplus or misshaped tensors (all are listed), or if an option does not apply
            to such a file.

    Example:

    >>> from pathlib import Path
    >>> from libra_keras.convert import Checkpoint, load
    >>> load(Checkpoint(Path("other.pth"), {"blocks.0.attn.w": None}, {}, ""))
    Traceback (most recent call last):
    ValueError: other.pth cannot be converted: it is neither a detector from mmdetection or \
torchvision nor a ResNet, but a transformer of images such as ViT or Swin; its tensors are \
called blocks.0.attn.w
    """
    options = {
        "class_names": class_names,
        "era": era,
        "backbone_style": backbone_style,
        "epsilon": epsilon,
    }
    if not isinstance(source, Checkpoint) and Path(source).suffix == ".h5":
        _check_options("keras.applications", options)
        backbone, canonical = from_keras_applications(source)
        return _backbone_conversion(backbone, canonical, Path(source), file_hash(source))
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    try:
        canonical = _canonical(checkpoint, options)
        canonical.notes += _note_of_hash(checkpoint)
        if is_backbone(canonical.tensors):
            backbone = build_backbone(canonical)
            backbone.build((None, None, None, 3))
            place(backbone_variables(backbone), canonical)
            return _backbone_conversion(backbone, canonical, checkpoint.path, checkpoint.sha256)
        model = build_detector(canonical)
        if class_names is not None and isinstance(model, RegionProposalNetwork):
            raise ValueError("it proposes regions and knows no classes; omit the class names")
        place(named_variables(model), canonical)
    except ValueError as error:
        raise ValueError(f"{checkpoint.path} cannot be converted: {error}") from error
    return Conversion(model, _detector_record(model, canonical, checkpoint))


def _check_options(kind, options):
    for name, value in options.items():
        if value is not None and name not in _OPTIONS[kind]:
            name = name.replace("_", " ")
            raise ValueError(f"the {name} cannot be chosen for a file of {kind}; omit that option")


def _canonical(checkpoint, options):
    tensors, class_names, epsilon = checkpoint.tensors, options["class_names"], options["epsilon"]
    if is_torchvision(tensors):
        _check_options("torchvision", options)
        canonical = from_torchvision(checkpoint, class_names, epsilon)
    elif is_mmdetection(tensors):
        canonical = from_mmdetection(checkpoint, options["era"], options["backbone_style"])
    elif is_backbone(tensors):
        _check_options("a backbone", options)
        canonical = from_torch_backbone(checkpoint, options["backbone_style"])
    elif is_detectron2(tensors):
        _check_options("a backbone", options)
        canonical = from_detectron2(checkpoint, options["backbone_style"])
        if not is_backbone(canonical.tensors):
            raise ValueError(
                "it is from detectron2, but has no ResNet, and nothing else in it can be read"
            )
    else:
        what = origin(tensors)
        raise ValueError(
            "it is neither a detector from mmdetection or torchvision nor a ResNet"
            f"{f', but {what}' if what else ''}; its tensors are called "
            f"{', '.join(list(tensors)[:3])}"
        )
    if epsilon is not None:
        canonical.epsilon = epsilon
    if class_names is not None:
        canonical.class_names = list(class_names)
    return canonical


def _note_of_hash(checkpoint):
    """Published files end in the first digits of their own hash."""
    digits = re.search(r"-([0-9a-f]{8})\.pth$", checkpoint.path.name)
    if digits is None or checkpoint.sha256.startswith(digits[1]):
        return []
    return [
        f"The file's name ends in the hash {digits[1]}, but its hash is {checkpoint.sha256[:8]}: "
        "it was changed, or is a different file."
    ]


def _detector_record(model, canonical, checkpoint):
    return {
        **_record("detector", model, canonical, checkpoint.path, checkpoint.sha256),
        "model": model_name(model),
        "class_names": model.class_names,
        "preprocessing": {
            "input_policy": model.input_policy.get_config(),
            "normalization": _plain(model.normalization.get_config()),
            "geometry": canonical.geometry,
        },
    }


def _plain(config):
    return {key: config[key] for key in ("mean", "std", "channel_order")}


def _record(kind, model, canonical, path, sha256):
    return {
        "source": path.name,
        "sha256": sha256,
        "taken_for": canonical.source,
        "kind": kind,
        "parameters": model.count_params(),
        "unused": canonical.unused,
        "notes": canonical.notes,
        "libra_keras": libra_keras.__version__,
    }


def _backbone_conversion(backbone, canonical, path, sha256):
    images = keras.Input((None, None, 3))
    model = keras.Model(images, backbone(images))
    record = {
        **_record("backbone", model, canonical, path, sha256),
        "network": network_name(backbone),
        "style": backbone.style,
        "normalization": "torch" if backbone.style == "pytorch" else "caffe",
        "epsilon": backbone.epsilon,
    }
    return Conversion(model, record)


def network_name(backbone):
    """Returns the name of a backbone in those of our detectors, or `None` if it has none."""
    if backbone.width != 64:
        return None
    for name, sizes in NETWORKS.items():
        plain = {"groups": 1, **sizes}
        if all(getattr(backbone, key) == value for key, value in plain.items()):
            return name
    return None


def model_name(model):
    """Returns the name of the ready-made detector that a converted one is, or `None`."""
    kinds = {
        FasterRCNN: "faster_rcnn",
        FastRCNN: "fast_rcnn",
        RetinaNet: "retinanet",
        RegionProposalNetwork: "rpn",
    }
    libra = "libra_" if len(model.neck) > 1 else ""
    neck = "_pafpn" if isinstance(model.neck[0], PathAggregationPyramid) else ""
    name = f"{libra}{kinds[type(model)]}{neck}_{network_name(model.backbone)}"
    return name if models.list(name) else None


def origin(names):
    """Returns what names of tensors look like, or `None`."""
    for pattern, description in ORIGINS:
        if any(re.match(pattern, name) for name in names):
            return description
    return None


def check_free(to, overwrite):
    """Raises unless a conversion may be written to a path."""
    if not to.name.endswith(OF_BACKBONE):
        check_replaceable(to, DETECTOR, overwrite)
        return
    record = _record_beside(to)
    # Its record takes the name of a JSON file, which may be somebody's.
    check_replaceable_files([record], "record of a conversion", _is_record, overwrite)
    # Without one they are those of a run, for example.
    what = f"conversion (no {record.name})"
    check_replaceable_files([to], what, lambda _: record.exists(), overwrite)


def _record_beside(file):
    return file.with_name(file.name.removesuffix(OF_BACKBONE) + ".json")


def _is_record(file):
    try:
        return read_object(file).get("kind") == "backbone"
    except (ValueError, OSError):
        return False


def write_detector(model, record, folder):
    """Writes a folder that is used like that of a run, completely or not at all."""
    write_folder(model, folder, {RECORD: record})


def write_backbone(model, record, file):
    """Writes the weights of a backbone, and the record beside them."""
    if not file.name.endswith(OF_BACKBONE) or file.is_dir():
        what = f" ({record['taken_for']})" if "taken_for" in record else ""
        raise ValueError(
            f"a backbone{what} must be written to a file NAME.weights.h5. Received: {file}"
        )
    record_file = _record_beside(file)
    # Weights whose record is missing are an error later; beside the record of others they are not.
    record_file.unlink(missing_ok=True)
    atomic.save_weights(model, file)
    atomic.write_json(record_file, record)


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Returns the record in the folder of a converted detector, or `None` if there is none.

    Example:

    >>> import tempfile
    >>> from libra_keras.convert import read_record
    >>> print(read_record(tempfile.mkdtemp()))
    None
    """
    file = Path(folder) / RECORD
    return read_object(file) if file.exists() else None
