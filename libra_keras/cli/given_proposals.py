"""Options that name files of proposals, and the data sets that hold what is in them."""


def add_proposal_file(parser, option="--proposals-file", what="the images"):
    """Adds an option that names a file.

    Example:

    >>> import argparse
    >>> from libra_keras.cli.given_proposals import add_proposal_file
    >>> parser = argparse.ArgumentParser()
    >>> add_proposal_file(parser)
    >>> parser.parse_args(["--proposals-file", "val.npz"]).proposals_file
    'val.npz'
    """
    parser.add_argument(
        option,
        metavar="FILE",
        help=f"proposals for {what}, which fast_rcnn models need; libra-keras propose writes them",
    )


def add_given(data, file, model, option="--proposals-file"):
    """Returns `data` with the proposals of a file, if the model is one that needs them.

    Args:
        data: `DetectionData`.
        file: path, or `None` where the option was not given.
        model: `keras.Model`.
        option: str, what the option is called.

    Raises:
        ValueError: if such a model has no file, another model has one, or the file is wrong.
    """
    from libra_keras.data import with_proposals
    from libra_keras.models import FastRCNN

    needs = isinstance(model, FastRCNN)
    if needs and not file:
        raise ValueError(
            f"a FastRCNN proposes no boxes: it needs {option} FILE, with those of {data.name}; "
            "libra-keras propose writes such files"
        )
    if file and not needs:
        raise ValueError(f"{option} is for fast_rcnn models; a {type(model).__name__} uses none")
    return with_proposals(data, file) if file else data
