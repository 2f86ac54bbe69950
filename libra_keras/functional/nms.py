"""Non-maximum suppression: exact, greedy, batched, with fixed shapes."""

from keras import ops

from libra_keras.functional import boxes as box_ops
from libra_keras.functional import control_flow, native
from libra_keras.functional.argument_checks import check_arguments
from libra_keras.functional.gathering import take, take_rows
from libra_keras.functional.ranking import top_k
from libra_keras.typing import Tensor

BLOCK = 128  # boxes decided at a time; 64 to 256 take the same time on a CPU


def nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_output: int,
    groups: Tensor | None = None,
    mask: Tensor | None = None,
    num_groups: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Keeps the best of every cluster of overlapping boxes.

    Boxes are visited by descending score; a box is dropped if its IoU with a box that was kept
    exceeds the threshold. Only boxes of equal group suppress each other.

    Args:
        boxes: float tensor `(B, N, 4)`, pixels. N must be a static size.
        scores: float tensor `(B, N)`. Equal scores are visited by index.
        iou_threshold: float; an IoU *greater* than this suppresses.
        max_output: int, number of boxes returned per image.
        groups: int tensor `(B, N)`, for example classes or pyramid levels. Defaults to one group.
        mask: bool tensor `(B, N)`, false for rows that do not take part. Rows that contain NaN
            never suppress another and are never kept.
        num_groups: int, where `groups` lie in 0..num_groups-1. Graphs for runtimes with their own
            NMS (`control_flow.straight_line`) need it; without it they loop.

    Returns:
        indices: int32 `(B, max_output)` into N by descending score; 0 where nothing was kept.
        kept: bool `(B, max_output)`, which of them are results; they come first.

    Raises:
        ValueError: if an argument has another shape or kind, N is unknown, or `max_output` is not
            positive.

    Example:

    >>> from keras import ops
    >>> from libra_keras.functional.nms import nms
    >>> boxes = [[[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [8.0, 8.0, 9.0, 9.0]]]
    >>> indices, kept = nms(boxes, [[0.5, 0.9, 0.1]], iou_threshold=0.7, max_output=3)
    >>> ops.convert_to_numpy(indices).tolist(), ops.convert_to_numpy(kept).tolist()
    ([[1, 2, 0]], [[True, True, False]])

    Differs from mmdetection: groups are compared, not moved apart by adding an offset to their
    boxes, which costs float32 precision. Two boxes without area do not suppress each other (there,
    their IoU is 0/0).
    """
    check_arguments(
        {
            "boxes (B, N, 4)": boxes,
            "scores (B, N)": scores,
            "groups (B, N) int": groups,
            "mask (B, N) bool": mask,
        }
    )
    boxes = ops.stop_gradient(ops.cast(ops.convert_to_tensor(boxes), "float32"))
    scores = ops.stop_gradient(ops.cast(ops.convert_to_tensor(scores), "float32"))
    if groups is not None:
        groups = ops.cast(ops.convert_to_tensor(groups), "int32")
    if mask is not None:
        mask = ops.cast(ops.convert_to_tensor(mask), "bool")
    _check(boxes, max_output)
    if boxes.shape[1] == 0:  # TensorFlow's gather needs a row to point at
        nothing = ops.zeros((ops.shape(boxes)[0], int(max_output)), "int32")
        return nothing, ops.cast(nothing, "bool")
    iou_threshold = ops.convert_to_tensor(iou_threshold, "float32")  # no compilation per value
    search = native.compiled(_nms, max_output=int(max_output), num_groups=num_groups)
    return search(boxes, scores, iou_threshold, groups, mask)


def _check(boxes, max_output):
    if boxes.shape[1] is None:
        raise ValueError(f"The N of `boxes` must be known. Received: shape={tuple(boxes.shape)}")
    if max_output < 1:
        raise ValueError(f"`max_output` must be positive. Received: max_output={max_output}")


def _nms(boxes, scores, iou_threshold, groups, mask, max_output, num_groups):
    valid = ops.all(boxes == boxes, axis=-1) & (scores == scores)  # NaN differs from itself
    if mask is not None:
        valid = valid & mask
    order = ops.argsort(ops.where(valid, -scores, float("inf")), axis=-1)
    padding = [[0, 0], [0, BLOCK - boxes.shape[1] % BLOCK]]  # at least one row
    valid = ops.pad(take_rows(valid, order), padding)
    order = ops.pad(ops.cast(order, "int32"), padding)
    boxes = take_rows(boxes, order)
    if groups is not None:
        groups = take_rows(groups, order)
    suppress = control_flow.own_operations().suppress
    if suppress and (groups is None or num_groups):
        kept = suppress(boxes, groups, valid, iou_threshold, max_output, num_groups)
    else:
        kept = _suppress(boxes, groups, valid, iou_threshold, max_output)
    return _first(order, kept, max_output)


def _suppress(boxes, groups, valid, iou_threshold, max_output):
    """Which of the sorted boxes are kept, `(B, P)`, decided block by block."""
    # A block that starts at `start` has already lost what earlier blocks suppress. The greedy rule
    # inside it, "kept if no kept box before me overlaps me", is iterated from "all are kept": after
    # k rounds every box with a chain of at most k overlapping boxes before it is right, so the
    # fixed point is the greedy result. Then what was kept suppresses everything behind the block.
    num_blocks = boxes.shape[1] // BLOCK
    block_of = ops.arange(boxes.shape[1]) // BLOCK
    earlier = ops.arange(BLOCK)[:, None] < ops.arange(BLOCK)[None, :]

    def pick(x, block):
        return take(ops.reshape(x, (-1, num_blocks, BLOCK, *x.shape[2:])), block, axis=1)

    def overlaps(block):
        """Whether box i of the block overlaps box j of all too much, `(B, BLOCK, P)`."""
        over = box_ops.iou(pick(boxes, block), boxes) > iou_threshold
        if groups is not None:
            over = over & (pick(groups, block)[:, :, None] == groups[:, None, :])
        return over

    def decide(block, kept):
        over = overlaps(block)
        own = take(ops.reshape(over, (-1, BLOCK, num_blocks, BLOCK)), block, axis=2)
        inside = _fixed_point(pick(kept, block), own & earlier)
        lost = (block_of > block) & ops.any(over & inside[:, :, None], axis=1)
        kept = ops.where(block_of == block, ops.tile(inside, (1, num_blocks)), kept & ~lost)
        return block + 1, kept

    def unfinished(block, kept):
        done = ops.sum(ops.cast(kept & (block_of < block), "int32"), axis=-1)
        waiting = ops.any(kept & (block_of >= block), axis=-1)
        return ops.any(waiting & (done < max_output))

    return ops.while_loop(unfinished, decide, (0, valid))[1]


def _fixed_point(candidates, suppresses):
    """Greedy choice among `(B, S)` candidates; `suppresses[b, i, j]` only where i < j."""

    def again(_, kept):
        choice = candidates & ~ops.any(suppresses & kept[:, :, None], axis=1)
        return ops.any(choice != kept), choice

    # A loop on a flag, not on two generations: converters to LiteRT mix those up.
    return ops.while_loop(lambda changed, _: changed, again, (True, candidates))[1]


def _first(order, kept, max_output):
    """The first `max_output` kept entries of `order`, as `(indices, kept)`."""
    length = kept.shape[1]
    urgency = ops.where(kept, length - ops.arange(length, dtype="int32"), 0)
    urgency, places = top_k(urgency, min(max_output, length))
    chosen = urgency > 0
    indices = ops.where(chosen, take_rows(order, places), 0)
    missing = [[0, 0], [0, max(max_output - length, 0)]]
    return ops.cast(ops.pad(indices, missing), "int32"), ops.pad(chosen, missing)
