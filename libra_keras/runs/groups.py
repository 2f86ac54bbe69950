"""The groups of a run's config except its data: detector, schedule, optimizer, devices, the run.

Each field is also an option of `libra-keras train`. `None` means not set.
"""

import dataclasses
import math

from libra_keras.ranges import Range, whole
from libra_keras.runs.fields import Checked, option
from libra_keras.runs.precision import CHOICES

SCHEDULES = {"1x": (12, "8/12,11/12"), "2x": (24, "16/24,22/24")}  # epochs, and drops in them
# Ranges of numbers. Upper limits are far beyond what anybody trains with: they catch a typo before
# it fills the memory or runs forever.
SIDE = whole(1, math.isqrt(178_956_970))  # pixels: of the largest square that Pillow decodes
IMAGES = whole(1, 2**16)  # of a batch
BOXES = whole(1, 10**6)  # of an image
STEPS = whole(0, 10**9)
TILE = whole(16)  # pixels of a side
SHARE_BELOW_ALL = Range(0, 1, "[)")
FACTOR, POSITIVE_FACTOR = Range(0, 1e6), Range(0, 1e6, "(]")


def names(text: str) -> tuple[str, ...]:
    """Parses names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def sides(text: str) -> tuple[int, ...]:
    """Parses image sides separated by commas."""
    return tuple(int(SIDE.read(side)) for side in names(text))


@dataclasses.dataclass(frozen=True)
class ModelConfig(Checked):
    """Which detector a run trains, and what it starts from.

    Fields are options of `libra-keras train`, whose `--help` explains them, under the same names;
    `name`, `bins` and `upper` are `--model`, `--negative-bins` and `--negative-upper` there.

    Example:

    >>> from libra_keras.runs import ModelConfig
    >>> ModelConfig("libra_faster_rcnn_resnet50", freeze=("backbone",)).init is None
    True
    """

    name: str | None = option(
        None,
        "a name that libra-keras models lists; default: libra_faster_rcnn_small",
        name="model",
        metavar="NAME",
    )
    init: str | None = option(
        None,
        "start from this detector instead: a run folder, a converted folder, a .keras file or a "
        "name that libra-keras models --pretrained lists; layers that depend on the classes are "
        "re-initialised if the classes differ",
        metavar="RUN",
    )
    backbone_weights: str | None = option(
        None,
        "weights of a ResNet of keras.applications, or a backbone written by libra-keras convert; "
        "default: imagenet for ResNets, none for ResNeXts and small models",
        metavar="PATH|imagenet|none",
    )
    backbone_style: str | None = option(
        None,
        "where a block has its stride; default: caffe with weights, pytorch without",
        choices=("pytorch", "caffe"),
    )
    train_affine: bool | None = option(
        None, "train the scales and offsets of batch normalisation (default: yes)"
    )
    frozen_stages: int | None = option(
        None,
        "-1: none, 0: the stem, N: also N stages; default: 1 with weights, -1 without",
        metavar="N",
        within=whole(-1, 4),
    )
    sampling_ratio: int | None = option(
        None,
        "RoIAlign's samples per bin and axis; 0: one per cell, as in mmdetection; for rcnn models "
        "of the resnet family; default: 2",
        metavar="N",
        within=whole(0, 64),
    )
    short_side: int | None = option(
        None,
        "what an image's short side is resized to; default: {}, or that of --init",
        metavar="PIXELS",
        within=SIDE,
    )
    long_side: int | None = option(
        None,
        "unless its long side would exceed this; default: {}, or that of --init",
        metavar="PIXELS",
        within=SIDE,
    )
    precision: str | None = option(
        None,
        "what layers compute with; weights, boxes, the attention's softmax and losses are always "
        "float32. CPUs are much slower with mixed_float16, and gain from mixed_bfloat16 if they "
        "have AMX; {cpu}. auto: mixed_bfloat16 on TPUs, on NVIDIA GPUs since Ampere, and with "
        "TensorFlow on CPUs with AMX, else float32; a run that continues keeps its own. Default: "
        "float32, or that of --init",
        choices=CHOICES,
    )
    positives: str | None = option(
        None,
        "how the second stage draws its positives: at random, or evenly over the objects",
        choices=("random", "balanced"),
        group="parts",
    )
    negatives: str | None = option(
        None,
        "how it draws its negatives: at random, or evenly over bins of IoU, as in mmdetection, the "
        "paper's code, or the paper's text",
        choices=("random", "mmdet", "paper_code", "paper_text"),
        group="parts",
    )
    bins: int | None = option(
        None,
        "bins of IoU; default: 3",
        metavar="K",
        group="parts",
        name="negative_bins",
        within=whole(1, 1000),
    )
    upper: str | float | None = option(
        None,
        "where the last bin ends: all, negatives (their largest IoU), or a number",
        metavar="IOU",
        group="parts",
        name="negative_upper",
        within=Range(0, 1, "(]", words=("all", "negatives")),
    )
    rpn_limit: float | None = option(
        None,
        "maximum negatives per positive that the first stage draws; 0: no limit",
        metavar="N",
        group="parts",
        within=FACTOR,
    )
    neck: str | None = option(
        None,
        "fpn: feature pyramid; pafpn: path aggregation; bfp and balanced_pafpn: these, followed by "
        "a balanced pyramid",
        choices=("fpn", "bfp", "pafpn", "balanced_pafpn"),
        group="parts",
    )
    refiner: str | None = option(
        None,
        "what the balanced pyramid does to the average of its levels; default: embedded_gaussian",
        choices=("none", "conv", "gaussian", "embedded_gaussian"),
        group="parts",
    )
    box_loss: str | None = option(
        None,
        "box loss of the last stage",
        choices=("l1", "smooth_l1", "balanced_l1"),
        group="parts",
    )
    box_alpha: float | None = option(
        None,
        "alpha of balanced_l1; smaller values raise the gradient of small errors; default: 0.5",
        metavar="N",
        group="parts",
        within=POSITIVE_FACTOR,
    )
    box_gamma: float | None = option(
        None,
        "gamma of balanced_l1, the gradient of large errors; default: 1.5",
        metavar="N",
        group="parts",
        within=POSITIVE_FACTOR,
    )
    box_beta: float | None = option(
        None,
        "error from which smooth_l1 and balanced_l1 are linear; default: 1",
        metavar="N",
        group="parts",
        within=FACTOR,
    )
    box_loss_weight: float | None = option(
        None,
        "factor of that loss; default: 1",
        metavar="N",
        group="parts",
        within=FACTOR,
    )
    max_detections: int | None = option(
        None,
        "maximum detections per image; above 100, AP is also measured with all of them, as AP@N; "
        "default: the detector's",
        metavar="N",
        within=BOXES,
    )
    freeze: tuple[str, ...] = option(
        (),
        "parts that do not learn, separated by commas: backbone, neck, and the heads (rpn and "
        "box_head, or head)",
        metavar="PARTS",
        parse=names,
        group="fine-tuning",
    )


@dataclasses.dataclass(frozen=True)
class ScheduleConfig(Checked):
    """How many updates a run makes, how large they are, and when it is measured.

    Fields are options of `libra-keras train`, whose `--help` explains them, under the same names.

    Example:

    >>> from libra_keras.runs import ScheduleConfig
    >>> ScheduleConfig(batch=16, epochs=12).steps is None
    True
    """

    schedule: str | None = option(
        None,
        "12 epochs with drops after 8 and 11, or twice that; instead of --epochs and --drops",
        choices=tuple(SCHEDULES),
    )
    batch: int | None = option(
        None, "images per step, over all devices; default: {}", metavar="N", within=IMAGES
    )
    epochs: int | None = option(None, "default: {}", metavar="N", within=whole(1, 10**6))
    learning_rate: float | None = option(
        None,
        "default: {}, for the default batch, scaled in proportion to the number of images per "
        "update",
        metavar="N",
        within=POSITIVE_FACTOR,
    )
    warmup_steps: int | None = option(None, "default: {}", metavar="N", within=STEPS)
    warmup_factor: float | None = option(None, "default: {}", metavar="N", within=Range(0, 1, "(]"))
    drops: str | None = option(
        None,
        "divide the rate by 10 after these fractions of the run, or 'none'; default: {}",
        metavar="N",
    )
    eval_every: int = option(
        1, "epochs; 0 evaluates at the end only; default: 1", metavar="N", within=STEPS
    )
    early_stop: int = option(
        0,
        "end the run after N evaluations in a row without a better AP or proposal recall; --drops "
        "and --average-last remain fractions of all --epochs. Default: 0, never",
        metavar="N",
        within=STEPS,
    )
    steps: int | None = option(
        None, "maximum steps per epoch", metavar="N", within=whole(1, STEPS.most)
    )
    accumulate: int = option(
        1,
        "steps per update, which takes the mean of their losses; unlike with one large batch, each "
        "loss is divided by the boxes sampled in its own step. Rate, warm-up and drops count "
        "updates; steps at the end that do not fill an update are lost. Default: 1",
        metavar="K",
        within=whole(1, 10**6),
    )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Checked):
    """What turns gradients into updates.

    Fields are options of `libra-keras train`, whose `--help` explains them, under the same names;
    `name` is `--optimizer` there.

    Example:

    >>> from libra_keras.runs import OptimizerConfig
    >>> OptimizerConfig("adamw", weight_decay=0.05).momentum
    0.9
    """

    name: str | None = option(None, "default: {}", name="optimizer", choices=("sgd", "adamw"))
    momentum: float = option(
        0.9, "of SGD, or the first beta of AdamW; default: 0.9", metavar="N", within=SHARE_BELOW_ALL
    )
    weight_decay: float | None = option(None, "default: {}", metavar="N", within=FACTOR)
    clip_norm: float | None = option(
        None,
        "of the global gradient; 0: no clipping; default: {}",
        metavar="N",
        within=FACTOR,
    )
    ema: float = option(
        0.0,
        "average the weights over updates, such as 0.999; the averages are measured and saved. "
        "Default: 0, no averages",
        metavar="MOMENTUM",
        within=SHARE_BELOW_ALL,
    )
    average_last: float = option(
        0.0,
        "instead of --ema, average the weights evenly over this last share of the updates, such as "
        "0.25; the averages are measured and saved. Default: 0, no averages",
        metavar="SHARE",
        within=SHARE_BELOW_ALL,
    )
    backbone_rate: float | None = option(
        None,
        "factor of the learning rate for the backbone, such as 0.1; default: 1",
        metavar="FACTOR",
        group="fine-tuning",
        within=FACTOR,
    )


@dataclasses.dataclass(frozen=True)
class DeviceConfig(Checked):
    """What a run computes on.

    Fields are options of `libra-keras train`, whose `--help` explains them, under the same names;
    `count` is `--devices` there.

    Example:

    >>> from libra_keras.runs import DeviceConfig
    >>> DeviceConfig("all").cluster
    False
    """

    count: int | str | None = option(
        None,
        "train on N GPUs of this machine, or on logical CPUs if there is none; they share every "
        "batch, and the result is that of one device. TensorFlow and JAX. Default: 1",
        name="devices",
        metavar="N|all",
        within=whole(1, 1024, words=("all",)),
    )
    cluster: bool = option(
        False,
        "train on all machines that the environment variable TF_CONFIG names; run the same command "
        "on each. The first one measures and writes. TensorFlow",
    )


@dataclasses.dataclass(frozen=True)
class RunConfig(Checked):
    """Where a run is written, how it is saved, and what it draws at random.

    Fields are options of `libra-keras train`, whose `--help` explains them, under the same names;
    `folder` is `--to` there.

    Example:

    >>> from libra_keras.runs import RunConfig
    >>> RunConfig("runs/mine", seed=3).save_every
    500
    """

    folder: str | None = option(
        None, "default: runs/<model>-<data>-<number>", name="to", metavar="FOLDER"
    )
    overwrite: bool = option(
        False,
        "replace a run in --to; an interrupted run that was started by the same command continues",
    )
    seed: int = option(
        0, "of everything; default: 0", metavar="N", group="schedule", within=whole(0, 2**32 - 1)
    )
    save_every: int = option(
        500,
        "save the run every N steps, to continue if it is killed; 0: at the end of each epoch; "
        "default: 500",
        metavar="N",
        group="interruptions",
        within=STEPS,
    )
    deterministic: bool = option(
        False,
        "make the same command give the same weights bit for bit; may be slower",
        group="interruptions",
    )
