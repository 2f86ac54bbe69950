"""KerasHub's RetinaNet with a balanced feature pyramid, a non-local block and a balanced L1 loss.

Overfits one drawn scene and prints the AP. Run: python recipes/integrations/kerashub_retinanet.py
(with `pip install '.[keras-hub]'`; under a minute on two cores).

* The pyramid is inside `RetinaNetBackbone`, so a backbone around it refines its `pyramid_outputs`.
* `reduction="sum"`: KerasHub divides by the number of positives itself, through weights.
* KerasHub's Huber loss is the *mean* over the four numbers of a box; ours is their sum, as in the
  paper. `loss_weights={"bbox_regression": 0.25}` keeps KerasHub's balance of the two losses.
"""

import keras
import keras_hub
from kerashub_detector import optimizer, overfit, small_backbone, small_retinanet

from libra_keras.layers import BalancedFeaturePyramid, NonLocalBlock
from libra_keras.losses import BalancedL1Loss


@keras.saving.register_keras_serializable(package="recipes")
class BalancedRetinaNetBackbone(keras_hub.models.FeaturePyramidBackbone):
    """A `RetinaNetBackbone`, then our layers. Its config makes both again."""

    def __init__(self, retinanet_backbone, refine_level=1, **kwargs):
        pyramid = dict(retinanet_backbone.pyramid_outputs)
        pyramid["P5"] = NonLocalBlock(name="non_local")(pyramid["P5"])  # alone, on P5
        balance = BalancedFeaturePyramid(refine_level, refiner="non_local", name="balanced")
        pyramid = balance(pyramid)
        super().__init__(inputs=retinanet_backbone.inputs, outputs=pyramid, **kwargs)
        self.retinanet_backbone = retinanet_backbone
        self.refine_level = refine_level
        self.pyramid_outputs = pyramid
        # What RetinaNetObjectDetector asks of its backbone:
        self.image_shape = retinanet_backbone.image_shape
        self.min_level = retinanet_backbone.min_level
        self.max_level = retinanet_backbone.max_level

    def get_config(self):
        return {
            **super().get_config(),
            "retinanet_backbone": keras.layers.serialize(self.retinanet_backbone),
            "refine_level": self.refine_level,
        }

    @classmethod
    def from_config(cls, config):
        backbone = keras.layers.deserialize(config["retinanet_backbone"])
        return cls(**{**config, "retinanet_backbone": backbone})


def build():
    keras.utils.set_random_seed(0)
    model = small_retinanet(BalancedRetinaNetBackbone(small_backbone()))
    model.compile(
        optimizer=optimizer(),
        box_loss=BalancedL1Loss(reduction="sum"),
        loss_weights={"bbox_regression": 0.25, "cls_logits": 1.0},
    )
    return model


def main():
    return overfit(build())


if __name__ == "__main__":
    print(f"AP {main():.3f}")
