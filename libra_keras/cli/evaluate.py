"""Measure a trained detector on a data set."""

import sys

from libra_keras import atomic
from libra_keras.cli import damage
from libra_keras.cli.datasets import (
    add_data_arguments,
    add_voc_argument,
    check_voc,
    load_data,
    wants_voc,
)
from libra_keras.cli.given_proposals import add_given, add_proposal_file
from libra_keras.cli.outputs import check_file
from libra_keras.cli.runs import add_run_arguments, load_detector

EXAMPLES = """examples:
  libra-keras evaluate runs/libra_faster_rcnn_small-shapes-1 shapes
      COCO's twelve numbers and the AP of each class on the held-out scenes
  libra-keras evaluate runs/mine my_photos --split test --to numbers.json
      the same on a folder of yours, also as JSON
  libra-keras evaluate runs/mine my_photos --split test --proposals
      also the recall of the first stage: AR@100, AR@300, AR@1000
  libra-keras evaluate runs/rpn shapes
      a region proposal network: its recall
  libra-keras evaluate runs/coco tfds:coco/2017 --annotations instances_val2017.json
      COCO as TensorFlow Datasets has prepared it, measured on the original annotations
"""


def add_arguments(parser):
    """Adds the options of the verb."""
    add_run_arguments(parser)
    add_data_arguments(parser)
    parser.add_argument("--split", help="default: val, or test")
    parser.add_argument("--skip-bad", action="store_true", help="drop and count bad boxes, files")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="default: 4")
    parser.add_argument("--proposals", action="store_true", help="also recall of proposals")
    add_voc_argument(parser)
    parser.add_argument("--annotations", metavar="JSON", help="of tfds: data, the original ones")
    add_proposal_file(parser)
    parser.add_argument("--to", metavar="FILE", help="write the numbers as JSON")


def run(options):
    """Evaluates as the options say; returns the exit status."""
    if options.to:
        check_file(options.to)
    data = load_data(options, options.split, "val")
    print(data.summary())

    from libra_keras.cli.report import finite, metric_lines

    model = load_detector(options.run_folder, options.weights)
    check_voc(options, model)
    data = add_given(data, options.proposals_file, model)
    _check_classes(model, data)
    metrics = _measure(model, data, options)
    print(metric_lines(metrics))
    if options.to:
        measured = {"run": options.run_folder, "weights": options.weights}
        measured |= {"data": data.name, "images": len(data), "metrics": finite(metrics)}
        atomic.write_json(options.to, measured)
    return 0


def _check_classes(model, data):
    """Refuses data with classes that the detector does not know, and says if it knows more."""
    from libra_keras.evaluation.class_matching import check_classes
    from libra_keras.models import RegionProposalNetwork

    if isinstance(model, RegionProposalNetwork):
        return
    check_classes(model.class_names, model.num_classes, data)
    if data.num_classes < model.num_classes:
        print(
            f"{data.name} has {data.num_classes} of the detector's {model.num_classes} classes; "
            "the numbers are about these"
        )


def _measure(model, data, options):
    from libra_keras.data import evaluation_batches

    verbose = int(sys.stdout.isatty())
    batches = evaluation_batches(data, model.input_policy, options.batch)

    def find():
        return {"evaluation": batches.source.damaged}

    with damage.explained(find):
        metrics = _measured(model, data, batches, options, verbose)
    damage.tell(find())
    return metrics


def _measured(model, data, batches, options, verbose):
    from libra_keras import evaluation
    from libra_keras.evaluation.class_matching import relabelled
    from libra_keras.models import RegionProposalNetwork

    proposes = isinstance(model, RegionProposalNetwork)
    # In one piece it runs faster. Before all else: not every detector has a first stage.
    first = RegionProposalNetwork.of(model) if proposes or options.proposals else None
    metrics = {}
    if not proposes:
        detections = evaluation.collect_detections(model, batches, verbose)
        detections = relabelled(detections, model.class_names, data)
        metrics |= evaluation.evaluate_detections(data, detections)
        if wants_voc(options):
            metrics |= evaluation.voc_ap(data, detections)
    if first is not None:
        found = evaluation.collect_proposals(first, batches, verbose)
        metrics |= evaluation.proposal_recall(data, found)
    return metrics
