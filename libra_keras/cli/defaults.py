"""What `libra-keras train` does when it is told nothing: every tuned number, in one place."""

import dataclasses
from fractions import Fraction


@dataclasses.dataclass(frozen=True)
class TrainDefaults:
    """Settings of a training run; each is an option of `libra-keras train` of the same name.

    Attributes:
        backbone_weights: `"none"`, `"imagenet"` or a path.
        short_side, long_side: most pixels of an image's shorter and longer side.
        batch: images per step.
        epochs: passes over the training images.
        learning_rate: full rate, for `batch` images; another batch size scales it in proportion.
        optimizer: `"sgd"` or `"adamw"`.
        momentum, weight_decay: of the optimizer; the momentum of AdamW is its `beta_1`.
        warmup_steps, warmup_factor: length and first value of the linear warm-up.
        drops: fractions of the run after which the rate is divided by 10.
        clip_norm: largest global norm of a gradient; 0 does not clip.
        flip: probability that an image is mirrored.
        eval_every: epochs between evaluations; 0 evaluates at the end only.
    """

    backbone_weights: str
    short_side: int
    long_side: int
    batch: int
    epochs: int
    learning_rate: float
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_steps: int = 500
    warmup_factor: float = 0.001
    drops: str = "8/12,11/12"
    clip_norm: float = 0.0
    flip: float = 0.5
    eval_every: int = 1


# Epochs, and after which fractions of them the rate drops.
SCHEDULES = {"1x": (12, "8/12,11/12"), "2x": (24, "16/24,22/24")}

# The main job: a few minutes on two CPU cores.
SMALL = TrainDefaults(
    backbone_weights="none",
    short_side=320,
    long_side=320,
    batch=4,
    epochs=2,
    learning_rate=0.002,
    optimizer="adamw",
    weight_decay=0.01,
    warmup_steps=50,
    warmup_factor=0.01,
    drops="8/12,11/12",
    clip_norm=10.0,
    eval_every=1,
)

# The schedule "1x" of the reference: 0.02 for 16 images, 12 epochs.
RESNET = TrainDefaults(
    backbone_weights="imagenet",
    short_side=800,
    long_side=1333,
    batch=2,
    epochs=12,
    learning_rate=0.0025,
)
RESNEXT = dataclasses.replace(RESNET, backbone_weights="none")  # Keras has no weights of these

# One stage has half the rate: 0.01 for 16 images.
RETINANET = dataclasses.replace(RESNET, learning_rate=0.00125)
RETINANET_RESNEXT = dataclasses.replace(RETINANET, backbone_weights="none")

DEFAULTS = {
    "libra_faster_rcnn_small": SMALL,
    "faster_rcnn_small": SMALL,
    "libra_faster_rcnn_resnet50": RESNET,
    "faster_rcnn_resnet50": RESNET,
    "libra_faster_rcnn_resnet101": RESNET,
    "faster_rcnn_resnet101": RESNET,
    "libra_faster_rcnn_resnext101_32x4d": RESNEXT,
    "faster_rcnn_resnext101_32x4d": RESNEXT,
    "libra_faster_rcnn_resnext101_64x4d": RESNEXT,
    "faster_rcnn_resnext101_64x4d": RESNEXT,
    "libra_faster_rcnn_pafpn_resnet50": RESNET,
    "faster_rcnn_pafpn_resnet50": RESNET,
    "faster_rcnn_ohem_resnet50": RESNET,
    "libra_retinanet_small": SMALL,
    "retinanet_small": SMALL,
    "libra_retinanet_resnet50": RETINANET,
    "retinanet_resnet50": RETINANET,
    "libra_retinanet_resnet101": RETINANET,
    "retinanet_resnet101": RETINANET,
    "retinanet_resnext101_64x4d": RETINANET_RESNEXT,
    "libra_fast_rcnn_small": SMALL,
    "fast_rcnn_small": SMALL,
    "libra_fast_rcnn_resnet50": RESNET,
    "fast_rcnn_resnet50": RESNET,
    "libra_rpn_small": SMALL,
    "rpn_small": SMALL,
    "libra_rpn_resnet50": RESNET,
    "rpn_resnet50": RESNET,
    "rpn_resnet101": RESNET,
    "rpn_resnext101_64x4d": RESNEXT,
}


def drop_fractions(text):
    """Parses `"8/12,11/12"` or `"0.7"`; `"none"` and `""` are no drops.

    Example:

    >>> from libra_keras.cli.defaults import drop_fractions
    >>> [str(fraction) for fraction in drop_fractions("8/12,0.9")]
    ['2/3', '9/10']
    """
    parts = [] if text in ("none", "") else text.split(",")
    try:
        fractions = [Fraction(part.strip()) for part in parts]
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"--drops must be fractions such as 8/12,11/12, not {text!r}") from error
    if not all(0 < fraction < 1 for fraction in fractions):
        raise ValueError(f"--drops are fractions of the run, between 0 and 1, not {text!r}")
    return sorted(fractions)
