import pytest

from libra_keras.models import BoxHeadSettings, RPNSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((RPNSettings, {"nms_iou": 1.5}), "`nms_iou` must be a number from 0 to 1. Received: 1.5"),
        (
            (RPNSettings, {"post_nms": 0}),
            "`post_nms` must be a whole number from 1 to 1000000. Received: 0",
        ),
        ((RPNSettings, {"ratios": ()}), "`ratios` must be one or more numbers. Received: ()"),
        (
            (BoxHeadSettings, {"score_threshold": -0.1}),
            "`score_threshold` must be a number from 0 to 1",
        ),
        ((BoxHeadSettings, {"stds": (0.1, 0.2)}), "`stds` must be four numbers"),
        (
            (RPNSettings, {"positive_iou": 0.3, "negative_iou": 0.7}),
            "`negative_iou` must not exceed `positive_iou`",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    kind, wrong = settings
    with pytest.raises(ValueError, match="Received: ") as error:
        kind(**wrong)
    assert message in str(error.value)


def test_settings_take_lists():
    assert hash(RPNSettings(strides=[8, 16])) == hash(RPNSettings(strides=(8, 16)))
