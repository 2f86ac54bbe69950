"""KerasCV's RetinaNet with a balanced feature pyramid, a non-local block and a balanced L1 loss.

Overfits one drawn scene and prints the AP. Run: python recipes/integrations/kerascv_retinanet.py
(with `pip install '.[keras-cv]'`; under a minute on two cores).

* `reduction="sum"`: KerasCV divides by the number of positives itself, through weights.
* KerasCV's smooth L1 is the *mean* over the four numbers of a box; ours is their sum, as in the
  paper. `loss_weights={"box": 0.25}` keeps KerasCV's balance of the two losses.
* The config of its `RetinaNet` omits `feature_pyramid`: save the weights, and build the model in
  code.
"""

import keras
import keras_cv
from kerascv_detector import overfit, small_backbone, small_retinanet

from libra_keras.layers import BalancedFeaturePyramid, NonLocalBlock
from libra_keras.losses import BalancedL1Loss


def balanced_pyramid(backbone):
    """KerasCV's pyramid P3 to P7, then our layers; a model can be `feature_pyramid`."""
    inputs = {}
    for level in ("P3", "P4", "P5"):
        features = backbone.get_layer(backbone.pyramid_level_inputs[level]).output
        inputs[level] = keras.Input((None, None, features.shape[-1]), name=level)
    pyramid = list(keras_cv.models.retinanet.FeaturePyramid()(inputs))
    pyramid[2] = NonLocalBlock(name="non_local")(pyramid[2])  # alone, on P5
    balanced = BalancedFeaturePyramid(refine_level=1, refiner="non_local", name="balanced")
    return keras.Model(inputs, balanced(pyramid))


def build():
    keras.utils.set_random_seed(0)
    backbone = small_backbone()
    model = small_retinanet(backbone, balanced_pyramid(backbone))
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        box_loss=BalancedL1Loss(reduction="sum"),
        classification_loss="focal",
        loss_weights={"box": 0.25, "classification": 1.0},
    )
    return model


def main():
    return overfit(build())


if __name__ == "__main__":
    print(f"AP {main():.3f}")
