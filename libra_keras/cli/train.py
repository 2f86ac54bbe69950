"""Train a detector and write a run folder."""

import argparse
import sys

from libra_keras.cli import caching, devices, fine_tuning, precision, resuming, schedule
from libra_keras.cli.datasets import (
    add_data_arguments,
    add_voc_argument,
    check_voc,
    load_data,
    wants_voc,
)
from libra_keras.cli.defaults import DEFAULTS
from libra_keras.cli.given_proposals import add_given, add_proposal_file
from libra_keras.cli.initial import BROUGHT_ALONG, start_defaults

EXAMPLES = """examples:
  libra-keras train
      the small Libra Faster R-CNN on drawn shapes: a few minutes on a laptop's CPU
  libra-keras train --model faster_rcnn_small
      its plain twin, in the same budget
  libra-keras train my_photos --train-split train --val-split val --to runs/mine \\
      --model libra_faster_rcnn_resnet50
      your COCO or VOC folder, from ImageNet weights
  libra-keras train my_photos --steps 10 --epochs 1 --to runs/trial
      ten steps, to see that everything works
  libra-keras train my_photos --init runs/coco --epochs 4 --to runs/mine
      from a trained or converted detector, whatever its classes
  libra-keras train --model libra_fast_rcnn_small --proposals-file train.npz \\
      --val-proposals-file val.npz
      a second stage on proposals that libra-keras propose has written

A run that was killed, or stopped by Ctrl-C, goes on when the same command is given again.
"""
VAL_PROPOSALS = "--val-proposals-file"
DEFAULT_MODEL = "libra_faster_rcnn_small"


def add_arguments(parser):
    """Adds the options of the verb; what is `None` by default comes from `DEFAULTS`."""
    add_data_arguments(parser, default="shapes")
    parser.add_argument(
        "--train-split",
        help="what to learn from (default: train, or trainval); of shapes, also a number of scenes",
    )
    parser.add_argument(
        "--val-split",
        help="what to measure on (default: val, or test); of shapes, also a number (held out)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="drop and count bad boxes, files")
    caching.add_argument(parser)
    add_voc_argument(parser)
    add_proposal_file(parser, what="the images to learn from")
    add_proposal_file(parser, VAL_PROPOSALS, what="those to measure on")
    parser.add_argument("--to", metavar="FOLDER", help="default: runs/<model>-<data>-<number>")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a run in --to; one that this very command began, and that was interrupted, "
        "goes on",
    )
    _add_model_arguments(parser.add_argument_group("model"))
    schedule.add_arguments(parser.add_argument_group("schedule (defaults: small models | others)"))
    fine_tuning.add_arguments(parser.add_argument_group("fine-tuning"))
    devices.add_arguments(parser.add_argument_group("several devices"))
    resuming.add_arguments(parser.add_argument_group("interruptions"))


def _add_model_arguments(group):
    group.add_argument("--model", choices=list(DEFAULTS), help=f"default: {DEFAULT_MODEL}")
    group.add_argument(
        "--init",
        metavar="RUN",
        help="start from this detector instead: a run folder, a converted folder or a .keras "
        "file; what counts classes starts anew if they are other ones",
    )
    group.add_argument(
        "--backbone-weights",
        metavar="PATH|imagenet|none",
        help="weights of keras.applications' ResNet, or a backbone that libra-keras convert has "
        "written; default: none | imagenet",
    )
    group.add_argument(
        "--backbone-style",
        choices=("pytorch", "caffe"),
        help="where a block has its stride; default: caffe with weights, pytorch without",
    )
    group.add_argument(
        "--train-affine",
        action=argparse.BooleanOptionalAction,
        help="train the scales and offsets of batch normalisation (default: yes)",
    )
    group.add_argument(
        "--frozen-stages",
        type=int,
        metavar="N",
        help="-1 none, 0 the stem, N also N stages; default: 1 with weights, -1 without",
    )
    group.add_argument(
        "--sampling-ratio",
        type=int,
        metavar="N",
        help="RoIAlign's samples per bin and axis; 0: one a cell, as mmdetection; for "
        "rcnn models of the resnet family; default: 2",
    )
    group.add_argument(
        "--short-side", type=int, metavar="PIXELS", help=schedule.default_text("short_side")
    )
    group.add_argument(
        "--long-side", type=int, metavar="PIXELS", help=schedule.default_text("long_side")
    )
    precision.add_arguments(group)


def resolve(options):
    """Fills options that were not given from the defaults of the model's family, in place."""
    if options.init:
        defaults, brought = start_defaults(options), BROUGHT_ALONG
    else:
        options.model = options.model or DEFAULT_MODEL
        defaults, brought = DEFAULTS[options.model], ()
    schedule.resolve(options, defaults, brought)
    fine_tuning.frozen(options)
    if options.save_every < 0:
        raise ValueError("--save-every must be a number of steps, or 0")
    caching.check(options.cache, options.to)
    return options


def run(options):
    """Trains as the options say; returns the exit status."""
    resolve(options)
    if options.deterministic:
        _seed(options)  # JAX reads its flags when it looks for devices
    machine = devices.chosen(options)
    with devices.place_of(options, machine) as place:
        return _train(options, place, machine)


def _train(options, place, machine):
    train, val = _load_both(options)

    from libra_keras.cli.advising import at_start
    from libra_keras.cli.building import build_optimizer
    from libra_keras.cli.fitting import fit_and_report
    from libra_keras.data import training_batches

    _seed(options)
    with machine.scope():
        model, started_from = _build(options, train, machine.batch_norm)
    check_voc(options, model)
    train = add_given(train, options.proposals_file, model)
    val = add_given(val, options.val_proposals_file, model, VAL_PROPOSALS)
    done = machine.agreed(place.batches if place else 0)
    batches = training_batches(
        train,
        model.input_policy,
        options.batch,
        flip=options.flip,
        seed=options.seed,
        start_step=done,
        cache=options.cache,
    )
    caching.tell(batches.source)
    steps = min(batches.source.steps_per_epoch, options.steps or sys.maxsize)
    with machine.scope():
        model.compile(build_optimizer(options, steps))
    batches = machine.share(batches, done)
    if place is None:
        return devices.follow(model, batches, machine, steps, options.epochs, done)
    record = {**_record(options, train, val, model, steps), "started_from": started_from}
    # Only here, where data and model are known to be good, may an earlier run go.
    folder = place.prepare(record, model)
    _announce(options, record, folder)
    return fit_and_report(
        model,
        batches,
        val,
        folder,
        steps,
        options.epochs,
        eval_every=options.eval_every,
        with_voc=wants_voc(options),
        save_every=options.save_every,
        fit=machine.fit,
        at_start=at_start(options, train, model),
    )


def _seed(options):
    import keras

    from libra_keras.training.determinism import make_deterministic

    (make_deterministic if options.deterministic else keras.utils.set_random_seed)(options.seed)


def _build(options, train, batch_norm):
    """The detector, and what the record says about where it started: `None` for nowhere."""
    from libra_keras.cli.building import build_model
    from libra_keras.cli.initial import build_initial
    from libra_keras.models.fine_tuning import freeze

    if options.init:
        model, started_from = build_initial(options, train, batch_norm)
    else:
        with precision.built_with(options.precision):
            model, started_from = build_model(options, train, batch_norm), None
    names = fine_tuning.frozen(options)
    freeze(model, names)
    fine_tuning.check_start(names, started_from, model, options.backbone_weights)
    return model, started_from


def _load_both(options):
    train = load_data(options, options.train_split, "train")
    val = load_data(options, options.val_split, "val")
    if train.class_names != val.class_names:
        raise ValueError(
            f"{train.name} and {val.name} must have the same classes in the same order. "
            f"Received: {train.class_names} and {val.class_names}"
        )
    if not len(val):
        raise ValueError(f"There are no images to measure on: {val.summary()}")
    for part in (train, val):
        print(part.summary())
        for finding in part.findings[:10]:
            print(f"  {finding}")
        if len(part.findings) > 10:
            print(f"  ... {len(part.findings)} in all; libra-keras check-data lists them")
    return train, val


def _record(options, train, val, model, steps):
    """Everything that is needed to understand and repeat the run."""
    return {
        "settings": resuming.settings(options),
        "device": devices.describe(),
        "steps_per_epoch": steps,
        "train": train.summary(),
        "val": val.summary(),
        "class_names": list(train.class_names),
        "input_policy": model.input_policy.get_config(),
        "parameters": model.count_params(),
        "dtype_policy": model.dtype_policy.name,
    }


def _announce(options, record, folder):
    plan = schedule.describe(options, record["steps_per_epoch"])
    what = f"{options.model or options.init} on {record['device']}"
    print(f"{what}: {plan} -> {folder.path}", flush=True)
