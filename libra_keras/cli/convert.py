"""Convert a published checkpoint to a detector, or to a backbone for training."""

from libra_keras.cli.options import add_number
from libra_keras.files.reading import explained, read_json, read_text
from libra_keras.ranges import SHARE

EXAMPLES = """examples:
  libra-keras convert libra_faster_rcnn_r50_fpn_1x_coco.pth --to runs/libra_r50
  libra-keras predict runs/libra_r50 street.jpg --to found
      a detector from mmdetection, and its boxes on a photo
  libra-keras convert fasterrcnn_resnet50_fpn_coco.pth --to runs/torchvision_r50
  libra-keras train my_photos --init runs/torchvision_r50 --to runs/mine
      a detector from torchvision, fine-tuned for other classes
  libra-keras convert epoch_12.pth --to runs/pets --class-names cat,dog
      your own checkpoint, if the file does not name its classes
  libra-keras convert resnet50.pth --to resnet50.weights.h5
  libra-keras train my_photos --model libra_faster_rcnn_resnet50 \\
      --backbone-weights resnet50.weights.h5
      a backbone from torchvision, timm or keras.applications
"""


def add_arguments(parser) -> None:
    """Adds the options of the verb."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="a checkpoint: .pth, .pt or .safetensors; .pkl from detectron2; .h5 from "
        "keras.applications",
    )
    parser.add_argument(
        "--to",
        metavar="FOLDER",
        required=True,
        help="folder for the detector, or NAME.weights.h5 for a backbone",
    )
    parser.add_argument(
        "--class-names",
        metavar="NAMES",
        help="the classes in order, without background: cat,dog, or a .txt file with one per "
        "line, or a .json file with a list or in COCO format; default: those in the checkpoint, or "
        "those of COCO or VOC if their number matches",
    )
    parser.add_argument(
        "--era",
        choices=("1.x", "2.x"),
        help="version of mmdetection (for 3.x: 2.x); default: inferred from the file",
    )
    parser.add_argument(
        "--backbone-style",
        choices=("pytorch", "caffe"),
        help="where a block of the backbone has its stride; default: inferred from the file",
    )
    add_number(parser, "--batch-norm-epsilon", SHARE, "default: that of the source", metavar="X")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier conversion")


def run(options) -> int:
    """Converts the checkpoint and returns the exit status."""
    names = None if options.class_names is None else read_names(options.class_names)

    from libra_keras.convert import convert

    conversion = convert(
        options.file,
        options.to,
        overwrite=options.overwrite,
        class_names=names,
        era=options.era,
        backbone_style=options.backbone_style,
        epsilon=options.batch_norm_epsilon,
    )
    print(conversion.summary())
    print("\n".join([f"Written to {options.to}. Next:", *next_commands(conversion, options.to)]))
    return 0


def read_names(source: str) -> list[str]:
    """Reads class names: separated by commas, or from a `.txt` file with one per line, or from a
    `.json` file with a list or with COCO's categories, which are sorted by id."""
    if source.endswith((".json", ".txt")):
        with explained(source):
            is_json = source.endswith(".json")
            names = _names_of(read_json(source)) if is_json else _split(read_text(source))
    else:
        names = _split(source.replace(",", "\n"))
    if not names:
        raise ValueError(f"--class-names must name at least one class. Received: {source!r}")
    return names


def _split(lines):
    return [name.strip() for name in lines.splitlines() if name.strip()]


def _names_of(content):
    if isinstance(content, dict):
        try:
            categories = sorted(content["categories"], key=lambda entry: entry["id"])
            content = [entry["name"] for entry in categories]
        except (KeyError, TypeError):
            content = None
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ValueError("it must be a list of names, or contain COCO's categories")
    return content


def next_commands(conversion, to: str) -> list[str]:
    """Returns the commands to suggest after a `Conversion` was written to a path."""
    from libra_keras.models import FastRCNN, RegionProposalNetwork

    if conversion.record["kind"] == "backbone":
        model = _trainable(conversion.record["network"])
        own = f"--backbone-weights {to}"
        return [f"  libra-keras train DATA --model {model} {own}"] if model else []
    lines = [
        f"  libra-keras predict {to} photo.jpg --to found",
        f"  libra-keras evaluate {to} DATA",
        f"  libra-keras train DATA --init {to}",
    ]
    if isinstance(conversion.model, FastRCNN):
        return [
            f"{lines[1]} --proposals-file FILE",
            f"{lines[2]} --proposals-file FILE --val-proposals-file FILE",
        ]
    if isinstance(conversion.model, RegionProposalNetwork):
        lines[0] = f"  libra-keras propose {to} DATA --split train --to proposals.npz"
    return lines


def _trainable(network):
    """The name of a ready-made detector with a network, or `None`."""
    from libra_keras import models

    names = models.list(f"libra_faster_rcnn_{network}") or models.list(f"*_{network}")
    return names[0] if network and names else None
