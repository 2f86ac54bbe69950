"""Write the proposals of a detector's first stage to a file."""

from libra_keras.cli.options import (
    OF_FOLDERS,
    add_batch,
    add_data,
    add_number,
    add_run,
    data_of,
    load_run,
)
from libra_keras.runs.groups import BOXES

EXAMPLES = """examples:
  libra-keras train --model rpn_small --to runs/rpn
  libra-keras propose runs/rpn shapes --split train --to train.npz
  libra-keras propose runs/rpn shapes --split val --to val.npz
  libra-keras train --model fast_rcnn_small --proposals-file train.npz --val-proposals-file val.npz
      a second stage on fixed proposals, as in the paper's ablations
  libra-keras propose runs/mine my_photos --split train --to train.npz --num 2000
      those of a two-stage detector, more than it uses itself
  libra-keras propose runs/mine my_photos --split all --val-fraction 0.2 --part val --to val.npz
      for the images of a single split that `train --val-fraction 0.2` measures on
"""


def add_arguments(parser) -> None:
    """Adds the options of the verb."""
    add_run(parser)
    add_data(parser, ["skip_bad", "val_fraction", *OF_FOLDERS])
    parser.add_argument("--split", required=True, help="split to propose boxes for")
    text = "with --val-fraction: the part of the split; default: train"
    parser.add_argument("--part", choices=("train", "val"), help=text)
    add_batch(parser)
    add_number(parser, "--num", BOXES, "maximum per image; default: the detector's", metavar="N")
    parser.add_argument("--to", metavar="FILE", required=True, help="a .npz or .json file")


def run(options) -> int:
    """Writes the proposals and returns the exit status."""
    from libra_keras.data.proposals import file_format, write_proposals
    from libra_keras.files.replacing import check_replaceable_files, check_writable_file

    file_format(options.to)  # raises before the work is done
    check_writable_file(options.to)
    check_replaceable_files([options.to], "file of proposals", _is_own, overwrite=True)

    from libra_keras.evaluation import proposal_recall
    from libra_keras.runs import inputs, measuring

    own = data_of(options)
    if options.part and own.val_fraction is None:
        raise ValueError("--part requires --val-fraction")
    data = inputs.load(own, options.split, options.part or "train")
    print(data.summary(), flush=True)
    found = measuring.propose(load_run(options).model, data, options.batch, options.num)
    write_proposals(options.to, found)
    mean = sum(len(image["scores"]) for image in found) / len(found)
    print(f"{len(found)} images, {mean:.0f} proposals each on average -> {options.to}", flush=True)
    if data.annotations["annotations"]:
        for name, value in proposal_recall(data, found).items():
            print(f"{name} {value:.3f}")
    return 0


def _is_own(path):
    from libra_keras.data import read_proposals

    try:
        return bool(read_proposals(path))
    except (ValueError, OSError):
        return False
