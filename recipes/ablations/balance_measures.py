"""The numbers of `balance.py`, computed from arrays only."""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

OVERLAPS = (0.05, 0.1, 0.2)
HARD = 0.25  # of all negatives, those of the largest losses
RIDGE = 1e-3  # of a channel's mean variance
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}  # COCO's
ALPHA, GAMMA = 0.5, 1.5  # of balanced L1, as published
LIMIT = 5  # negatives per positive of the first stage, as published


def shares_above(iou: NDArray, thresholds: tuple[float, ...] = OVERLAPS) -> list[float]:
    """The share of boxes whose IoU is above each threshold; NaN without a box."""
    return [_mean(np.asarray(iou) > threshold) for threshold in thresholds]


def hardest(losses: NDArray, is_negative: NDArray, share: float = HARD) -> NDArray:
    """Marks the negatives of the largest losses, this share of those of all images together."""
    places = np.flatnonzero(is_negative)
    order = np.argsort(-losses.ravel()[places], kind="stable")
    marks = np.zeros(is_negative.size, bool)
    marks[places[order[: round(share * len(places))]]] = True
    return marks.reshape(is_negative.shape)


def smooth_l1_slope(error: NDArray) -> NDArray:
    """Gradient of smooth L1 (`beta` of 1) at errors >= 0."""
    return np.minimum(error, 1.0)


def balanced_l1_slope(error: NDArray) -> NDArray:
    """Gradient of balanced L1 (`beta` of 1) at errors >= 0."""
    return ALPHA * np.log1p(np.expm1(GAMMA / ALPHA) * np.minimum(error, 1.0))


SLOPES = {"smooth L1": smooth_l1_slope, "balanced L1": balanced_l1_slope}


def inlier_share(errors: NDArray, slope) -> float:
    """The share of all gradient that errors below 1 have."""
    inner, outer = _gradients(errors, slope)
    total = inner.sum() + outer.sum()
    return float(inner.sum() / total) if total else np.nan


def inlier_ratio(errors: NDArray, slope) -> float:
    """The mean gradient of an error below 1, divided by that of one above."""
    inner, outer = _gradients(errors, slope)
    return _mean(inner) / _mean(outer)


def alone(train: NDArray, test: NDArray, ridge: float = RIDGE) -> NDArray:
    """What all other levels together do not tell of each level: 1 - R² of a ridge regression.

    Args:
        train, test: `(positions, L, C)`, of L levels. Train on several times L * C positions:
            fewer are learnt by heart.
        ridge: of a channel's mean variance.

    Returns:
        `(L,)`: 0 for a level that is a linear function of the others, about 1 for one that has
        nothing to do with them.
    """
    products, levels = _products(train, test, ridge), range(train.shape[1])
    others = [[j for j in levels if j != i] for i in levels]
    return np.array([_unexplained(*products, own, [i]) for i, own in enumerate(others)])


def missing(train: NDArray, test: NDArray, ridge: float = RIDGE) -> NDArray:
    """What each level alone does not tell of the others, `(L,)`: the mean of 1 - R² over them.

    Args: as for `alone`.
    """
    products, number = _products(train, test, ridge), train.shape[1]
    found = np.full((number, number), np.nan)
    for i, j in itertools.permutations(range(number), 2):
        found[i, j] = _unexplained(*products, [i], [j])
    return np.nanmean(found, axis=1)


def linear_cka(x: NDArray, y: NDArray) -> float:
    """How alike two representations `(positions, C)` are: 0..1, the same when one is rotated.

    Reference: Kornblith et al., 2019, "Similarity of Neural Network Representations Revisited".
    """
    x, y = (each.astype(float) - each.mean(axis=0) for each in (x, y))
    norm = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / norm) if norm else np.nan


def positives_by_size(
    matched: NDArray, is_chosen: NDArray, areas: NDArray
) -> dict[str, dict[str, float]]:
    """How many chosen boxes an object of each size gets.

    Args:
        matched: int `(images, N)`, the object of each box.
        is_chosen: bool `(draws, images, N)`, positives alone.
        areas: `(images, M)` in pixels of the files, NaN in padding.

    Returns:
        Dict from the name of a size to the number of objects, the mean number of boxes of one, and
        the share of objects without any.
    """
    counts = np.zeros((len(is_chosen), *areas.shape))
    draw, image, box = np.nonzero(is_chosen)
    np.add.at(counts, (draw, image, matched[image, box]), 1)
    found = {}
    for name, (low, high) in SIZES.items():
        own = counts[:, (areas >= low) & (areas < high)]
        found[name] = {"objects": own.shape[1], "mean": _mean(own), "without": _mean(own == 0)}
    return found


def of_samples(candidates: dict[str, NDArray], chosen: dict[str, NDArray]) -> dict[str, Any]:
    """IoU of all negatives, of the hard ones, and of those that each sampler draws.

    Args:
        candidates: of `Observed`.
        chosen: dict from a sampler to what it draws, bool `(draws, images, N)`.
    """
    is_negative = candidates["is_negative"]
    is_hard = hardest(candidates["losses"], is_negative)
    rows = {"all": is_negative[None], "hard": is_hard[None]}
    rows |= {name: marks & is_negative for name, marks in chosen.items()}
    return {name: _negatives(marks, candidates["max_iou"], is_hard) for name, marks in rows.items()}


def _negatives(marks, iou, is_hard):
    draws, images, _ = marks.shape
    hard = (marks & is_hard).sum() / draws
    above = shares_above(iou[np.nonzero(marks)[1:]])
    return {
        "an_image": float(marks.sum() / draws / images),
        "above": {f"{threshold:g}": v for threshold, v in zip(OVERLAPS, above, strict=True)},
        "hard_an_image": float(hard / images),
        "of_the_hard": float(hard / is_hard.sum()) if is_hard.any() else np.nan,
    }


def of_positives(
    candidates: dict[str, NDArray], chosen: dict[str, NDArray], areas: NDArray
) -> dict[str, Any]:
    """Positives of an object by its size: of all candidates, and of those that are drawn."""
    is_positive = candidates["is_positive"]
    rows = {"candidates": is_positive[None]}
    rows |= {name: marks & is_positive for name, marks in chosen.items()}
    return {n: positives_by_size(candidates["matched_gt"], m, areas) for n, m in rows.items()}


def of_first_stage(anchors: NDArray, num: int, positive_fraction: float) -> dict[str, float]:
    """Means of the anchors that an image's first stage learns from, with and without the limit of
    negatives per positive, and the share of images where the limit takes negatives away.

    Args:
        anchors: `(images, 2)`, positives and negatives of each image.
        num, positive_fraction: of the sampler.
    """
    positives = np.minimum(anchors[:, 0], int(num * positive_fraction))
    negatives = np.minimum(anchors[:, 1], num - positives)
    limited = np.minimum(negatives, LIMIT * np.maximum(positives, 1))
    return {
        "positives": _mean(positives),
        "negatives": _mean(negatives),
        "negatives_with_limit": _mean(limited),
        "limited": _mean(limited < negatives),
    }


def of_loss(errors: NDArray) -> dict[str, Any]:
    """What small errors `(n, 4)` have of the gradient of the box loss."""
    found = {"positives": len(errors), "inliers": _mean(np.abs(errors) < 1)}
    for name, slope in SLOPES.items():
        found[name] = {"share": inlier_share(errors, slope), "ratio": inlier_ratio(errors, slope)}
    return found


def of_pyramid(levels: NDArray, image: NDArray) -> dict[str, Any]:
    """What levels `(positions, L, C)` have in common; regressions learn from every other image."""
    train, test, alike = levels[image % 2 == 0], levels[image % 2 == 1], np.eye(levels.shape[1])
    for i, j in itertools.combinations(range(len(alike)), 2):
        alike[i, j] = alike[j, i] = linear_cka(levels[:, i], levels[:, j])
    return {
        "alone": alone(train, test).tolist(),
        "missing": missing(train, test).tolist(),
        "cka": alike.tolist(),
    }


def _mean(values):
    return float(np.mean(values)) if np.size(values) else np.nan


def _gradients(errors, slope):
    errors = np.abs(np.asarray(errors, float)).ravel()
    gradients = slope(errors)
    return gradients[errors < 1], gradients[errors >= 1]


def _products(train, test, ridge):
    """Products of all channels of all levels with each other, `(L, C, L, C)`, a channel's mean.

    Levels are centred, and scaled so that one ridge, which is added for training, fits all.
    """
    centred = [each.astype(float) - each.mean(axis=0, dtype=float) for each in (train, test)]
    scale = np.sqrt((centred[0] ** 2).mean(axis=(0, 2), keepdims=True))
    flat = [(x / np.where(scale > 0, scale, 1.0)).reshape(len(x), -1) for x in centred]
    learned, held_out = (x.T @ x / len(x) for x in flat)
    learned += ridge * np.eye(len(learned))
    shape = train.shape[1:] * 2
    return learned.reshape(shape), held_out.reshape(shape)


def _unexplained(learned, held_out, inputs, outputs):
    """1 - R² of levels on the held-out positions, from products alone."""
    weights = np.linalg.solve(_block(learned, inputs, inputs), _block(learned, inputs, outputs))
    total = np.trace(_block(held_out, outputs, outputs))
    common = 2 * _block(held_out, inputs, outputs) - _block(held_out, inputs, inputs) @ weights
    return (total - np.sum(weights * common)) / total if total else np.nan


def _block(products, rows, columns):
    channels = products.shape[1]
    own = products[rows][:, :, columns]
    return own.reshape(len(rows) * channels, len(columns) * channels)
