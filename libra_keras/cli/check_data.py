"""Find everything that is wrong with a data set; exits 1 if anything is."""

from libra_keras.cli.datasets import add_data_arguments, find_splits, load_data

EXAMPLES = """examples:
  libra-keras check-data my_photos
      decodes every image of every split, and lists all findings
  libra-keras check-data my_photos --split train --format coco
"""


def add_arguments(parser):
    """Adds the options of the verb."""
    add_data_arguments(parser)
    parser.add_argument("--split", help="default: all of them, one after the other")
    parser.set_defaults(skip_bad=True)  # readers raise on the first findings otherwise


def run(options):
    """Checks as the options say; returns the exit status."""
    splits = [options.split] if options.split else find_splits(options.data, options.format)
    findings, unreadable = [], 0
    for split in splits:
        try:
            findings += _check(options, split)
        except (ValueError, OSError) as error:  # the other splits are still wanted
            if len(splits) == 1:
                raise
            print(f"{split}: {error}", flush=True)
            unreadable += 1
    wrong = unreadable + sum(not finding.is_warning for finding in findings)
    warnings = len(findings) + unreadable - wrong
    note = f" and {warnings} warning(s)" if warnings else ""
    print(f"{wrong} finding(s){note}." if findings or unreadable else "No findings.")
    return int(wrong > 0)


def _check(options, split):
    import sys

    from libra_keras.data import check_data

    data = load_data(options, split, "train")
    print(data.summary(), flush=True)
    findings = check_data(data, verbose=int(sys.stdout.isatty()))
    for finding in findings:
        print(f"  {'warning: ' if finding.is_warning else ''}{finding}")
    return findings
