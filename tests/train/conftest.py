"""Training tests: few threads, drawn sources in place of data sets."""

import pytest
import torch

from tests.train.patches import DrawnPatches
from train import script


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def drawn(monkeypatch):
    """`open_source` gives drawn patches; `drawn[name]` may be replaced by a function of the options."""
    makers = {"drawn": lambda options: DrawnPatches(options.batch, options.side, options.seed)}

    def open_drawn(name, options):
        source = makers[name](options)
        source.seed += options.part != "training"
        return source

    monkeypatch.setattr(script, "open_source", open_drawn)
    return makers


@pytest.fixture
def settings():
    """Keys of a run of seconds."""
    values = {
        "preset": "tiny", "source": "drawn", "validation": "some", "batch": 4, "side": 16, "validation_side": 16,
        "validation_batches": 1, "warm_up": 2, "log_every": 2, "validate_every": 4, "save_every": 4, "threads": 1,
        "device": "cpu", "precision": "fp32", "steps": 8,
    }  # fmt: skip
    return [f"--set={name}={value}" for name, value in values.items()]
