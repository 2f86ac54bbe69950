"""Write a trained detector as a SavedModel: images in, boxes out."""

from libra_keras.cli.runs import add_run_arguments, load_detector

EXAMPLES = """examples:
  libra-keras export runs/mine --to exported
      a SavedModel; in another program: tf.saved_model.load("exported").signatures
"""


def add_arguments(parser):
    """Adds the options of the verb."""
    add_run_arguments(parser)
    parser.add_argument("--to", metavar="FOLDER", required=True, help="of the SavedModel")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")


def run(options):
    """Exports as the options say; returns the exit status."""
    from libra_keras.export.saved_model import check_export, export_saved_model

    check_export(options.to, options.overwrite)  # before a model is loaded for nothing
    model = load_detector(options.run_folder, options.weights)
    export_saved_model(model, options.to, overwrite=options.overwrite)
    print(
        f"{options.to}: SavedModel. Signature serving_default: images uint8 (B, H, W, 3) and "
        "image_sizes int32 (B, 2) -> boxes, scores, labels, num_detections"
    )
    return 0
