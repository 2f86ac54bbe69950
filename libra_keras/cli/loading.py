"""The run that a verb uses, on one GPU: others stay with other programs."""

import argparse

from libra_keras.runs.run import Run, open_run


def load_run(options: argparse.Namespace) -> Run:
    """Opens RUN as `add_run` has read it, with the limit of `add_limit` if one is given."""
    from libra_keras.devices.hardware import leave_gpus

    leave_gpus(1)
    run = open_run(options.run_folder, options.weights)
    if hasattr(options, "limit"):
        run.model.max_detections = options.limit
    return run
