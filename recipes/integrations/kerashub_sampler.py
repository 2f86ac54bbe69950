"""KerasHub's RetinaNet, trained on anchors chosen by an IoU-balanced sampler.

Overfits one drawn scene and prints the AP. Run: python recipes/integrations/kerashub_sampler.py
(with `pip install '.[keras-hub]'`; under a minute on two cores).

The label encoder asks its `BoxMatcher` which anchors are objects and which are background. Ours
replaces it: it takes the matcher's answer, draws a sample, and makes the encoder ignore the rest
(its class -2). Negatives are spread evenly over their overlap with objects.
"""

import keras
from kerashub_detector import optimizer, overfit, small_backbone, small_retinanet

from libra_keras.losses import BalancedL1Loss
from libra_keras.samplers import IoUBalancedSampler, SampledBoxMatcher


def build():
    keras.utils.set_random_seed(0)
    model = small_retinanet(small_backbone())
    encoder = model.label_encoder
    sampler = IoUBalancedSampler.preset("paper_text", num=256, positive_fraction=0.5)
    encoder.box_matcher = SampledBoxMatcher(encoder.box_matcher, sampler)
    model.compile(
        optimizer=optimizer(),
        box_loss=BalancedL1Loss(reduction="sum"),  # see kerashub_retinanet.py
        loss_weights={"bbox_regression": 0.25, "cls_logits": 1.0},
    )
    return model


def main():
    return overfit(build())


if __name__ == "__main__":
    print(f"AP {main():.3f}")
