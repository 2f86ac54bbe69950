"""Write the proposals of a detector's first stage to a file."""

import sys

from libra_keras.cli import damage
from libra_keras.cli.datasets import add_data_arguments, load_data
from libra_keras.cli.outputs import check_file
from libra_keras.cli.runs import add_run_arguments, load_detector

EXAMPLES = """examples:
  libra-keras train --model rpn_small --to runs/rpn
  libra-keras propose runs/rpn shapes --split train --to train.npz
  libra-keras propose runs/rpn shapes --split val --to val.npz
  libra-keras train --model fast_rcnn_small --proposals-file train.npz --val-proposals-file val.npz
      a second stage on fixed proposals, as in the paper's ablations
  libra-keras propose runs/mine my_photos --split train --to train.npz --num 2000
      those of a two-stage detector, more of them than it uses itself
"""


def add_arguments(parser):
    """Adds the options of the verb."""
    add_run_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument("--split", required=True, help="what to propose boxes for")
    parser.add_argument("--skip-bad", action="store_true", help="drop and count bad boxes, files")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="default: 4")
    parser.add_argument(
        "--num", type=int, metavar="N", help="most proposals of an image; default: the detector's"
    )
    parser.add_argument("--to", metavar="FILE", required=True, help="a .npz or .json file")


def run(options):
    """Proposes as the options say; returns the exit status."""
    from libra_keras.data.proposals import file_format

    file_format(options.to)  # said before the work is done
    check_file(options.to)
    data = load_data(options, options.split, "train")
    print(data.summary(), flush=True)

    from libra_keras.data import write_proposals
    from libra_keras.evaluation import proposal_recall
    from libra_keras.models import RegionProposalNetwork

    detector = load_detector(options.run_folder, options.weights)
    model = RegionProposalNetwork.of(detector, options.num)
    found = _collect(model, data, options.batch)
    write_proposals(options.to, found)
    mean = sum(len(image["scores"]) for image in found) / len(found)
    print(f"{len(found)} images, {mean:.0f} proposals each on average -> {options.to}", flush=True)
    if data.annotations["annotations"]:
        for name, value in proposal_recall(data, found).items():
            print(f"{name} {value:.3f}")
    return 0


def _collect(model, data, batch):
    from libra_keras.data import evaluation_batches
    from libra_keras.evaluation import collect_proposals

    batches = evaluation_batches(data, model.input_policy, batch)

    def find():
        return {"proposals": batches.source.damaged}

    with damage.explained(find):
        found = collect_proposals(model, batches, int(sys.stdout.isatty()))
    damage.tell(find())
    return found
