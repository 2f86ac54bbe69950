"""The RPN's limit of 5 negatives per positive: in the published configuration, but in no table.

Libra R-CNN's published configuration draws at most five negatives per positive in its first stage.
If images have few objects, that makes the normaliser of the RPN's losses small and its box loss
large. How much of Libra's gain is that? All rows are Faster R-CNN with L1, as mmdetection has it.

    python recipes/ablations/rpn_limit.py --data path/to/photos --seeds 5 --budget 3h
"""

import sys

import runner
from table2 import COLUMNS
from tables import Row, Table

PLAIN, LIBRA = "faster_rcnn", "libra_faster_rcnn"
TABLE = Table(
    "The RPN's limit of 5 negatives per positive",
    COLUMNS,
    (
        Row("plain", "plain", {}, kind=PLAIN),
        Row("plain_limit", "plain, the limit only", {"rpn_limit": 5.0}, kind=PLAIN),
        Row("libra_no_limit", "Libra without the limit", {"rpn_limit": 0.0}, kind=LIBRA),
        Row("libra_limit", "Libra, as published", {}, kind=LIBRA),
    ),
    kind=PLAIN,
)

if __name__ == "__main__":
    sys.exit(runner.main(TABLE, __doc__))
