"""What a row of `serving_speed.py` finds: its AP, and what it loses to the first row's."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from serving_runtimes import FIXED, drawn, load, sides

RESAMPLES = 1000
INPUTS = ("images", "image_sizes")
NOTE = "described.json"  # beside the exports: what the detector is


def calibration(options, model):
    """The images that an export in int8 is calibrated with."""
    return _read(options, options.calibrate_split, "train") if options.data else drawn(model)


def measuring(options):
    """The images that AP is measured on."""
    own = _read(options, options.split, "val")
    count = min(options.num_images or len(own), len(own))
    return own.subset(np.linspace(0, len(own) - 1, count).astype(int))  # from all parts of it


def _check_apart(own, others):
    """Raises if images that AP is measured on calibrate int8."""
    shared = {str(each.file) for each in own.examples} & {
        str(each.file) for each in others.examples
    }
    if shared:
        raise ValueError(
            f"{len(shared)} images would calibrate int8 and measure it too, such as "
            f"{min(shared)}: name two splits, with --calibrate-split and --split"
        )


def _read(options, split, role):
    from libra_keras.runs import DataConfig, inputs

    given = {
        name.removeprefix("data."): value
        for name, value in vars(options).items()
        if name.startswith("data.")
    }
    return inputs.load(DataConfig(options.data, **given), split, role)


def describe(model, options):
    """What must be known of a detector, and of the images to measure on, before it is exported.

    Raises:
        ValueError: if images would both calibrate and measure.
    """
    policy = model.input_policy
    padded = "x".join(map(str, policy.bucket_size(1, 2)))  # of a landscape
    told = {
        "detector": _name(options) or model.name,
        "input_policy": policy.get_config(),
        "class_names": model.class_names,
        "weights": sum(4 * int(np.prod(variable.shape)) for variable in model.weights),
        "padded": padded,
        "size": options.size or padded,
    }
    if options.data:
        own, others = measuring(options), calibration(options, model)
        _check_apart(own, others)
        told |= {"data": own.name, "images": len(own), "calibrated_on": others.name}
    return told


def _name(options):
    """What the detector is called among `libra_keras.models`; `None` if that is not known."""
    from libra_keras import runs

    if not options.run:
        return options.model
    config = runs.open(options.run).config
    return config and config.model.name


def measure(row, options):
    """AP of a row by the images that it is measured on, with the AP of resampled ones: `"all"`, and
    those that are `"fitting"` into a fixed shape."""
    from libra_keras.data import InputPolicy

    told = json.loads(Path(options.files, NOTE).read_text())
    data, policy = measuring(options), InputPolicy(**told["input_policy"])
    shape = sides(options.size)
    fitting = [i for i, each in enumerate(data.examples) if _fits(each, policy, shape)]
    run, names = load(row, options), told["class_names"]
    parts = {} if row.shape == FIXED else {"all": range(len(data))}
    if len(fitting) < len(data) or not parts:
        parts["fitting"] = fitting
    if not all(map(len, parts.values())):
        raise ValueError(f"none of the {len(data)} images fits into {options.size}")
    padded = shape if row.shape == FIXED else None
    found = _found(run, data.subset(parts.get("all", fitting)), policy, padded, names)
    found = {image["image_id"]: image for image in found}
    return {name: _measured(data.subset(part), found) for name, part in parts.items()}


def _fits(example, policy, shape):
    size = policy.fitted_size(example.height, example.width)
    return all(side <= most for side, most in zip(size, shape, strict=True))


def _found(run, data, policy, shape, names):
    """What a runtime finds in the images of some data, with the labels of these."""
    from libra_keras import evaluation
    from libra_keras.data import evaluation_batches
    from libra_keras.evaluation.class_matching import relabelled

    def predict(x):
        x = {name: x[name] for name in INPUTS}
        return run(x if shape is None else {**x, "images": _padded(x, shape)})

    batches = evaluation_batches(data, policy, 1)
    stand_in = SimpleNamespace(predict_on_batch=predict)
    found = evaluation.collect_detections(stand_in, batches, verbose=0)
    return relabelled(found, names, data)


def _padded(x, shape):
    height, width = x["image_sizes"][0]
    padded = np.zeros((1, *shape, 3), "uint8")
    padded[:, :height, :width] = x["images"][:, :height, :width]
    return padded


def _measured(data, found):
    from libra_keras.evaluation import ap_by_size, coco_numbers, detections_to_coco, overlaps

    sys.path.append(str(Path(__file__).parents[1] / "ablations"))
    from intervals import resampled_ap, resampled_images

    own = [found[example.image_id] for example in data.examples]
    given = overlaps(data, detections_to_coco(own, data.category_ids))
    counts = resampled_images(len(data), RESAMPLES)  # the same for every row
    return {
        "images": len(data),
        "AP": coco_numbers(given, ap_by_size(given))["AP"],
        "resampled": resampled_ap(given, counts)[:, 0].tolist(),
    }


def compared(own, first):
    """AP of a row on the images that it takes, and what it loses to the first row on the same ones,
    with the interval that holds 95 % of the losses on resampled images; `first` may be `None`."""
    part, mine = next(iter(own.items()))
    told = {"images": mine["images"], "AP": mine["AP"]}
    other = first and (first.get(part) or next(iter(first.values())))
    if not other or other["images"] != mine["images"]:  # the first row is of a fixed shape
        return told
    losses = np.subtract(other["resampled"], mine["resampled"])
    interval = np.nanquantile(losses, [0.025, 0.975]).tolist()
    return {**told, "lost": other["AP"] - mine["AP"], "interval": interval}
