"""What a run says: how it is going to learn, and its numbers as lines."""

import pytest
from configs import resolved

from libra_keras.runs.report import describe, finite, metric_lines

RESNET = ("--model", "faster_rcnn_resnet50")


@pytest.mark.parametrize(
    ("arguments", "rate", "said"),
    [
        ((), 0.0025, "learning rate 0.0025"),
        (("--batch", "4"), 0.005, "learning rate 0.005 = 0.0025 x 4/2 images"),
        (("--accumulate", "8"), 0.02, "learning rate 0.02 = 0.0025 x 16/2 images"),
        (("--batch", "1"), 0.00125, "learning rate 0.00125 = 0.0025 x 1/2 images"),
        (("--batch", "4", "--learning-rate", "0.01"), 0.01, "learning rate 0.01"),
    ],
)
def test_what_the_rate_was_scaled_from_is_said(arguments, rate, said):
    config = resolved(*RESNET, *arguments)
    assert config.schedule.learning_rate == pytest.approx(rate)
    assert describe(config, steps=100).endswith(said)


def test_averages_longer_than_the_run_are_said():
    config = resolved("--ema", "0.99", "--epochs", "1", "--accumulate", "2")
    assert describe(config, steps=202).endswith(
        "averages that are 37% the first update's weights at the end"
    )
    assert "averages" not in describe(config, steps=2002)
    config = resolved("--average-last", "0.125", "--epochs", "1")
    assert describe(config, 10).endswith("averages over the last 12.5% of the updates")


def test_lines_of_voc():
    metrics = {"AP": 0.5, "AP/cat": 0.5, "VOC_AP50_07": 0.75, "VOC_AP50_area": 0.8}
    metrics |= {"VOC_AP50_07/cat": float("nan"), "VOC_AP50_area/cat": 0.8}
    assert metric_lines(metrics).splitlines() == [
        "AP 0.500",
        "VOC_AP50_07 0.750  VOC_AP50_area 0.800",
        "  AP of cat  0.500  VOC_AP50_07 -  VOC_AP50_area 0.800",
    ]


def test_a_thousand_classes_are_not_listed():
    classes = {f"AP/{number}": 0.5 for number in range(1000)}
    lines = metric_lines({"AP": 0.5, **classes}).splitlines()
    assert lines == ["AP 0.500", "  AP of 1,000 classes: see the report"]


def test_recall_is_reported_where_there_is_no_ap():
    metrics = {"AR@100": 0.5, "AR@300": 0.75, "AR_small@300": float("nan")}
    assert metric_lines(metrics) == "AR@100 0.500  AR@300 0.750  AR_small@300 -"


def test_json_gets_no_number_that_it_does_not_know():
    found = finite({"AP": 0.5, "AP_small": float("nan"), "best_val_AP": float("-inf")})
    assert found == {"AP": 0.5, "AP_small": None, "best_val_AP": None}
