"""One example as the arrays of a batch: read, resized, padded, perhaps mirrored. NumPy only."""

import numpy as np

from libra_keras.data.batch_plan import BatchPlan
from libra_keras.data.damage import DamagedImage, DamageLog, read_checked
from libra_keras.data.image_cache import ImageCache
from libra_keras.data.images import scale_boxes

INPUTS = ("images", "image_sizes", "original_sizes", "image_ids")  # what every sample begins with


class TrainingSource:
    """Gives every sample of a training run by its number: a pure function of the data and a seed.

    An image that turns out to be damaged is replaced by the next image of its orientation, so
    that sizes and step counts stay as planned. It is noted in `damaged`, and logged as a warning
    the first time. One damaged image never stops the run; two or more do, as soon as they are
    over 1 % of all images.

    Args:
        data: `DetectionData`.
        policy: `InputPolicy`.
        batch_size: int.
        flip: float in [0, 1], the probability of mirroring. Defaults to 0.5.
        seed: int. Defaults to 0.
        max_boxes: int, M, rows of boxes per image; of images with more, the largest are used.
            Defaults to the most boxes of one image.
        cache: folder of an `ImageCache`, or `None` to decode and resize in every epoch.

    Attributes:
        inputs: names of the first arrays of a sample, which are the model's inputs `x`; the boxes
            and labels of `y` follow them.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.data.loading import TrainingSource
    >>> source = TrainingSource(data.shapes(4), data.InputPolicy(160, 160), batch_size=2)
    >>> image, size, *_ = source.sample(0)
    >>> source.steps_per_epoch, image.shape, size.tolist()
    (2, (160, 160, 3), [160, 160])
    """

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
        """Returns the files of a batch, to name them when something goes wrong in it.

        Once the batch is loaded, they are those that it holds: the replacements of damaged images.
        """
        first = (epoch * self.steps_per_epoch + step) * self.plan.batch_size
        planned = enumerate(self.plan.batches(epoch)[step], first)
        indices = [self._replaced.get(number, index) for number, index in planned]
        return [str(self.data.examples[i].file) for i in indices]

    def sample(self, number):
        """Returns a sample by its position in the run, counted from 0 over all epochs.

        Returns:
            Tuple of the padded image uint8 `(H, W, 3)`, content size int32 `(2,)`, original size
            int32 `(2,)`, image id int64, proposals float32 `(P, 4)` if the data have any, padded
            with zeros, boxes float32 `(M, 4)` in padded-image pixels, and labels int32 `(M,)`, -1
            where there is no box.

        Raises:
            TooManyDamagedImages: as `DamageLog` says.
        """
        number = int(number)
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
    """Gives every image once, landscape ones first; a damaged one becomes a blank image.

    Args:
        data: `DetectionData`.
        policy: `InputPolicy`.

    Attributes:
        inputs: names of the arrays of a sample.
        groups: int arrays, the examples of each orientation.
    """

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
    """Returns the names of a sample's inputs, in their order.

    Example:

    >>> from libra_keras import data
    >>> from libra_keras.data.loading import input_names
    >>> input_names(data.shapes(2))
    ('images', 'image_sizes', 'original_sizes', 'image_ids')
    """
    return INPUTS if data.max_proposals is None else (*INPUTS, "proposals")


def fitted_proposals(example, rows, size, is_mirrored=False):
    """Moves an example's proposals to its resized image, as its boxes are moved.

    Args:
        example: `Example`.
        rows: int P, or `None` where a sample has no proposals.
        size: `(height, width)` of the resized image.
        is_mirrored: bool.

    Returns:
        List of one float32 array `(P, 4)`, padded with zeros, or of none.

    Example:

    >>> import numpy as np
    >>> from libra_keras import data
    >>> from libra_keras.data.loading import fitted_proposals
    >>> found = [{"image_id": 1, "boxes": [[0, 0, 40, 80]], "scores": [0.5]}]
    >>> example = data.with_proposals(data.shapes(1), found).examples[0]
    >>> fitted_proposals(example, 2, (160, 160), is_mirrored=True)[0].tolist()
    [[140.0, 0.0, 160.0, 40.0], [0.0, 0.0, 0.0, 0.0]]
    """
    if rows is None:
        return []
    boxes = scale_boxes(example.proposals, (example.height, example.width), size)
    if is_mirrored:
        boxes = mirrored(boxes, size[1])
    return [np.pad(boxes, ((0, rows - len(boxes)), (0, 0))).astype("float32")]


def placed(content, size, is_mirrored=False):
    """Pads an image at right and below, and mirrors it first where asked to.

    Args:
        content: uint8 `(h, w, 3)`.
        size: `(height, width)` of the result, at least those of `content`.
        is_mirrored: bool. Padding stays at right.

    Returns:
        uint8 `(height, width, 3)`, zero outside the content.

    Example:

    >>> import numpy as np
    >>> from libra_keras.data.loading import placed
    >>> columns = np.arange(3, dtype="uint8")[None, :, None].repeat(3, -1)
    >>> placed(columns, (1, 4), is_mirrored=True)[0, :, 0].tolist()
    [2, 1, 0, 0]
    """
    padded = np.zeros((*size, 3), "uint8")
    height, width = content.shape[:2]
    if not is_mirrored:
        padded[:height, :width] = content
        return padded
    for channel in range(3):  # NumPy turns whole pixels around five times more slowly
        padded[:height, :width, channel] = content[:, ::-1, channel]
    return padded


def mirrored(boxes, width):
    """Returns boxes `(n, 4)` as they lie in the mirrored image, whose content is `width` wide.

    Example:

    >>> import numpy as np
    >>> from libra_keras.data.loading import mirrored
    >>> mirrored(np.array([[1.0, 0, 2, 3]]), width=6).tolist()
    [[4.0, 0.0, 5.0, 3.0]]
    """
    x1, y1, x2, y2 = boxes.T
    return np.stack([width - x2, y1, width - x1, y2], -1)


def pad_rows(boxes, labels, rows):
    """Pads boxes `(n, 4)` with 0 and labels `(n,)` with -1 to `rows` rows."""
    missing = rows - len(boxes)
    return (
        np.pad(boxes, ((0, missing), (0, 0))).astype("float32"),
        np.pad(labels, (0, missing), constant_values=-1).astype("int32"),
    )
