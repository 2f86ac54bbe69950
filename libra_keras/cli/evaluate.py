"""Measure a trained detector on a data set."""

from libra_keras.cli.options import (
    OF_FOLDERS,
    add_batch,
    add_data,
    add_limit,
    add_precision,
    add_run,
    add_tiles,
    given_data,
    load_run,
    tiling_of,
)

EXAMPLES = """examples:
  libra-keras evaluate runs/libra_faster_rcnn_small-shapes-1 shapes
      COCO's twelve numbers and the AP of each class on the held-out scenes
  libra-keras evaluate runs/mine my_photos --split test --to numbers.json
      the same on your own folder, also as JSON, with a report in numbers.html; without --to the
      report goes into the run folder
  libra-keras evaluate runs/mine my_photos --split test --proposals
      also the recall of the first stage: AR@100, AR@300, AR@1000
  libra-keras evaluate runs/rpn shapes
      the recall of a region proposal network
  libra-keras evaluate runs/coco tfds:coco/2017 --annotations instances_val2017.json
      COCO as prepared by TensorFlow Datasets, measured against the original annotations
"""
# What a split is if none is named.
USUAL = "of the data that RUN learned from, what it was measured on; else val, else test"


def add_arguments(parser) -> None:
    """Adds the options of the verb."""
    add_run(parser)
    add_limit(parser)
    add_precision(parser)
    add_data(parser, ["skip_bad", "voc", "proposals_file", "val_fraction", *OF_FOLDERS])
    parser.add_argument("--split", help=f"default: {USUAL}")
    add_batch(parser)
    add_tiles(parser)
    parser.add_argument("--proposals", action="store_true", help="also measure proposal recall")
    parser.add_argument("--to", metavar="FILE", help="write the numbers as JSON")


def run(options) -> int:
    """Evaluates the detector and returns the exit status."""
    from libra_keras.files import atomic
    from libra_keras.files.replacing import check_replaceable_files, check_writable_file
    from libra_keras.runs import explaining, inputs, measuring
    from libra_keras.runs.folder import RunFolder
    from libra_keras.runs.report import finite, metric_lines

    if options.to:
        check_writable_file(options.to)
        check_replaceable_files([options.to], "file of evaluate's numbers", _is_own, overwrite=True)
        explaining.check_page(explaining.beside(options.to))
    tiling, folder = tiling_of(options), RunFolder(options.run_folder)
    own, data = inputs.load_measured(folder, given_data(options), options.split)
    print(data.summary())
    opened = load_run(options)
    model, origin = opened.model, opened.origin
    inputs.check_voc(own.voc, model)
    data = inputs.add_given(data, own.proposals_file, model)
    what = measuring.Wanted(inputs.wants_voc(own), options.proposals, tiling=tiling)
    measured = measuring.measure(model, data, options.batch, what)
    metrics = measured.metrics
    print(metric_lines(metrics))
    if options.to:
        numbers = {"run": options.run_folder, "weights": options.weights}
        numbers |= {"precision": model.dtype_policy.name}
        numbers |= {name: tiling[name] for name in ("tile", "overlap") if tiling}
        if hasattr(model, "max_detections"):
            numbers["max_detections"] = model.max_detections
        numbers |= {"data": data.name, "images": len(data), "metrics": finite(metrics)}
        atomic.write_json(options.to, numbers)
    if page := explaining.write_beside(options.to, model, measured, origin):
        print(f"report: {page}")
    return 0


def _is_own(path):
    from libra_keras.files.reading import read_object

    try:
        return {"run", "weights", "metrics"} <= read_object(path).keys()
    except (ValueError, OSError):
        return False
