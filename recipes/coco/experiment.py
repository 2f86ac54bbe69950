"""What the experiments of this folder share: options, data, devices, and the run itself."""

import argparse
import contextlib
import dataclasses

import keras

from libra_keras import data, training
from libra_keras.backbones import ResNet
from libra_keras.cli import precision, resuming
from libra_keras.cli.fitting import fit_and_report
from libra_keras.layers import ImageNormalization
from libra_keras.models.constructors.converted import (
    converted_backbone,
    is_converted,
    load_backbone,
)

REFERENCE_BATCH = 16  # images in a step of the schedules


@dataclasses.dataclass(frozen=True)
class Schedule:
    """SGD with momentum 0.9 and coupled weight decay 1e-4, warm-up, and drops to a tenth.

    Attributes:
        epochs: passes over train2017.
        drops: epochs after which the learning rate is divided by 10.
        learning_rate: for 16 images a step; scaled in proportion to `--batch`.
        warmup_steps: steps of the linear warm-up from a thousandth of the rate.
    """

    epochs: int
    drops: tuple
    learning_rate: float
    warmup_steps: int = 500

    def optimizer(self, batch, steps_per_epoch):
        """Returns the optimizer for `batch` images a step."""
        rate = training.WarmupMultiStep(
            self.learning_rate * batch / REFERENCE_BATCH,
            warmup_steps=self.warmup_steps,
            warmup_factor=0.001,
            drops=tuple(epoch * steps_per_epoch for epoch in self.drops),
        )
        return training.SGD(rate, momentum=0.9, weight_decay=1e-4)


def imagenet_resnet(depth, weights="imagenet"):
    """Returns a ResNet with ImageNet weights and the normalisation of images that they want.

    Args:
        depth: 50 or 101.
        weights: `"imagenet"` (Keras downloads it), the path of a file with those weights or of one
            that `libra-keras convert` has written, or `None`, with which everything trains.
    """
    if is_converted(weights):
        return converted_backbone(weights, f"resnet{depth}", **_start(weights))
    return {
        "backbone": ResNet(depth, style="caffe", weights=weights, **_start(weights)),
        "normalization": ImageNormalization.caffe_style(),
    }


def resnext(depth, groups, base_width, weights):
    """Returns a ResNeXt and the normalisation of images that torch's weights want.

    Args:
        depth, groups, base_width: of `ResNet`.
        weights: path of a file that `libra-keras convert` has written, or of a `.weights.h5` of
            `keras.Model(images, backbone(images))`; or `None`, with which everything trains.

    Raises:
        ValueError: if `weights` is `"imagenet"`: Keras has none.
    """
    if weights == "imagenet":
        raise ValueError(
            "Keras offers no ImageNet weights of a ResNeXt. Name a file with --backbone-weights, "
            "or start from nothing with --backbone-weights none"
        )
    if is_converted(weights):
        return converted_backbone(
            weights, f"resnext{depth}_{groups}x{base_width}d", **_start(weights)
        )
    backbone = ResNet(depth, groups=groups, base_width=base_width, **_start(weights))
    if weights:
        load_backbone(backbone, weights)
    return {"backbone": backbone, "normalization": ImageNormalization.torch_style()}


def _start(weights):
    """What trains of a backbone: random features must not be frozen."""
    if weights:
        return {"frozen_stages": 1}
    return {"frozen_stages": -1, "batch_norm": "synchronized"}


def main(build, trunk, schedule, description):
    """Runs an experiment from the command line.

    Args:
        build: function of the number of classes and keyword arguments of the model.
        trunk: function of the option `--backbone-weights` that returns the backbone, and how
            images are normalised, as arguments for `build`.
        schedule: `Schedule`.
        description: str, the text of `--help`.

    Returns:
        The exit status.
    """
    options = _options(description, schedule)
    train_data = data.coco(options.coco, options.train_split, skip_bad=options.skip_bad)
    val_data = data.coco(options.coco, options.val_split, skip_bad=options.skip_bad)
    weights = None if options.backbone_weights == "none" else options.backbone_weights
    with _devices().scope(), precision.built_with(options.precision):
        model = build(train_data.num_classes, class_names=train_data.class_names, **trunk(weights))
        return train(model, schedule, train_data, val_data, options)


def train(model, schedule, train_data, val_data, options):
    """Trains a model by a schedule and writes a run folder; returns the exit status.

    A run that was killed goes on when the same command is given again.

    Args:
        model: detector.
        schedule: `Schedule`.
        train_data, val_data: `DetectionData`.
        options: namespace of `batch`, `steps`, `epochs`, `eval_every`, `seed`, `to` and
            `overwrite`.
    """
    with resuming.opened(options) as place:
        batches = data.training_batches(
            train_data,
            model.input_policy,
            options.batch,
            seed=options.seed,
            drop_empty=True,
            start_step=place.batches,
        )
        whole = batches.source.steps_per_epoch
        steps = min(whole, options.steps or whole)
        model.compile(schedule.optimizer(options.batch, steps))
        record = {"settings": resuming.settings(options), "steps_per_epoch": steps}
        folder = place.prepare({**record, "schedule": dataclasses.asdict(schedule)}, model)
        return fit_and_report(
            model, batches, val_data, folder, steps, options.epochs, options.eval_every
        )


def _options(description, schedule):
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("coco", help="folder with annotations/, train2017/ and val2017/")
    parser.add_argument("--to", required=True, help="run folder to write, or to go on with")
    parser.add_argument("--overwrite", action="store_true", help="begin anew in that folder")
    parser.add_argument("--batch", type=int, default=REFERENCE_BATCH, help="over all devices")
    parser.add_argument("--backbone-weights", default="imagenet", metavar="PATH|imagenet|none")
    parser.add_argument("--train-split", default="train2017")
    parser.add_argument("--val-split", default="val2017")
    parser.add_argument("--steps", type=int, help="at most so many steps per epoch")
    parser.add_argument("--epochs", type=int, default=schedule.epochs)
    parser.add_argument("--eval-every", type=int, default=1, metavar="EPOCHS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-bad", action="store_true", help="drop and count bad boxes, files")
    precision.add_arguments(parser)
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    return options


def _devices():
    """All GPUs of this machine, under TensorFlow; elsewhere the one device that there is."""
    if keras.backend.backend() != "tensorflow":
        return argparse.Namespace(scope=contextlib.nullcontext)
    import tensorflow as tf

    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()
