"""The RPN's limit of 5 negatives per positive, which is in no table, and each balance by itself.

Libra R-CNN's published configuration draws at most five negatives per positive in its first stage.
If images have few objects, that makes the normaliser of the RPN's losses small and its box loss
large. How much of Libra's gain is that, and how much each of the three balances? All rows are
Faster R-CNN; but for the last balance, their box loss is L1, as in mmdetection.

    python recipes/ablations/rpn_limit.py --data path/to/photos --seeds 5 --budget 3h
"""

import sys

import runner
from table2 import COLUMNS
from tables import Row, Table

PLAIN, LIBRA = "faster_rcnn", "libra_faster_rcnn"


def alone(key, label, **parts):
    """A row of the plain detector with these parts."""
    return Row(f"plain_{key}", f"plain, {label} only", parts, kind=PLAIN)


TABLE = Table(
    "The RPN's limit of 5 negatives per positive, and each balance by itself",
    COLUMNS,
    (
        Row("plain", "plain", {}, kind=PLAIN),
        alone("limit", "the limit", rpn_limit=5.0),
        alone("sampling", "IoU-balanced sampling", positives="balanced", negatives="mmdet"),
        alone("pyramid", "balanced pyramid", neck="bfp", refiner="embedded_gaussian"),
        alone("balanced_l1", "balanced L1", box_loss="balanced_l1"),
        Row("libra_no_limit", "Libra without the limit", {"rpn_limit": 0.0}, kind=LIBRA),
        Row("libra_limit", "Libra, as published", {}, kind=LIBRA),
    ),
    kind=PLAIN,
)

if __name__ == "__main__":
    sys.exit(runner.main(TABLE, __doc__))
