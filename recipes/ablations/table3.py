"""Table 3 of the paper: recall of the proposals of an RPN and of Libra RPN.

    python recipes/ablations/table3.py --data shapes --seeds 3 --budget 30m

The paper gives AR@100, AR@300 and AR@1000. A small RPN returns at most 200 proposals, so its last
two numbers are AR@200.
"""

import sys

import runner
from tables import Row, Table

BIG = "resnet50"
TABLE = Table(
    "Table 3: average recall of proposals",
    ("AR@100", "AR@300", "AR@1000"),
    (
        Row("rpn", "RPN", {}, (42.5, 51.2, 57.1), kind="rpn"),
        Row("libra_rpn", "Libra RPN", {}, (52.1, 58.3, 62.5), kind="libra_rpn"),
        Row("rpn_101", "RPN, ResNet-101", {}, (45.4, 53.2, 58.7), "rpn_resnet101", BIG),
        Row("rpn_x101", "RPN, ResNeXt-101", {}, (47.8, 55.0, 59.8), "rpn_resnext101_64x4d", BIG),
    ),
    kind="rpn",
)

if __name__ == "__main__":
    sys.exit(runner.main(TABLE, __doc__))
