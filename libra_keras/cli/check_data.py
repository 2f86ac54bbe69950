"""Check a data set for errors; exits with status 1 if there are any."""

import dataclasses
import itertools

from libra_keras.cli.options import OF_AUGMENTATION, OF_FOLDERS, add_data, add_number, data_of
from libra_keras.runs.groups import SIDE

EXAMPLES = """examples:
  libra-keras check-data my_photos
      decodes every image of every split and lists all findings
  libra-keras check-data my_photos --split train --format coco
  libra-keras check-data my_photos --show pictures.png --augment strong
      also draws sixteen images of the first split, as a model would see them in training
"""
SIDES = (480, 640)  # of the pictures that --show draws


def add_arguments(parser) -> None:
    """Adds the options of the verb."""
    add_data(parser, (*OF_FOLDERS, *OF_AUGMENTATION))
    parser.add_argument("--split", help="default: all splits, one after another")
    parser.add_argument(
        "--show",
        metavar="FILE",
        help="draw sixteen images with their boxes, as a model would see them in training: "
        "--augment and related options apply",
    )
    for name, default in zip(("--short-side", "--long-side"), SIDES, strict=True):
        text = f"for --show; default: {default}"
        add_number(parser, name, SIDE, text, default=default, metavar="PIXELS")


def run(options) -> int:
    """Checks the data set and returns the exit status."""
    from libra_keras.runs.inputs import check_show, layout_of, read_split, show_augmented

    # Readers raise on the first findings unless they drop them.
    own = dataclasses.replace(data_of(options), skip_bad=True)
    if options.show:
        check_show(own, options.show)
    layout = layout_of(own)
    print(f"{own.source} is {layout}", flush=True)
    splits = [options.split] if options.split else list(layout.splits)
    findings, unreadable, read = [], 0, {}
    for split in splits:
        try:
            read[split] = read_split(own, split, "train")
            findings += _check(read[split])
        except (ValueError, OSError) as error:  # the other splits are still wanted
            if len(splits) == 1:
                raise
            print(f"{split}: {error}", flush=True)
            unreadable += 1
    shared = _shared(read)
    if options.show and (first := next(filter(len, read.values()), None)):
        show_augmented(own, first, (options.short_side, options.long_side), options.show)
    wrong = unreadable + sum(not finding.is_warning for finding in findings)
    warnings = len(findings) + unreadable - wrong + shared
    note = f" and {warnings} warning(s)" if warnings else ""
    print(f"{wrong} finding(s){note}." if wrong or warnings else "No findings.")
    return int(wrong > 0)


def _check(read):
    from libra_keras import data
    from libra_keras.runs.progress import is_watched

    print(read.summary(), flush=True)
    findings = data.check_data(read, verbose=int(is_watched()))
    for finding in findings:
        print(f"  {'warning: ' if finding.is_warning else ''}{finding}")
    return findings


def _shared(read):
    """Warns of images that are in a split to learn from and in one to measure on; returns how many
    pairs of splits share some."""
    from libra_keras.data.sources import USUAL
    from libra_keras.runs.inputs import shared_images

    count = 0
    for train, val in itertools.product(read, read):
        is_pair = train.lower() in USUAL["train"] and val.lower() in USUAL["val"]
        if not is_pair or (train.lower(), val.lower()) == ("trainval", "val"):  # as its name says
            continue
        if shared := shared_images(read[train], read[val]):
            count += 1
            print(
                f"warning: {len(shared)} of the {len(read[val])} images of {read[val].name} are "
                f"also in {read[train].name}, such as {shared[0]}"
            )
    return count
