"""What ends a training."""

import numpy as np

from libra_keras.data import shapes
from libra_keras.runs import fitting
from libra_keras.runs.progress import Line
from libra_keras.training import StopOnNonFinite


def test_nothing_is_evaluated_once_training_has_failed(tmp_path):
    guard = StopOnNonFinite()
    guard.failure = "a gradient is not finite"
    best = tmp_path / "best.weights.h5"
    evaluation = fitting.GuardedEvaluation(guard, Line(), None, shapes(1), best_weights=best)
    evaluation.fills_logs, logs = True, {}
    evaluation.on_epoch_end(0, logs)  # without a model: evaluating would raise
    assert len(logs) == 12 and all(np.isnan(value) for value in logs.values())
    assert not best.exists()
