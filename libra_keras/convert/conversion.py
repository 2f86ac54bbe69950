"""From a checkpoint file to a detector or a backbone of ours, and to files that keep it."""

import dataclasses
import re
from pathlib import Path

import keras

import libra_keras
from libra_keras.convert.architecture import build_backbone, build_detector
from libra_keras.convert.backbones import from_keras_applications, from_torch_backbone, is_backbone
from libra_keras.convert.checkpoint import Checkpoint, file_hash, read_checkpoint
from libra_keras.convert.detectron2 import from_detectron2, is_detectron2
from libra_keras.convert.mmdetection import from_mmdetection, is_mmdetection
from libra_keras.convert.origins import origin
from libra_keras.convert.output_files import check_free, write_backbone, write_detector
from libra_keras.convert.placement import backbone_variables, named_variables, place
from libra_keras.convert.ready_made import model_name, network_name
from libra_keras.convert.torchvision import from_torchvision, is_torchvision
from libra_keras.models import RegionProposalNetwork

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
        record: dict that JSON can hold: `"source"`, the file's name; `"sha256"`; `"taken_for"`,
            what wrote it; `"kind"`, `"detector"` or `"backbone"`; `"model"` or `"network"`, the
            name of the ready-made one that it is, or `None`; `"class_names"`; `"preprocessing"`;
            `"parameters"`; `"unused"`, a dict from tensors that were not needed to the reason;
            `"notes"`; and `"libra_keras"`, the version that converted.

    Example:

    >>> from libra_keras.convert import Conversion
    >>> [field for field in Conversion.__dataclass_fields__]
    ['model', 'record']
    """

    model: keras.Model
    record: dict

    def summary(self):
        """Returns a few lines for people: what was converted, and what was left out."""
        record = self.record
        what = record.get("model") or record.get("network") or type(self.model).__name__
        lines = [f"{record['source']}: {what} of {record['taken_for']}"]
        lines.append(f"  {record['parameters']:,} parameters, sha256 {record['sha256'][:16]}...")
        names = record.get("class_names")
        if names:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            lines.append(f"  {len(names)} classes: {shown}")
        reasons = {}
        for name, why in record["unused"].items():
            reasons.setdefault(why, []).append(name)
        for why, left in reasons.items():
            lines.append(f"  not needed: {len(left)} tensor(s) like {left[0]}: {why}")
        return "\n".join([*lines, *(f"  {note}" for note in record["notes"])])


def convert(source, to, overwrite=False, **options):
    """Converts a checkpoint and writes what `predict`, `evaluate`, `export` and `train` read.

    A detector becomes a folder with `model.json`, `last.weights.h5` and `conversion.json`; it is
    used like the folder of a training run. A backbone becomes a file whose name ends in
    `.weights.h5`, and a `.json` beside it.

    Args:
        source, **options: as of `load`.
        to: path of the folder, or of the file.
        overwrite: bool, whether an earlier conversion there is replaced. A folder must hold
            nothing else.

    Returns:
        `Conversion`.

    Raises:
        ValueError: as `load` does, or if there is something at `to` already, or the name does not
            suit. Nothing is written then.
        ImportError: if PyTorch or safetensors is needed and not installed.

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


def load(source, class_names=None, era=None, backbone_style=None, epsilon=None):
    """Converts a checkpoint in memory.

    What can be converted: of mmdetection, all eras, Faster R-CNN (FPN, PAFPN, Libra), Fast R-CNN,
    RetinaNet (plain and Libra) and region proposal networks with ResNets and ResNeXts; of
    torchvision `fasterrcnn_resnet50_fpn` and `retinanet_resnet50_fpn`; ResNets and ResNeXts alone,
    of torchvision, timm and detectron2 (also out of its detectors); and the ResNets of
    keras.applications. Nothing in a file is executed.

    Args:
        source: path of a `.pth`, `.pt`, `.safetensors`, `.pkl` or `.h5` file, or a `Checkpoint`.
        class_names: list of strings, the classes without background. Defaults to those in the
            file, or those of COCO if there are 80 (of VOC: 20).
        era: `"1.x"` or `"2.x"`, of mmdetection; `None` finds it out where the file shows it.
        backbone_style: `"pytorch"` or `"caffe"`, as of `ResNet`; by default what the file says, or
            `"pytorch"`.
        epsilon: float, of batch normalisation. Defaults to 1e-5, or 0 for the detectors that
            torchvision has published.

    Returns:
        `Conversion`.

    Raises:
        ValueError: if the file is no checkpoint, is of another architecture, or a tensor is
            missing, surplus or misshaped; they are all listed; or if an option does not apply to
            such a file.
        ImportError: if PyTorch or safetensors is needed and not installed.

    Example:

    >>> from pathlib import Path
    >>> from libra_keras.convert import load
    >>> from libra_keras.convert.checkpoint import Checkpoint
    >>> load(Checkpoint(Path("other.pth"), {"blocks.0.attn.w": None}, {}, ""))
    Traceback (most recent call last):
    ValueError: other.pth cannot be converted: it is no detector of mmdetection or torchvision and \
no ResNet, but a transformer of images such as ViT or Swin; its tensors are called blocks.0.attn.w
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
            raise ValueError("it proposes regions and knows no classes; leave the class names away")
        place(named_variables(model), canonical)
    except ValueError as error:
        raise ValueError(f"{checkpoint.path} cannot be converted: {error}") from error
    return Conversion(model, _detector_record(model, canonical, checkpoint))


def _check_options(kind, options):
    for name, value in options.items():
        if value is not None and name not in _OPTIONS[kind]:
            name = name.replace("_", " ")
            raise ValueError(
                f"the {name} cannot be chosen for a file of {kind}; leave that option away"
            )


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
            raise ValueError("it is of detectron2, of which ResNets are read, and holds none")
    else:
        what = origin(tensors)
        raise ValueError(
            "it is no detector of mmdetection or torchvision and no ResNet"
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
        "it was changed, or is another file."
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
