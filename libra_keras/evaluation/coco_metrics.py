"""COCO's box metrics of a model: its detections in original pixels, and their scores."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from libra_keras.data import DetectionData, InputPolicy, evaluation_batches, scale_boxes
from libra_keras.evaluation.class_matching import check_classes, relabelled
from libra_keras.evaluation.comparison import check_images, compare, mean_present
from libra_keras.typing import Tensor

METRICS = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
MOST = (1, 10, 100)  # detections of a class in an image that COCO's numbers count


def names_beyond(max_detections: int | None) -> tuple[str, ...]:
    """Returns the names of the metrics that count more detections than COCO's numbers do."""
    if max_detections is None or max_detections <= MOST[-1]:
        return ()
    return tuple(f"{name}@{max_detections}" for name in ("AP", "AP50", "AP75", "AR"))


def rescale_detections(
    detections: dict[str, Tensor], image_sizes: Tensor, original_sizes: Tensor
) -> list[dict[str, np.ndarray]]:
    """Brings a batch of detections from the pixels of the padded images to those of the files.

    Args:
        detections: dict of arrays as `model.predict_on_batch` returns it: `"boxes"` `(B, D, 4)`,
            `"scores"` `(B, D)` and `"labels"` `(B, D)`, -1 in the rows that are padding.
        image_sizes: ints `(B, 2)`, height and width of the content before padding.
        original_sizes: ints `(B, 2)`, height and width of the files.

    Returns:
        List of B dicts of `"boxes"` float32 `(n, 4)`, clipped to the file, `"scores"` float32
        `(n,)` and `"labels"` int32 `(n,)`, without padding.

    Example:

    >>> import numpy as np
    >>> from libra_keras.evaluation import rescale_detections
    >>> batch = {
    ...     "boxes": np.array([[[0, 10, 30, 50], [0, 0, 0, 0]]], "float32"),
    ...     "scores": np.array([[0.9, 0.0]], "float32"),
    ...     "labels": np.array([[2, -1]]),
    ... }
    >>> rescale_detections(batch, [[40, 60]], [[80, 120]])[0]["boxes"].tolist()
    [[0.0, 20.0, 60.0, 80.0]]
    """
    boxes, scores, labels = (
        np.asarray(keras.ops.convert_to_numpy(detections[key]))
        for key in ("boxes", "scores", "labels")
    )
    images = []
    for i, (size, original) in enumerate(zip(image_sizes, original_sizes, strict=True)):
        real = labels[i] >= 0
        height, width = original
        limits = np.array([width, height, width, height], "float32")
        images.append(
            {
                "boxes": np.clip(scale_boxes(boxes[i, real], size, original), 0, limits),
                "scores": scores[i, real].astype("float32"),
                "labels": labels[i, real].astype("int32"),
            }
        )
    return images


def collect_detections(model: Any, batches: Iterable[dict], verbose: int = 1) -> list[dict]:
    """Runs a model over batches of images.

    Args:
        model: a detector; its `predict_on_batch` returns what `rescale_detections` takes.
        batches: iterable of dicts with `"images"`, `"image_sizes"`, `"original_sizes"` and
            `"image_ids"`, such as `libra_keras.data.evaluation_batches`.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        List of one dict per image: `"image_id"` int, and `"boxes"`, `"scores"`, `"labels"` in the
        pixels of the file.

    Example:

    >>> import numpy as np
    >>> from libra_keras.evaluation import collect_detections
    >>> class Blind:
    ...     def predict_on_batch(self, x):
    ...         n = len(x["images"]), 5
    ...         return {"boxes": np.zeros((*n, 4)), "scores": np.zeros(n), "labels": -np.ones(n)}
    >>> sizes = np.array([[32, 32]])
    >>> batch = {"images": np.zeros((1, 32, 32, 3)), "image_ids": np.array([7])}
    >>> batch |= {"image_sizes": sizes, "original_sizes": sizes}
    >>> found = collect_detections(Blind(), [batch], verbose=0)
    >>> found[0]["image_id"], len(found[0]["boxes"])
    (7, 0)
    """
    return collect(model.predict_on_batch, batches, verbose)


def collect(
    predict: Callable[[dict], dict], batches: Iterable[dict], verbose: int = 1
) -> list[dict]:
    """`collect_detections` for any function from a batch of inputs to a batch of detections."""
    # A batch that is smaller than the first one of its shape is filled up: what is compiled for
    # one shape is not compiled again for the rest of a data set.
    bar = keras.utils.Progbar(_length(batches), verbose=verbose, unit_name="batch")
    found: list[dict] = []
    full: dict[tuple, int] = {}  # rows of the first batch of each shape
    for step, x in enumerate(batches, 1):
        x = {key: np.asarray(value) for key, value in x.items()}
        rows = len(x["image_ids"])
        size = full.setdefault(tuple(value.shape[1:] for value in x.values()), rows)
        # What filled the batch goes; and under MirroredStrategy every replica predicts the whole
        # batch, and Keras joins them.
        detections = {key: value[:rows] for key, value in predict(_filled(x, size)).items()}
        images = rescale_detections(detections, x["image_sizes"], x["original_sizes"])
        ids = x["image_ids"].tolist()
        found += [{"image_id": i, **image} for i, image in zip(ids, images, strict=True)]
        bar.update(step)
    return found


def _filled(x, rows):
    """Repeats the last image of a batch until there are `rows`."""
    missing = rows - len(x["image_ids"])
    if missing <= 0:
        return x
    return {k: np.concatenate([v, np.repeat(v[-1:], missing, axis=0)]) for k, v in x.items()}


def _length(batches):
    """Number of batches, or `None` where it is not known: that of a generator."""
    try:
        return len(batches)
    except TypeError:
        return None


def detections_to_coco(detections: list[dict], category_ids: Sequence[int]) -> list[dict]:
    """Writes detections as the rows of a COCO result file.

    Args:
        detections: list of dicts as `collect_detections` returns it.
        category_ids: sequence of K ints: label `k` becomes category `category_ids[k]`.

    Returns:
        List of dicts, ready for `json.dump`: `"image_id"`, `"category_id"`, `"bbox"` (x, y,
        width, height) and `"score"`.

    Raises:
        ValueError: if a label is not one of `0..K-1`.

    Example:

    >>> from libra_keras.evaluation import detections_to_coco
    >>> found = [{"image_id": 7, "boxes": [[1, 2, 4, 8]], "scores": [0.5], "labels": [1]}]
    >>> detections_to_coco(found, category_ids=[3, 90])
    [{'image_id': 7, 'category_id': 90, 'bbox': [1.0, 2.0, 3.0, 6.0], 'score': 0.5}]
    """
    rows = []
    for image in detections:
        labels = np.asarray(image["labels"], "int64").reshape(-1)
        wrong = labels[(labels < 0) | (labels >= len(category_ids))]
        if len(wrong):
            raise ValueError(
                f"Expected labels in 0..{len(category_ids) - 1}. "
                f"Received: {wrong[0]} in image {image['image_id']}"
            )
        boxes = np.asarray(image["boxes"], "float64").reshape(-1, 4)
        scores = np.asarray(image["scores"], "float64").reshape(-1)
        for (x1, y1, x2, y2), score, label in zip(boxes.tolist(), scores, labels, strict=True):
            rows.append(
                {
                    "image_id": int(image["image_id"]),
                    "category_id": int(category_ids[label]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(score),
                }
            )
    return rows


def evaluate_detections(
    data: DetectionData, detections: list[dict], max_detections: int | None = None
) -> dict[str, float]:
    """Computes COCO's twelve numbers, and the AP of each class.

    The comparison is that of pycocotools, on the original annotations: boxes of crowds need not be
    found and are no error, areas for small, medium and large are those of the annotations, and at
    most 100 detections of a class count in an image. An image without detections counts as one.
    Differs from pycocotools: the same holds for objects with a true `"ignore"`, VOC's difficult
    ones, whose overlap is IoU (that of a crowd is the share of the detection inside it).

    Args:
        data: `DetectionData`; its `annotations` and `category_ids` are used.
        detections: list of dicts as `collect_detections` returns it.
        max_detections: int, a second limit on the detections of a class that count in an image, or
            `None`. If it is above 100, for example 300, there are also `"AP@300"`, `"AP50@300"`,
            `"AP75@300"` and `"AR@300"`.

    Returns:
        Dict of floats in [0, 1]: `"AP"`, `"AP50"`, `"AP75"`, `"AP_small"`, `"AP_medium"`,
        `"AP_large"`, `"AR1"`, `"AR10"`, `"AR100"`, `"AR_small"`, `"AR_medium"`, `"AR_large"`, and
        `"AP/<class>"` for every class. Where there is nothing to find (a class or a size without
        objects) the value is NaN, and such a class does not enter the means.

    Raises:
        ValueError: if a detection has a label out of range, or belongs to an image that is unknown
            or came twice.

    Example:

    >>> from libra_keras.data import DetectionData
    >>> from libra_keras.evaluation import evaluate_detections
    >>> cat = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 40, 40], "area": 1600}
    >>> annotations = {
    ...     "images": [{"id": 7, "height": 60, "width": 80}],
    ...     "annotations": [cat],
    ...     "categories": [{"id": 3, "name": "cat"}],
    ... }
    >>> data = DetectionData("one cat", ("cat",), (3,), [], annotations)
    >>> found = [{"image_id": 7, "boxes": [[0, 0, 40, 26]], "scores": [0.9], "labels": [0]}]
    >>> metrics = evaluate_detections(data, found)  # IoU 0.65: right at 4 of 10 thresholds
    >>> {name: round(metrics[name], 2) for name in ("AP", "AP50", "AP75", "AP/cat")}
    {'AP': 0.4, 'AP50': 1.0, 'AP75': 0.0, 'AP/cat': 0.4}
    """
    check_images(data, detections)
    rows = detections_to_coco(detections, data.category_ids)
    beyond = names_beyond(max_detections)
    most = (*MOST, max_detections) if beyond else MOST
    result = compare(data, rows, list(data.category_ids), most)
    precision, recall = result["precision"], result["recall"]  # (T, R, K, 4, M), (T, K, 4, M)
    best = precision[..., 2]  # with up to 100 detections
    values = [best[:, :, :, 0], best[0, :, :, 0], best[5, :, :, 0]]
    values += [best[..., size] for size in (1, 2, 3)]
    values += [recall[:, :, 0, most] for most in (0, 1, 2)]
    values += [recall[:, :, size, 2] for size in (1, 2, 3)]
    metrics = {name: mean_present(value) for name, value in zip(METRICS, values, strict=True)}
    if beyond:
        all_sizes = precision[:, :, :, 0, 3]
        values = [all_sizes, all_sizes[0], all_sizes[5], recall[:, :, 0, 3]]
        metrics |= {name: mean_present(v) for name, v in zip(beyond, values, strict=True)}
    for k, name in enumerate(data.class_names):
        metrics[f"AP/{name}"] = mean_present(best[:, :, k, 0])
    return metrics


def evaluate(
    model: Any,
    data: DetectionData,
    policy: InputPolicy | None = None,
    batch_size: int = 8,
    verbose: int = 1,
) -> dict[str, float]:
    """Computes COCO's metrics of a model on a data set.

    Classes are matched by name, if the model has names. It may know more classes than the data
    have; the metrics cover those of the data.

    Args:
        model: a detector, such as `libra_keras.models.FasterRCNN`.
        policy: `InputPolicy`, or `None` for `model.input_policy`.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        Dict as `evaluate_detections` returns it, with `model.max_detections`.

    Raises:
        ValueError: if the data have a class that the model does not know.

    Example:

    >>> import numpy as np
    >>> from libra_keras import data, evaluation
    >>> class Blind:
    ...     input_policy = data.InputPolicy(short_side=64, long_side=64)
    ...     def predict_on_batch(self, x):
    ...         n = len(x["images"]), 5
    ...         return {"boxes": np.zeros((*n, 4)), "scores": np.zeros(n), "labels": -np.ones(n)}
    >>> evaluation.evaluate(Blind(), data.shapes(4), verbose=0)["AP"]
    0.0
    """
    names = getattr(model, "class_names", None)
    count = getattr(model, "num_classes", None) if names is None else len(names)
    if count is not None:
        check_classes(names, count, data)
    batches = evaluation_batches(data, policy or model.input_policy, batch_size)
    detections = collect_detections(model, batches, verbose)
    return evaluate_detections(data, relabelled(detections, names, data), limit_of(model))


def limit_of(model: Any) -> int | None:
    """Returns how many detections a model returns for an image; `None` if unknown."""
    return getattr(model, "max_detections", None)
