"""Batches of a data set for `model.fit` and `model.predict`: which images, and as which arrays."""

import functools
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from libra_keras.data.examples import DetectionData
from libra_keras.data.findings import DamagedImage, DamageLog, read_checked
from libra_keras.data.image_cache import ImageCache
from libra_keras.data.images import InputPolicy, scale_boxes

INPUTS = ("images", "image_sizes", "original_sizes", "image_ids")  # what every sample begins with


class BatchPlan:
    """The order of a whole run as a pure function of a seed.

    In each epoch all images are shuffled anew. A batch holds images of one orientation only, so
    that all have one padded size; the batches of both orientations are mixed. What does not fill
    a batch is left out of that epoch, another few images each time, so every epoch has the same
    number of steps. Nothing is remembered: batch `s` of epoch `e` can be asked for at any time,
    which is how a run resumes and how an error names the files of a batch.

    Args:
        is_portrait: bool `(n,)`, the orientation of each image.
        batch_size: int, images per batch.
        seed: int. Defaults to 0.
        flip: float in [0, 1], the probability that an image is mirrored. Defaults to 0.5.

    Raises:
        ValueError: if there is not one full batch of either orientation, or `batch_size` or `flip`
            is out of its range.

    Example:

    >>> from libra_keras.data import BatchPlan
    >>> plan = BatchPlan([False] * 5 + [True] * 3, batch_size=2)
    >>> plan.steps_per_epoch, plan.batches(epoch=4).shape
    (3, (3, 2))
    """

    def __init__(self, is_portrait: ArrayLike, batch_size: int, seed: int = 0, flip: float = 0.5):
        if batch_size < 1 or not 0 <= flip <= 1:
            raise ValueError(
                "`batch_size` must be at least 1 and `flip` in 0..1. "
                f"Received: batch_size={batch_size}, flip={flip}"
            )
        self.is_portrait = np.asarray(is_portrait, bool)
        self.batch_size = batch_size
        self.seed = seed
        self.flip = flip
        counts = [int(np.sum(self.is_portrait == kind)) for kind in (False, True)]
        self.steps_per_epoch = sum(count // batch_size for count in counts)
        if not self.steps_per_epoch:
            raise ValueError(
                f"No batch of {batch_size} images of one orientation can be made. "
                f"Received: {counts[0]} landscape and {counts[1]} portrait images"
            )
        for count, kind in zip(counts, ("landscape", "portrait"), strict=True):
            if 0 < count < batch_size:
                warnings.warn(
                    f"the {count} {kind} image(s) are never used: they do not fill a batch of "
                    f"{batch_size}",
                    stacklevel=2,
                )
        self._epoch = functools.lru_cache(maxsize=4)(self._draw_epoch)

    def batches(self, epoch: int) -> np.ndarray:
        """Returns int64 `(steps_per_epoch, batch_size)`: the images of each batch of an epoch."""
        return self._epoch(epoch)[0]

    def flips(self, epoch: int) -> np.ndarray:
        """Returns bool `(steps_per_epoch, batch_size)`: which of them are mirrored."""
        return self._epoch(epoch)[1]

    def _draw_epoch(self, epoch):
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.is_portrait))
        batches = np.concatenate([self._full(order[self.is_portrait[order] == k]) for k in (0, 1)])
        batches = rng.permutation(batches)
        return batches, rng.random(batches.shape) < self.flip

    def _full(self, order):
        return order[: len(order) // self.batch_size * self.batch_size].reshape(-1, self.batch_size)


# An image that turns out to be damaged is replaced by the next image of its orientation, so that
# sizes and step counts stay as planned.
class TrainingSource:
    """Gives the samples of a training run by number: a pure function of the data and a seed."""

    def __init__(self, data, policy, batch_size, flip=0.5, seed=0, max_boxes=None, cache=None):
        self.data = data
        self.policy = policy
        self.max_boxes = data.max_boxes if max_boxes is None else max_boxes
        is_portrait = [example.is_portrait for example in data.examples]
        self.plan = BatchPlan(is_portrait, batch_size, seed, flip)
        self.damage = DamageLog(len(data))
        self.inputs = input_names(data)
        self.cache = None if cache is None else ImageCache(cache, data, policy)
        self._max_proposals = data.max_proposals
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
        batch, place = divmod(number, self.plan.batch_size)
        epoch, step = divmod(batch, self.steps_per_epoch)
        content, example = self._read(self.plan.batches(epoch)[step, place], number)
        is_mirrored = self.plan.flips(epoch)[step, place]
        original, size = (example.height, example.width), content.shape[:2]
        padded = placed(content, self.policy.bucket_size(*original), is_mirrored)
        boxes, labels = self._ground_truth(example)
        boxes = scale_boxes(boxes, original, size)
        boxes = mirrored(boxes, size[1]) if is_mirrored else boxes
        boxes, labels = pad_rows(boxes, labels, self.max_boxes)
        proposals = fitted_proposals(example, self._max_proposals, size, is_mirrored)
        sizes = np.array(size, "int32"), np.array(original, "int32")
        return padded, *sizes, np.int64(example.image_id), *proposals, boxes, labels

    def _read(self, index, number):
        """Reads and resizes an image, or the first sound one after it of its orientation."""
        for candidate in self._candidates(index):
            try:
                content = self._content(candidate)
            except DamagedImage as error:
                self.damage.add(self.data.examples[candidate].file, str(error))
                continue
            if candidate != index:
                self._replaced[number] = candidate
            return content, self.data.examples[candidate]
        raise DamagedImage("no image of this orientation can be read")

    def _candidates(self, index):
        """Yields an image and those of its orientation after it, which are seldom asked for."""
        yield index
        same = np.flatnonzero(self.plan.is_portrait == self.plan.is_portrait[index])
        yield from np.roll(same, -np.searchsorted(same, index))[1:]

    def _content(self, index):
        if self.cache is not None:
            return self.cache.read(index)
        return self.policy.resized(read_checked(self.data, index))

    def _ground_truth(self, example):
        boxes, labels = example.boxes[~example.ignore], example.labels[~example.ignore]
        if len(boxes) > self.max_boxes:
            areas = np.prod(boxes[:, 2:] - boxes[:, :2], -1)
            largest = np.sort(np.argsort(-areas, kind="stable")[: self.max_boxes])
            boxes, labels = boxes[largest], labels[largest]
        return boxes, labels


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
            content = self.policy.resized(read_checked(self.data, index))
        except DamagedImage as error:
            self.damage.add(example.file, str(error))
            content = np.zeros((*self.policy.fitted_size(*original), 3), "uint8")
        size = content.shape[:2]
        padded = placed(content, self.policy.bucket_size(*original))
        sizes = np.array(size, "int32"), np.array(original, "int32")
        proposals = fitted_proposals(example, self._max_proposals, size)
        return padded, *sizes, np.int64(example.image_id), *proposals


def input_names(data):
    """Returns the names of a sample's inputs, in their order."""
    return INPUTS if data.max_proposals is None else (*INPUTS, "proposals")


def fitted_proposals(example, rows, size, is_mirrored=False):
    """Moves proposals to the resized image as boxes are: a list of one (P, 4), or of none."""
    if rows is None:
        return []
    boxes = scale_boxes(example.proposals, (example.height, example.width), size)
    if is_mirrored:
        boxes = mirrored(boxes, size[1])
    return [np.pad(boxes, ((0, rows - len(boxes)), (0, 0))).astype("float32")]


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
) -> Any:
    """Makes the batches of a training run.

    Images are shuffled over the whole data set in each epoch, kept in proportion, resized,
    mirrored with probability `flip`, and padded at right and below. The order is a pure function
    of `seed` and the epoch: a run that starts at `start_epoch` and `start_step` continues as if
    never stopped, and what comes before is not read. Ignored boxes (crowds, difficult objects) are
    left out.

    Args:
        data: `DetectionData`.
        policy: `InputPolicy`.
        batch_size: int, images per batch (over all devices together).
        flip: float in [0, 1]. Defaults to 0.5.
        seed: int. Defaults to 0.
        epochs: int, epochs until the data set ends, or `None` (default) for an endless one, with
            which `fit` needs `steps_per_epoch=dataset.source.steps_per_epoch`.
        start_epoch: int, the first epoch. Defaults to 0.
        max_boxes: int, M, rows of boxes per image. Defaults to the most boxes of one image.
        drop_empty: bool, whether images without boxes are left out. Defaults to `False`: they
            teach the model what is background.
        kind: `"tf"` for a `tf.data.Dataset`, `"py"` for a `keras.utils.PyDataset`, which needs no
            TensorFlow. Both hold the same arrays in the same order. Defaults to `"tf"` where
            TensorFlow is Keras' backend, `"py"` elsewhere. Keras on TensorFlow takes the shapes
            of `"py"` from its first two batches, so there its images need one orientation. Give
            `fit` the option `shuffle=False`, else it takes the batches of `"py"` out of order.
        threads: int, images that are read at the same time. Defaults to what tf.data finds best,
            or one per CPU core, at most 8.
        start_step: int, the first batch of `start_epoch`; steps beyond its end lie in the epochs
            after it. Defaults to 0.
        cache: folder for decoded and resized images, which later epochs and runs read instead of
            the files, or `None` (default); see `ImageCache`. The batches are the same.

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
            behind the end, `kind` is another, or there is a `cache` but no image files. While
            iterating, `TooManyDamagedImages`, which tf.data wraps into an error of its own, stops
            a run in which over 1 % of the images are damaged, and names the files.

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
    source = TrainingSource(data, policy, batch_size, flip, seed, max_boxes, cache)
    start = start_epoch * source.steps_per_epoch + start_step
    end = None if epochs is None else (start_epoch + epochs) * source.steps_per_epoch
    if min(start_epoch, start_step) < 0 or (end is not None and start > end):
        raise ValueError(
            "`start_epoch` and `start_step` must not be negative or behind the end. "
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
        Data set of `x` as in `training_batches`; `x["image_ids"]` tells which is which.

    Raises:
        ValueError: if there is no image, `batch_size` is not positive, or `kind` is none that is
            known.

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
            raise ImportError('Batches of kind="tf" need TensorFlow; kind="py" do not') from error
        return pipeline
    if kind == "py":
        from libra_keras.data import py_dataset

        return py_dataset
    raise ValueError(f'`kind` must be "tf", "py" or None. Received: kind={kind!r}')
