"""The benchmark of runtimes: what it hands on to the exports."""

from types import SimpleNamespace

from serving import recipe

import libra_keras


def test_rounds_reach_the_export(monkeypatch, tmp_path):
    """Through the command of another process, whose options are parsed anew."""
    benchmark, commands, made = recipe("benchmarks/serving_speed.py"), [], []

    def run(words, **_):
        commands.append(words)
        return SimpleNamespace(stdout=b"6000000")

    options = SimpleNamespace(size="64x96", threads=1, model="rpn_small", files=str(tmp_path))
    options.run, options.rounds = None, 12
    with monkeypatch.context() as patch:
        patch.setattr(benchmark.subprocess, "run", run)
        assert benchmark.export(["OpenVINO", "LiteRT"], options) == 6_000_000
    assert len(commands) == 3
    monkeypatch.setattr(benchmark, "build", lambda options: SimpleNamespace(weights=[]))
    for kind in ("openvino", "litert"):
        export = lambda model, path, kind=kind, **given: made.append((kind, given))  # noqa: E731
        monkeypatch.setattr(libra_keras.export, f"export_{kind}", export)
    for words in commands:
        monkeypatch.setattr(benchmark.sys, "argv", words[1:])
        benchmark.main()
    assert made == [("openvino", {"rounds": 12}), ("litert", {})]
