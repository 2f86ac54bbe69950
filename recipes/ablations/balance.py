"""Measures in a trained detector what the paper's three balances are about, and how often the
first stage's limit of 5 negatives per positive acts.

    python recipes/ablations/balance.py runs/mine shapes --images 200 --to balance.json
    python recipes/ablations/balance.py runs/fast_rcnn path/to/photos --split test \\
        --proposals proposals.npz

One pass over the images, without flips; every sampler draws from the same candidates, with the
same keys. Samples and positives require a second stage: for a RetinaNet only loss and pyramid are
measured.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from balance_measures import (
    LIMIT,
    OVERLAPS,
    SIZES,
    SLOPES,
    of_first_stage,
    of_loss,
    of_positives,
    of_pyramid,
    of_samples,
)
from balance_observer import observe
from keras import ops

from libra_keras import runs
from libra_keras.evaluation.class_matching import check_classes
from libra_keras.files import atomic
from libra_keras.files.replacing import check_writable_file
from libra_keras.functional.matching import Match
from libra_keras.functional.random_keys import random_keys
from libra_keras.models import FasterRCNN, FastRCNN, RetinaNet
from libra_keras.runs import inputs
from libra_keras.runs.folder import RunFolder
from libra_keras.samplers import (
    CombinedSampler,
    InstanceBalancedSampler,
    IoUBalancedSampler,
    RandomSampler,
)

DRAWS = 4  # of every sampler
RANDOM, INSTANCE = "random", "preset mmdet"  # which draw positives in the two ways


def main(arguments: list[str] | None = None) -> int:
    """Measures as the command line says; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.to:
            check_writable_file(options.to)
        model, own = loaded(options)
        found = {
            "run": Path(options.run_folder).name,
            "weights": options.weights,
            "data": own.name,
            "images": len(own),
            **measured(model, own),
        }
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(found))
    if options.to:
        atomic.write_json(options.to, _finite(found))
    return 0


def loaded(options: argparse.Namespace):
    """The detector and the images, when all that can be wrong with them is known to be right.

    Raises:
        ValueError: if there is no such run or no such data, if they do not belong together, or if
            there is too little to measure.
    """
    run = runs.open(options.run_folder, options.weights)
    names = [name for name in ("source", "format", "corners", "skip_bad") if hasattr(options, name)]
    given = {name: getattr(options, name) for name in names}
    _, own = inputs.load_measured(RunFolder(options.run_folder), given, options.split)
    model = run.model
    if not isinstance(model, FasterRCNN | FastRCNN | RetinaNet):
        raise ValueError(f"RUN must be a detector with classes, not a {type(model).__name__}")
    check_classes(model.class_names, model.num_classes, own)
    own = inputs.add_given(own, options.proposals, model, "--proposals")
    return model, _chosen(own, options)


def _chosen(own, options):
    """The images that are asked for, the same ones for every run."""
    chosen = np.random.default_rng(0).permutation(len(own))[: options.images]
    own = own.subset(sorted(chosen))
    if len(own) < 2:
        raise ValueError(f"at least 2 images are required; {own.name} has {len(own)}")
    if not any(example.num_boxes for example in own.examples):
        raise ValueError(f"there is no object in these images of {own.name}")
    if own.max_proposals and not any(len(example.proposals) for example in own.examples):
        raise ValueError(f"{options.proposals} has no proposal for these images of {own.name}")
    return own


def measured(model, own) -> dict:
    """All four parts; those of a second stage only where there is one."""
    seen, found = observe(model, own), {}
    positives = seen.errors
    if seen.anchors is not None:
        first = model.rpn.sampler
        found["first_stage"] = of_first_stage(seen.anchors, first.num, first.positive_fraction)
    if seen.candidates is not None:
        chosen = {name: drawn(each, seen.candidates) for name, each in samplers(model).items()}
        found["samples"] = of_samples(seen.candidates, chosen)
        two = {"random": chosen[RANDOM], "instance-balanced": chosen[INSTANCE]}
        found["positives"] = of_positives(seen.candidates, two, seen.areas)
        is_positive = chosen[RANDOM] & seen.candidates["is_positive"]
        positives = seen.candidates["errors"][np.nonzero(is_positive)[1:]]
    found["loss"] = of_loss(positives)
    found["pyramid"] = {"levels": seen.names}
    for name, levels in seen.levels.items():
        found["pyramid"][name] = of_pyramid(levels, seen.image)
    return found


def samplers(model) -> dict:
    """Samplers of as many boxes as the detector's own."""
    own = model.box_head.sampler
    sizes = own.num, own.positive_fraction
    up_to_largest = IoUBalancedSampler(*sizes, upper="negatives", include_zero=True)
    return {
        RANDOM: RandomSampler(*sizes),
        **{
            f"preset {name}": CombinedSampler.preset(name, *sizes)
            for name in ("mmdet", "paper_code", "paper_text")
        },
        'upper="negatives"': CombinedSampler(
            InstanceBalancedSampler(*sizes), up_to_largest, *sizes
        ),
    }


def drawn(sampler, candidates: dict) -> np.ndarray:
    """Marks what a sampler draws, `(draws, images, N)`."""
    match = Match(*(ops.convert_to_tensor(candidates[name]) for name in Match._fields))
    images, boxes = candidates["max_iou"].shape
    marks = np.zeros((DRAWS, images, boxes), bool)
    for draw in range(DRAWS):
        indices, _, weights = sampler(match, random_keys(0, draw, ops.arange(images), boxes))
        image, place = np.nonzero(ops.convert_to_numpy(weights))
        marks[draw, image, ops.convert_to_numpy(indices)[image, place]] = True
    return marks


def markdown(found: dict) -> str:
    """The four parts as tables, each below what the paper says."""
    parts = [f"{found['run']} ({found['weights']}), {found['images']} images of {found['data']}"]
    if "first_stage" in found:
        parts.append(_first_stage_table(found["first_stage"]))
    if "samples" in found:
        parts += [_samples_table(found["samples"]), _positives_table(found["positives"])]
    return "\n\n".join([*parts, _loss_table(found["loss"]), _pyramid_table(found["pyramid"])])


def _samples_table(found):
    head = ["negatives", "an image", *(f"IoU > {t:g}" for t in OVERLAPS)]
    rows = [[*head, "hard ones an image", "of all hard ones"]]
    labels = {"all": "all candidates", "hard": "hard: the quarter of the largest losses"}
    for name, own in found.items():
        shares = [_percent(share) for share in own["above"].values()]
        hard = [_number(own["hard_an_image"]), _percent(own["of_the_hard"])]
        rows.append([labels.get(name, name), _number(own["an_image"]), *shares, *hard])
    says = "more than 60 % of hard negatives have an IoU above 0.05, 30 % of random ones do"
    return _table("Samples", says, rows)


def _first_stage_table(found):
    rows = [["anchors an image", "positives", "negatives", "images where the limit acts"]]
    means = {name: _number(value) for name, value in found.items()}
    rows.append(["without the limit", means["positives"], means["negatives"], ""])
    with_limit = [means["positives"], means["negatives_with_limit"], _percent(found["limited"])]
    rows.append([f"at most {LIMIT} negatives per positive", *with_limit])
    return _table("First stage", "the limit is in the published configuration alone", rows)


def _loss_table(found):
    rows = [
        ["box loss", "errors below 1", "their share of the gradient", "one of them / one above"]
    ]
    for name in SLOPES:
        own = found[name]
        shares = _percent(found["inliers"]), _percent(own["share"])
        rows.append([name, *shares, _number(own["ratio"], 2)])
    return _table("Loss", "an inlier gives about 30 % of an outlier's gradient (smooth L1)", rows)


def _pyramid_table(found):
    states = [name for name in ("before", "after") if name in found]
    columns = ("not in the others", "of the others not in it", "CKA to neighbours", "CKA to others")
    rows = [["level", *(f"{column}, {state}" for column in columns for state in states)]]
    values = np.array([_of_levels(found[state]) for state in states])  # (states, 4, L)
    for i, name in enumerate([*found["levels"], "mean"]):
        own = values[..., i] if i < values.shape[2] else np.nanmean(values, axis=2)
        rows.append([name, *(_number(value, 2) for value in own.T.ravel())])
    says = "levels should hold balanced information of all; a plain pyramid's see mostly neighbours"
    return _table("Pyramid", says, rows)


def _of_levels(own):
    alike = np.array(own["cka"])
    apart = np.abs(np.subtract.outer(*[np.arange(len(alike))] * 2))
    near, far = (
        [alike[i, own].mean() if own.any() else np.nan for i, own in enumerate(mask)]
        for mask in (apart == 1, apart > 1)
    )
    return own["alone"], own["missing"], near, far


def _positives_table(found):
    rows = [["positives of an object", *SIZES, *(f"{size}, without" for size in SIZES)]]
    for name, own in found.items():
        means = [_number(own[size]["mean"]) for size in SIZES]
        rows.append([name, *means, *(_percent(own[size]["without"]) for size in SIZES)])
    return _table("Positives", "as many for every object", rows)


def _table(title, paper, rows):
    lines = [f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]]
    return "\n".join([f"**{title}.** Paper: {paper}.", "", *lines])


def _percent(share):
    return "" if math.isnan(share) else f"{100 * share:.1f} %"


def _number(value, digits=1):
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _finite(value):
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run_folder", metavar="RUN", help="a run folder, a converted folder, or a .keras file")
    add("source", metavar="DATA", help="shapes, a folder, or tfds:<name>")
    for name in ("--format", "--corners"):
        add(name, default=argparse.SUPPRESS, help="as in libra-keras evaluate")
    add("--skip-bad", action="store_true", default=argparse.SUPPRESS, help="as there")
    add("--split", help="default: as there")
    add(
        "--images",
        type=int,
        metavar="N",
        help="number of images, always the same ones; default: all",
    )
    add("--weights", default="last", help="of a run folder: last, best, or a name such as kept-0.5")
    add("--proposals", metavar="FILE", help="of these images; required for fast_rcnn models")
    add("--to", metavar="FILE", help="write the numbers as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
