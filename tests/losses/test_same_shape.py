"""Losses broadcast nothing: targets of another shape would be compared with each other's boxes."""

import keras
import numpy as np
import pytest

from libra_keras import losses

pytestmark = pytest.mark.portable
FUNCTIONS = [getattr(losses, name) for name in losses.__all__ if name.islower()]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_other_shapes_are_refused(function):
    y_pred = np.ones((3, 1, 4), "float32")
    for wrong in ((3, 4), (3, 5, 4), (3, 1, 1)):
        with pytest.raises(
            ValueError, match=r"`y_true` .*`y_pred`, \(3, 1, 4\)\. Received: shape="
        ):
            function(np.ones(wrong, "float32"), y_pred)
        with pytest.raises(ValueError, match="`y_true` must have the shape"):
            function(keras.KerasTensor(wrong), keras.KerasTensor((None, 1, 4)))
    assert function(keras.KerasTensor((None, None, 4)), keras.KerasTensor((3, 1, 4))).shape[-1] == 4
    assert function([0.0], [1.0]).shape == (1,)
