"""Table 5 of the paper: what balances the levels of the pyramid.

python recipes/ablations/table5.py --data shapes --seeds 5 --budget 90m
"""

import sys

import runner
from table2 import BASELINE, COLUMNS
from tables import Row, Table


def row(key, label, neck, refiner=None, paper=None):
    """A row with another pyramid than the baseline's."""
    return Row(key, label, {**BASELINE.parts, "neck": neck, "refiner": refiner}, paper)


ATTENTION = "embedded_gaussian"
TABLE = Table(
    "Table 5: balanced feature pyramid",
    COLUMNS,
    (
        BASELINE,
        row("integration", "integration", "bfp", "none", (36.3, 58.8, 38.8, 21.2, 40.1, 46.3)),
        row("refined", "+ refinement", "bfp", ATTENTION, (36.8, 59.5, 39.5, 22.3, 40.6, 46.5)),
        row("pafpn", "PAFPN", "pafpn", None, (36.3, 58.4, 39.0, 21.7, 39.9, 46.3)),
        row(
            "balanced_pafpn",
            "balanced PAFPN",
            "balanced_pafpn",
            ATTENTION,
            (37.2, 60.0, 39.8, 22.7, 40.8, 47.4),
        ),
        row("conv", "refined by a convolution", "bfp", "conv"),
        row("gaussian", "refined by a Gaussian block", "bfp", "gaussian"),
    ),
)

if __name__ == "__main__":
    sys.exit(runner.main(TABLE, __doc__))
