"""Table 6 of the paper: box losses and their weights.

python recipes/ablations/table6.py --data shapes --seeds 5 --budget 90m
"""

import sys

import runner
from table2 import BASELINE, COLUMNS, PLAIN
from tables import Row, Table


def weighted(loss, weight, paper, label=None):
    """A row with a loss of the baseline's kind, or L1, times a weight."""
    parts = {**PLAIN, "box_loss": loss, "box_loss_weight": weight}
    name = {"smooth_l1": "smooth L1", "l1": "L1"}[loss]
    return Row(f"{loss}_{weight:g}", f"{name}, weight {weight:g}", parts, paper)


def balanced(alpha, gamma, paper):
    """A row with balanced L1."""
    parts = {**PLAIN, "box_loss": "balanced_l1", "box_alpha": alpha, "box_gamma": gamma}
    return Row(f"balanced_{alpha:g}_{gamma:g}", f"α = {alpha:g}, γ = {gamma:g}", parts, paper)


TABLE = Table(
    "Table 6: balanced L1",
    COLUMNS,
    (
        BASELINE,
        weighted("smooth_l1", 1.5, (36.4, 58.0, 39.7, 20.8, 39.9, 47.5)),
        weighted("smooth_l1", 2.0, (36.2, 57.3, 39.5, 20.2, 40.0, 47.5)),
        Row("l1", "L1", {**PLAIN, "box_loss": "l1"}, (36.4, 57.4, 39.1, 21.0, 39.7, 47.9)),
        weighted("l1", 1.5, (36.6, 57.2, 39.8, 20.2, 40.0, 48.2)),
        weighted("l1", 2.0, (36.4, 56.5, 39.6, 20.1, 39.8, 48.2)),
        balanced(0.2, 1.0, (36.7, 58.1, 39.5, 21.4, 40.4, 47.4)),
        balanced(0.3, 1.0, (36.5, 58.2, 39.2, 21.6, 40.2, 47.2)),
        balanced(0.5, 1.0, (36.5, 58.2, 39.2, 21.5, 39.9, 47.2)),
        balanced(0.5, 1.5, (37.2, 58.0, 40.0, 21.3, 40.9, 47.9)),
        balanced(0.5, 2.0, (37.0, 58.0, 40.0, 21.2, 40.8, 47.6)),
    ),
)

if __name__ == "__main__":
    sys.exit(runner.main(TABLE, __doc__))
