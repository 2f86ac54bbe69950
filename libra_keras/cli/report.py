"""Write a page that explains how good a trained detector is and what it gets wrong."""

from libra_keras.cli.evaluate import USUAL
from libra_keras.cli.options import (
    OF_FOLDERS,
    add_batch,
    add_data,
    add_limit,
    add_run,
    given_data,
    load_run,
)
from libra_keras.runs.config import flag

OF_DATA = ("format", "skip_bad", "proposals_file", "val_fraction", "split", *OF_FOLDERS)
EXAMPLES = """examples:
  libra-keras report runs/mine
      report.html in the run folder, on the data that the run was measured on
  libra-keras report runs/mine my_photos --split test
      the same on other data: report-my_photos-test.html
  libra-keras report photos.keras my_photos --split test --to photos.html
      on a detector that does not come from a run of yours
"""


def add_arguments(parser) -> None:
    """Adds the options of the verb."""
    add_run(parser)
    add_limit(parser)
    add_data(parser, ["skip_bad", "proposals_file", "val_fraction", *OF_FOLDERS], is_required=False)
    parser.add_argument("--split", help=f"of DATA; default: {USUAL}")
    add_batch(parser)
    parser.add_argument(
        "--to", metavar="FILE", help="where to write the page; default: the run folder"
    )


def run(options) -> int:
    """Writes the report and returns the exit status."""
    from libra_keras.runs import inputs
    from libra_keras.runs.folder import RunFolder

    opened, data = load_run(options), None
    if hasattr(options, "source"):
        folder = RunFolder(options.run_folder)
        own, data = inputs.load_measured(folder, given_data(options), options.split)
        data = inputs.add_given(data, own.proposals_file, opened.model)
    elif given := sorted(name for name in OF_DATA if getattr(options, name, None) is not None):
        raise ValueError(f"{flag(given[0])} requires DATA, which is not given")
    print(f"report: {opened.report(data, options.to, options.batch)}")
    return 0
