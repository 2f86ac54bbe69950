"""What tests of checkpoint files share: PyTorch, a path, and weights to write there."""

import pytest


@pytest.fixture(scope="module")
def torch():
    reason = "PyTorch is not installed (pip install 'libra-keras[torch]')"
    return pytest.importorskip("torch", reason=reason)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model.pth"


@pytest.fixture
def weights(torch):
    """An OrderedDict with `_metadata`, as modules give it."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(5, 2)]
    return torch.nn.Sequential(*layers).state_dict()
