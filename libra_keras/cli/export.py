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
    from libra_keras.export.saved_model import SPECS, check_export, export_saved_model

    check_export(options.to, options.overwrite)  # before a model is loaded for nothing
    model = load_detector(options.run_folder, options.weights)
    export_saved_model(model, options.to, overwrite=options.overwrite)
    takes = ", ".join(f"{name} {SPECS[name][1]}" for name in model.INPUTS)
    print(
        f"{options.to}: SavedModel. Signature serving_default: {takes} -> "
        f"{', '.join(model.OUTPUTS)}"
    )
    return 0
