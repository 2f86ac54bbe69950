"""Table 2 of the paper: the three balances, one after the other.

Fast R-CNN on one stored set of proposals, as in the paper; `--model faster_rcnn` is the
alternative. The baseline's box loss is smooth L1, as the paper's was; mmdetection's and this
package's plain detectors have L1 (in table 6).

    python recipes/ablations/table2.py --data shapes --seeds 5 --budget 90m
    python recipes/ablations/table2.py --data path/to/coco --seeds 3 --schedule 1x --batch 16
"""

import sys

import runner
from tables import Row, Table

COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
PLAIN = {"positives": "random", "negatives": "random", "neck": "fpn"}
BASELINE = Row(
    "baseline",
    "baseline (smooth L1)",
    {**PLAIN, "box_loss": "smooth_l1"},
    (35.9, 58.0, 38.4, 21.2, 39.5, 46.4),
)
SAMPLED = {**BASELINE.parts, "positives": "balanced", "negatives": "mmdet"}
PYRAMID = {**SAMPLED, "neck": "bfp", "refiner": "embedded_gaussian"}
TABLE = Table(
    "Table 2: balances, cumulative",
    COLUMNS,
    (
        BASELINE,
        Row("sampling", "+ IoU-balanced sampling", SAMPLED, (36.8, 58.0, 40.0, 21.1, 40.3, 48.2)),
        Row("pyramid", "+ balanced pyramid", PYRAMID, (37.7, 59.4, 40.9, 22.4, 41.3, 49.3)),
        Row(
            "libra",
            "+ balanced L1 = Libra R-CNN",
            {**PYRAMID, "box_loss": "balanced_l1"},
            (38.5, 59.3, 42.0, 22.9, 42.1, 50.5),
        ),
    ),
    is_cumulative=True,
)

if __name__ == "__main__":
    sys.exit(runner.main(TABLE, __doc__))
