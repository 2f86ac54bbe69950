"""Statistics of the batch in all precisions that Keras can be set to."""

import numpy as np
import pytest
from keras import ops

from libra_keras.backbones import ConvBatchNorm


@pytest.mark.portable
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")  # JAX has none
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "mixed_float16"])
@pytest.mark.parametrize("batch_norm", ["trainable", "synchronized"])
@pytest.mark.parametrize("epsilon", [1e-5, 0.0])
def test_statistics_of_the_batch_in_any_precision(rng, dtype, batch_norm, epsilon):
    x = rng.normal(size=(2, 7, 9, 3)).astype("float32")
    kernel, made = rng.normal(size=(3, 3, 3, 4)) / 4, []
    for policy in ("float32", dtype):
        layer = ConvBatchNorm(4, 3, 2, batch_norm=batch_norm, epsilon=epsilon, dtype=policy)
        layer.build(x.shape)
        layer.kernel.assign(kernel)
        y = ops.convert_to_numpy(
            ops.cast(layer(ops.cast(x, layer.compute_dtype), training=True), "float32")
        )
        made.append((y, ops.convert_to_numpy(ops.cast(layer.moving_mean, "float32"))))
    for ours, expected in zip(made[1], made[0], strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4 if dtype == "float64" else 0.06)
