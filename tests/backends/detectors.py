"""Program: loads saved detectors on this backend; each predicts, learns for a step, predicts again.

For every `<name>.keras` of a folder it reads the batch of `<name>.npz` and writes what came out,
`<name>.<backend>.npz`: detections, losses, the samples that were drawn, the weights after the step,
and the gradient.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops

import libra_keras.models  # noqa: F401  (registers what the files name)
from libra_keras.training import SGD, StepLogger, StopOnNonFinite


class Recording:
    """A sampler that keeps what it drew, also inside a compiled step."""

    def __init__(self, sampler):
        self.sampler = sampler
        self.drawn = []

    def __call__(self, *arguments, **options):
        result = self.sampler(*arguments, **options)
        self._keep(*result)
        return result

    def __getattr__(self, name):
        return getattr(self.sampler, name)

    def _keep(self, *parts):
        def keep(*parts):
            self.drawn = [np.array(part) for part in parts]

        if keras.backend.backend() == "jax":
            import jax

            jax.debug.callback(keep, *parts)
        elif keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.numpy_function(keep, parts, [])
        else:
            keep(*map(ops.convert_to_numpy, parts))


def batch_of(path):
    x, y = {}, {}
    for name, array in np.load(path).items():
        part, key = name.split("/")
        {"x": x, "y": y}[part][key] = array
    return x, y


def run(model, x, y, log):
    results = found("first", model.predict(x, verbose=0))
    recordings = {}
    for stage in ("rpn", "box_head"):
        head = getattr(model, stage, None)
        if head is not None:
            head.sampler = recordings[stage] = Recording(head.sampler)
    # Without momentum and decay, what the optimizer keeps of a step is the gradient.
    model.compile(SGD(0.001, momentum=0.0, weight_decay=0.0))
    callbacks = [StopOnNonFinite(), StepLogger(log, every=1)]
    history = model.fit(x, y, batch_size=2, shuffle=False, verbose=0, callbacks=callbacks)
    results |= {f"losses/{name}": values[0] for name, values in history.history.items()}
    parts = {"weights": model.weights, "gradients": model.optimizer.velocities}
    for part, variables in parts.items():
        for variable in variables:
            name = variable.path.split("/", 1)[-1]
            results[f"{part}/{name}"] = ops.convert_to_numpy(variable)
    for stage, recording in recordings.items():
        head = getattr(model, stage)
        head.sampler = recording.sampler
        for i, part in enumerate(recording.drawn):
            results[f"samples/{stage}/{i}"] = part
    results |= found("second", model.predict(x, verbose=0))
    return {name: np.asarray(value) for name, value in results.items()}


def found(when, outputs):
    return {f"{when}/{name}": part for name, part in outputs.items()}


def main(folder):
    backend = keras.backend.backend()
    for path in sorted(Path(folder).glob("*_small.keras")):
        model, batch = keras.saving.load_model(path), batch_of(path.with_suffix(".npz"))
        results = run(model, *batch, path.with_suffix(f".{backend}.csv"))
        np.savez(path.with_suffix(f".{backend}.npz"), **results)
        if path.stem == "faster_rcnn_small":
            model.save(path.with_suffix(f".{backend}.keras"))


if __name__ == "__main__":
    main(sys.argv[1])
