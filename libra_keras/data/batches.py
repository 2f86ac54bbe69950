"""Batches of a data set for `model.fit` and `model.predict`: which images, and as which arrays."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from libra_keras.data.augmentation import Augmentation, as_augmentation
from libra_keras.data.augmenter import Augmenter, Place
from libra_keras.data.batch_plan import BatchPlan
from libra_keras.data.examples import DetectionData
from libra_keras.data.findings import DamagedImage, DamageLog, read_checked
from libra_keras.data.image_cache import ImageCache
from libra_keras.data.images import InputPolicy, scale_boxes

INPUTS = ("images", "image_sizes", "original_sizes", "image_ids")  # what every sample begins with


# An image that turns out to be damaged is replaced by the next image of its orientation, so that
# sizes and step counts stay as planned.
class TrainingSource:
    """Gives the samples of a training run by number: a pure function of the data and a seed."""

    def __init__(
        self, data, policy, batch_size, flip=0.5, seed=0, max_boxes=None, cache=None, augment=None
    ):
        augment = as_augmentation(augment, policy)
        self.data = data
        self.max_boxes = data.max_boxes if max_boxes is None else max_boxes
        self.plan = BatchPlan(
            [example.is_portrait for example in data.examples],
            batch_size,
            seed,
            flip,
            augment.quarter_turns,
            [example.height == example.width for example in data.examples],
        )
        self.damage = DamageLog(len(data))
        self.inputs = input_names(data)
        self.augmenter = Augmenter(augment, policy, seed)
        readings = self.augmenter.readings if cache is not None else ()
        self.caches = {policy: ImageCache(cache, data, policy) for policy in readings}
        self._max_proposals = data.max_proposals
        if augment.functions and self._max_proposals is not None:
            raise ValueError(
                "`functions` of an augmentation cannot move proposals. "
                f"Received: {data.name}, which has proposals"
            )
        self._replaced = {}  # from a sample's number to the image that stood in

    @property
    def steps_per_epoch(self):
        """Batches in an epoch."""
        return self.plan.steps_per_epoch

    @property
    def damaged(self):
        """Dict of the damaged files seen so far, and what was wrong with each."""
        return dict(self.damage.files)

    def batch_files(self, epoch, step):
        """Returns the files of a batch; once loaded, with those that replaced damaged ones."""
        first = (epoch * self.steps_per_epoch + step) * self.plan.batch_size
        planned = enumerate(self.plan.batches(epoch)[step], first)
        indices = [self._replaced.get(number, index) for number, index in planned]
        return [str(self.data.examples[i].file) for i in indices]

    def sample(self, number):
        """Returns the `inputs` of a sample, boxes (M, 4) and labels (M,), -1 in padding."""
        number = int(number)  # tf.data gives an array
        batch, slot = divmod(number, self.plan.batch_size)
        place = Place(*divmod(batch, self.steps_per_epoch), slot)
        turns = int(self.plan.turns(place.epoch)[place.step, slot])
        index = self.plan.batches(place.epoch)[place.step, slot]
        is_mirrored = self.plan.flips(place.epoch)[place.step, slot]
        reading = self.augmenter.reading(place)
        content, example = self._read(index, number, turns, reading)
        original = (example.height, example.width)
        view = self.augmenter.view(original, place, turns)
        pixels, boxes, labels = self._varied(content, example, view, place)
        padded = placed(pixels, view.padded, is_mirrored)
        boxes = mirrored(boxes, view.size[1]) if is_mirrored else boxes
        boxes, labels = pad_rows(boxes, labels, self.max_boxes)
        proposals = self._proposals(example, view, is_mirrored)
        sizes = np.array(view.size, "int32"), np.array(original, "int32")
        return padded, *sizes, np.int64(example.image_id), *proposals, boxes, labels

    def _varied(self, content, example, view, place):
        """The pixels, boxes and labels of a sample, before it is mirrored and padded."""
        boxes, labels = example.boxes[~example.ignore], example.labels[~example.ignore]
        seen = view.seen(boxes)
        boxes, labels = largest(boxes[seen], labels[seen], self.max_boxes)
        pixels, boxes = self.augmenter.pixels(content, view, place), view.boxes(boxes)
        if not self.augmenter.augmentation.functions:
            return pixels, boxes, labels
        sample = {"images": pixels, "boxes": boxes, "labels": labels}
        sample = self.augmenter.applied(sample, place, example.file, self.data.num_classes)
        return sample["images"], *largest(sample["boxes"], sample["labels"], self.max_boxes)

    def _proposals(self, example, view, is_mirrored):
        if self._max_proposals is None:
            return []
        boxes = view.boxes(example.proposals[view.seen(example.proposals)])
        boxes = mirrored(boxes, view.size[1]) if is_mirrored else boxes
        return [pad_proposals(boxes, self._max_proposals)]

    def _read(self, index, number, turns, policy):
        """Reads an image, or the first sound one after it that fits in its batch."""
        for candidate in self._candidates(index, turns):
            try:
                content = self._content(candidate, policy)
            except DamagedImage as error:
                self.damage.add(self.data.examples[candidate].file, str(error))
                continue
            if candidate != index:
                self._replaced[number] = candidate
            return content, self.data.examples[candidate]
        raise DamagedImage("no image of this orientation can be read")

    def _candidates(self, index, turns):
        """Yields an image and those of its orientation after it, which are seldom asked for."""
        yield index
        is_portrait = self.plan.turned(turns)
        same = np.flatnonzero(is_portrait == is_portrait[index])
        yield from np.roll(same, -np.searchsorted(same, index))[1:]

    def _content(self, index, policy):
        if policy in self.caches:
            return self.caches[policy].read(index)
        with read_checked(self.data, index) as image:
            return policy.fitted(image)


class EvaluationSource:
    """Gives every image once, landscape ones first; a damaged one becomes a blank image."""

    def __init__(self, data, policy):
        self.data = data
        self.policy = policy
        self.inputs = input_names(data)
        self._max_proposals = data.max_proposals
        is_portrait = np.array([example.is_portrait for example in data.examples], bool)
        self.groups = [group for k in (0, 1) if len(group := np.flatnonzero(is_portrait == k))]
        self.damage = DamageLog(len(data))

    @property
    def damaged(self):
        """Dict of the damaged files seen so far, and what was wrong with each."""
        return dict(self.damage.files)

    def sample(self, index):
        """Returns example `index` as in `TrainingSource.sample`, without boxes and labels."""
        example = self.data.examples[index]
        original = (example.height, example.width)
        try:
            with read_checked(self.data, index) as image:
                content = self.policy.resized(image)
        except DamagedImage as error:
            self.damage.add(example.file, str(error))
            content = np.zeros((*self.policy.fitted_size(*original), 3), "uint8")
        size = content.shape[:2]
        padded = placed(content, self.policy.bucket_size(*original))
        sizes = np.array(size, "int32"), np.array(original, "int32")
        inputs = padded, *sizes, np.int64(example.image_id)
        if self._max_proposals is None:
            return inputs
        proposals = scale_boxes(example.proposals, original, size)
        return *inputs, pad_proposals(proposals, self._max_proposals)


def input_names(data):
    """Returns the names of a sample's inputs, in their order."""
    return INPUTS if data.max_proposals is None else (*INPUTS, "proposals")


def largest(boxes, labels, most):
    """Returns the boxes and labels of the largest boxes, in their order."""
    if len(boxes) <= most:
        return boxes, labels
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], -1)
    kept = np.sort(np.argsort(-areas, kind="stable")[:most])
    return boxes[kept], labels[kept]


def pad_proposals(boxes, rows):
    """Pads proposals `(p, 4)` with 0 to `rows` rows."""
    return np.pad(boxes, ((0, rows - len(boxes)), (0, 0))).astype("float32")


def placed(content, size, is_mirrored=False):
    """Pads an image at right and below to `(height, width)`, and perhaps mirrors it first."""
    padded = np.zeros((*size, 3), "uint8")
    height, width = content.shape[:2]
    if not is_mirrored:
        padded[:height, :width] = content
        return padded
    for channel in range(3):  # NumPy turns whole pixels around five times more slowly
        padded[:height, :width, channel] = content[:, ::-1, channel]
    return padded


def mirrored(boxes, width):
    """Returns boxes `(n, 4)` as they lie in the mirrored image, whose content is `width` wide."""
    x1, y1, x2, y2 = boxes.T
    return np.stack([width - x2, y1, width - x1, y2], -1)


def pad_rows(boxes, labels, rows):
    """Pads boxes `(n, 4)` with 0 and labels `(n,)` with -1 to `rows` rows."""
    missing = rows - len(boxes)
    return (
        np.pad(boxes, ((0, missing), (0, 0))).astype("float32"),
        np.pad(labels, (0, missing), constant_values=-1).astype("int32"),
    )


def training_batches(
    data: DetectionData,
    policy: InputPolicy,
    batch_size: int,
    flip: float = 0.5,
    seed: int = 0,
    epochs: int | None = None,
    start_epoch: int = 0,
    max_boxes: int | None = None,
    drop_empty: bool = False,
    kind: str | None = None,
    threads: int | None = None,
    start_step: int = 0,
    cache: str | Path | None = None,
    augment: Augmentation | str | None = None,
) -> Any:
    """Makes the batches of a training run.

    Images are shuffled over the entire data set in each epoch, resized in proportion, varied
    according to `augment`, mirrored with probability `flip`, and padded at the right and bottom.
    The order is a pure function of `seed` and the epoch: a run that starts at `start_epoch` and
    `start_step` continues as if never stopped, and what comes before is not read. Ignored boxes
    (crowds, difficult objects) are left out.

    Args:
        data: `DetectionData`.
        policy: `InputPolicy`.
        batch_size: int, images per batch (over all devices together).
        flip: float in [0, 1]. Defaults to 0.5.
        seed: int. Defaults to 0.
        epochs: int, epochs until the data set ends, or `None` (default) for an endless one, with
            which `fit` needs `steps_per_epoch=dataset.source.steps_per_epoch`.
        start_epoch: int, the first epoch. Defaults to 0.
        max_boxes: int, M, rows of boxes per image. Defaults to the largest number in one image.
        drop_empty: bool, whether images without boxes are left out. Defaults to `False`: they
            teach the model what background is.
        kind: `"tf"` for a `tf.data.Dataset`, `"py"` for a `keras.utils.PyDataset`, which needs no
            TensorFlow. Both hold the same arrays in the same order. Defaults to `"tf"` where
            TensorFlow is Keras' backend, `"py"` elsewhere. Keras on TensorFlow takes the shapes
            of `"py"` from its first two batches, so there its images need one orientation, and one
            short side. Pass `shuffle=False` to `fit`, or it takes the batches of `"py"` out of
            order.
        threads: int, images that are read at the same time. Defaults to what tf.data finds best,
            or one per CPU core, at most 8.
        start_step: int, the first batch of `start_epoch`; steps beyond its end lie in the epochs
            after it. Defaults to 0.
        cache: folder for decoded and resized images, which later epochs and runs read instead of
            the files, or `None` (default); see `ImageCache`. The batches are the same. It holds
            images as they are before `augment`, each in all of its `short_sides`. Where that has a
            `scale`, they are as large as the largest scale needs, but not enlarged: decoding is
            saved, and resizing is not.
        augment: `Augmentation`, the name of a preset, `"none"`, `"default"` or `"strong"`, or
            `None` (default), which varies nothing.

    Returns:
        Data set of `(x, y)`: `x` is a dict of `"images"` uint8 `(B, H, W, 3)` RGB,
        `"image_sizes"` int32 `(B, 2)` (height, width before padding), `"original_sizes"` int32
        `(B, 2)`, `"image_ids"` int64 `(B,)` and, for data `with_proposals`, `"proposals"` float32
        `(B, P, 4)` in pixels of the padded image, zeros in padding; `y` has `"boxes"` float32
        `(B, M, 4)` in pixels of the padded image and `"labels"` int32 `(B, M)`, -1 in padding.
        Its attribute `source` is the `TrainingSource`: `steps_per_epoch`,
        `batch_files(epoch, step)`, `damaged`.

    Raises:
        ValueError: if there is not one full batch, `start_epoch` or `start_step` is negative or
            past the end, `kind` or the preset is unknown, there is a `cache` but no image files, or
            the data have proposals and `augment` has functions, which cannot move them. While
            iterating, `TooManyDamagedImages` stops a run in which over 1 % of the images are
            damaged, and names the files; so does the error of a function that fails or returns no
            sample. tf.data wraps both in its own errors.

    Example:

    >>> from libra_keras import data
    >>> policy = data.InputPolicy(short_side=320, long_side=320)
    >>> batches = data.training_batches(data.shapes(8), policy, batch_size=4, epochs=1)
    >>> x, y = next(iter(batches))
    >>> tuple(x["images"].shape), len(y["boxes"]), len(batches)
    ((4, 320, 320, 3), 4, 2)
    """
    module = _module(kind)
    if drop_empty:
        data = data.subset([i for i, example in enumerate(data.examples) if example.num_boxes])
    source = TrainingSource(data, policy, batch_size, flip, seed, max_boxes, cache, augment)
    start = start_epoch * source.steps_per_epoch + start_step
    end = None if epochs is None else (start_epoch + epochs) * source.steps_per_epoch
    if min(start_epoch, start_step) < 0 or (end is not None and start > end):
        raise ValueError(
            "`start_epoch` and `start_step` must not be negative or past the end. "
            f"Received: start_epoch={start_epoch}, start_step={start_step}, epochs={epochs}"
        )
    return module.training(source, start, end, threads)


def evaluation_batches(
    data: DetectionData,
    policy: InputPolicy,
    batch_size: int,
    kind: str | None = None,
    threads: int | None = None,
) -> Any:
    """Makes batches that show every image once, for `predict`.

    Landscape images come first, then portrait ones. Each orientation ends with a smaller batch
    where its images do not fill one. A damaged image is shown blank, and noted in
    `dataset.source.damaged`.

    Args:
        data: `DetectionData`.
        policy: `InputPolicy`.
        batch_size: int.
        kind, threads: as for `training_batches`.

    Returns:
        Data set of `x` as in `training_batches`; `x["image_ids"]` identifies the images.

    Raises:
        ValueError: if there is no image, `batch_size` is not positive, or `kind` is unknown.

    Example:

    >>> from libra_keras import data
    >>> policy = data.InputPolicy(short_side=320, long_side=320)
    >>> batches = data.evaluation_batches(data.shapes(5), policy, batch_size=2)
    >>> [len(x["images"]) for x in batches]
    [2, 2, 1]
    """
    module = _module(kind)
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
    source = EvaluationSource(data, policy)
    if not source.groups:
        raise ValueError(f"Expected a data set with images. Received: {data.name} without any")
    return module.evaluation(source, batch_size, threads)


def _module(kind):
    """The module that makes batches of a kind; only that of tf.data imports TensorFlow."""
    if kind is None:
        kind = "tf" if keras.backend.backend() == "tensorflow" else "py"
    if kind == "tf":
        try:
            from libra_keras.data import pipeline
        except ImportError as error:
            raise ImportError(
                'Batches of kind="tf" require TensorFlow; kind="py" does not'
            ) from error
        return pipeline
    if kind == "py":
        from libra_keras.data import py_dataset

        return py_dataset
    raise ValueError(f'`kind` must be "tf", "py" or None. Received: kind={kind!r}')
