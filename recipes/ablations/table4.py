"""Table 4 of the paper: balanced positives and negatives, and the number of bins.

    python recipes/ablations/table4.py --data shapes --seeds 5 --budget 90m

The rows of K bins have the bins of the paper's text and its Fig. 3, up to an IoU of 0.5: with those
of the released code, which end at 1, two bins would be random sampling, which the paper's row is
not. The others are ours: both codes with three bins, and bins up to the largest IoU of a negative.
"""

import sys

import runner
from table2 import BASELINE, COLUMNS, SAMPLED
from tables import Row, Table

POSITIVES = {**BASELINE.parts, "positives": "balanced"}
TEXT = {**POSITIVES, "negatives": "paper_text"}
TABLE = Table(
    "Table 4: IoU-balanced sampling",
    COLUMNS,
    (
        BASELINE,
        Row("positives", "positives only", POSITIVES, (36.1, 58.2, 38.2, 21.3, 40.2, 47.3)),
        Row("bins_2", "K = 2", {**TEXT, "bins": 2}, (36.7, 57.8, 39.9, 20.5, 39.9, 48.9)),
        Row("bins_3", "K = 3", {**TEXT, "bins": 3}, (36.8, 57.9, 39.8, 21.4, 39.9, 48.7)),
        Row("bins_5", "K = 5", {**TEXT, "bins": 5}, (36.7, 57.7, 39.9, 19.9, 40.1, 48.7)),
        Row("sampling", "preset mmdet", SAMPLED),
        Row("paper_code", "preset paper_code", {**POSITIVES, "negatives": "paper_code"}),
        Row("negatives", 'K = 3, upper="negatives"', {**TEXT, "upper": "negatives"}),
    ),
)

if __name__ == "__main__":
    sys.exit(runner.main(TABLE, __doc__))
