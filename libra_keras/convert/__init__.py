"""Checkpoints of mmdetection, torchvision, timm and keras.applications, as detectors of ours."""
