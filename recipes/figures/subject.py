"""What figures are made from: a run, a photograph, and what the detector computes inside.

How the run of the stored ones was trained: `README.md`.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import style
from figure import rounded
from keras import ops

from libra_keras import runs
from libra_keras.data import DetectionData, scale_boxes
from libra_keras.data.sources import short_name
from libra_keras.functional.matching import Match
from libra_keras.functional.random_keys import random_keys
from libra_keras.functional.resize import adaptive_max_pool, resize_nearest
from libra_keras.layers import BalancedFeaturePyramid
from libra_keras.models import FasterRCNN, GroundTruth
from libra_keras.models.targets import match_proposals
from libra_keras.runs import inputs


class Photograph(NamedTuple):
    """An image as the detector sees it.

    Attributes:
        batch: dict of the model's inputs, one image.
        size: (height, width) of the image without padding.
        scale: float, its width over that of the stored image.
        boxes: float32 `(M, 4)`, its objects.
        labels: int32 `(M,)`.
        name: str.
    """

    batch: dict
    size: tuple[int, int]
    scale: float
    boxes: np.ndarray
    labels: np.ndarray
    name: str

    @property
    def record(self) -> dict:
        """What JSON has of it: the pixels, and no place where files lie."""
        return {
            "name": self.name,
            "size": list(self.size),
            "padded": list(self.batch["images"].shape[1:3]),
            "boxes": rounded(self.boxes, 1),
            "jpeg": style.encoded(self.pixels),
        }

    @property
    def pixels(self) -> np.ndarray:
        """uint8 `(height, width, 3)`, without padding."""
        return self.batch["images"][0, : self.size[0], : self.size[1]]


class Candidates(NamedTuple):
    """What the second stage of a detector samples from.

    Attributes:
        boxes: float32 `(N, 4)`, the objects and the proposals.
        match: `Match` of one image, `(1, N)`.
        losses: float32 `(N,)`, the classification loss of each as background.
    """

    boxes: np.ndarray
    match: Match
    losses: np.ndarray

    @property
    def negatives(self) -> np.ndarray:
        """Positions of the negatives."""
        return np.flatnonzero(np.asarray(self.match.is_negative)[0])

    @property
    def iou(self) -> np.ndarray:
        """float32 `(N,)`, the largest IoU of each with an object."""
        return np.asarray(self.match.max_iou)[0]


class Pyramids(NamedTuple):
    """A pyramid before and after balancing.

    Attributes:
        names: of the levels, such as `"P2"`, finest first.
        before, after: lists of tensors `(1, H_l, W_l, C)`.
        layer: the `BalancedFeaturePyramid` between them.
    """

    names: list
    before: list
    after: list
    layer: BalancedFeaturePyramid

    @property
    def average(self) -> object:
        """What the layer refines: the mean of all levels, at the size of one."""
        return sum(at_one_size(self.before, self.layer.refine_level)) / len(self.before)


def opened(options: argparse.Namespace) -> tuple[keras.Model, DetectionData, dict]:
    """The detector of a run, the data, and what JSON says of both.

    Raises:
        ValueError: if there is no such run, or there are no such data, or none are named.
    """
    run = runs.open(options.run, weights=options.weights)
    config = _data_config(run, options)
    data = inputs.load(config, config.val_split, "val")
    return run.model, data, {**_origin(run, options.weights), "data": data.name}


def _data_config(run, options):
    if run.config is None and options.data is None:
        raise ValueError("DATA is required: RUN is not a training run, and has no data")
    if run.config is None or options.data not in (None, run.config.data.source):
        return runs.DataConfig(options.data, val_split=options.split)
    own = run.config.data
    return dataclasses.replace(own, val_split=options.split or own.val_split)


def _origin(run, weights):
    """Model, length and seed of a run; a converted detector has but its name."""
    if run.config is None:
        return {"model": run.model.name}
    steps = run.record("config.json")["steps_per_epoch"] * run.config.schedule.epochs
    return {
        "model": run.config.model.name,
        "learned_from": short_name(run.config.data.source),
        "steps": steps,
        "batch": run.config.schedule.batch,
        "seed": run.config.run.seed,
        "weights": weights,
    }


def photograph(model: keras.Model, data: DetectionData, i: int) -> Photograph:
    """Image `i` of the data as the detector sees it."""
    example = data.examples[i]
    padded, size = model.input_policy.prepare(data.read_image(i))
    boxes = scale_boxes(example.boxes[~example.ignore], (example.height, example.width), size)
    batch = {"images": padded[None], "image_sizes": np.array([size], "int32")}
    labels = example.labels[~example.ignore]
    return Photograph(batch, size, size[1] / example.width, boxes, labels, Path(example.file).name)


def chosen(model: keras.Model, data: DetectionData, name: str | None) -> Photograph:
    """The photograph of a name, or the one whose objects differ most in size.

    Raises:
        ValueError: if no image is called so.
    """
    if name is None:
        ranges = [_range_of_sizes(example.boxes) for example in data.examples]
        return photograph(model, data, int(np.argmax(ranges)))
    for i, example in enumerate(data.examples):
        if name in (str(example.image_id), Path(example.file).name, Path(example.file).stem):
            return photograph(model, data, i)
    raise ValueError(f"--image: {data.name} has no image {name}")


def _range_of_sizes(boxes):
    """The largest side over the smallest, 0 without boxes."""
    sides = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    return sides.max() / sides.min() if len(sides) else 0.0


def candidates(model: keras.Model, photo: Photograph) -> Candidates:
    """What the second stage would sample from in training, with the weights as they are.

    Raises:
        ValueError: if the detector proposes no boxes, or has no second stage.
    """
    if not isinstance(model, FasterRCNN):
        raise ValueError(f"RUN must be the run of a Faster R-CNN, not of a {type(model).__name__}")
    sizes = photo.batch["image_sizes"]
    levels = model.pyramid(photo.batch["images"], sizes)
    proposals = model.rpn.propose(model.rpn(levels), sizes, training=True)
    truth = GroundTruth.of({"boxes": photo.boxes[None], "labels": photo.labels[None]})
    boxes, match = match_proposals(proposals, truth, model.box_head.settings.positive_iou)
    logits, _ = model.box_head(levels, boxes)
    logits = ops.cast(logits, "float32")[0]
    losses = ops.logsumexp(logits, axis=-1) - logits[:, -1]  # the background is the last class
    arrays = [ops.convert_to_numpy(values) for values in (boxes[0], losses)]
    return Candidates(arrays[0], match, arrays[1])


def drawn(found: Candidates, sampler: object, image: int = 0, draws: int = 1) -> tuple:
    """What a sampler draws of the candidates, several times over: positions, and which positive."""
    same = Match(*(ops.repeat(values, draws, axis=0) for values in found.match))
    keys = random_keys(seed=0, step=image, positions=ops.arange(draws), num=len(found.boxes))
    indices, is_positive, weights = map(ops.convert_to_numpy, sampler(same, keys))
    return indices[weights > 0], is_positive[weights > 0]


def pyramids(model: keras.Model, photo: Photograph) -> Pyramids:
    """The pyramid of a photograph before and after balancing.

    Raises:
        ValueError: if the detector has no balanced pyramid.
    """
    images, sizes = photo.batch["images"], photo.batch["image_sizes"]
    features = model.backbone(model.normalization(images, sizes), training=False)
    for layer in model.neck:
        before, features = features, layer(features)
        if isinstance(layer, BalancedFeaturePyramid):
            return Pyramids(list(before), _levels(before), _levels(features), layer)
    raise ValueError(
        "RUN must be the run of a detector with a balanced pyramid, such as a Libra R-CNN"
    )


def _levels(pyramid):
    return list(pyramid.values())


def at_one_size(levels: list, i: int) -> list:
    """All levels at the size of level `i`, as the balanced pyramid gathers them."""
    size = ops.shape(levels[i])[1:3]
    return [
        (adaptive_max_pool if place < i else resize_nearest)(level, size)
        for place, level in enumerate(levels)
    ]
