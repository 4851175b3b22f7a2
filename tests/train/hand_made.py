"""Runs of `train.semi_supervised` that nobody trained: weights set by hand, so that what they tell is known."""

import dataclasses
import json

import torch

from train import loop, script
from train.semi_config import Config, settled
from wsi_ml.models.esp_psp import EspPsp, EspPspConfig

WIDTHS = (8, 8, 12, 16)
CLASSES = ("Other", "Tumour")
LIMIT = 105.0
"""Grey level of green between the violet and the pink of `tests.data.drawn_slides`."""


def dark_network(limit=LIMIT):
    """Told pixel by pixel: class 1 where green is below the limit. One tap a layer; all other paths are cut."""
    network = EspPsp(EspPspConfig(2, 2, WIDTHS)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.zero_()
        first, last = network.levels[0], network.fuses[-1]
        first[0].weight[0, 1, 1, 1] = 1.0
        first[3].reduce.weight[0, 0] = 1.0
        first[3].branches[0].weight[0, 0, 1, 1] = 1.0
        last[0].weight[0, WIDTHS[0], 1, 1] = 1.0
        network.told.weight[1, 0] = -40.0
        network.told.bias.copy_(torch.tensor([0.0, 40.0 * limit / 255.0]))
    return network


def write_run(folder, network=None, done=6, **keys):
    """A run's folder after `done` of 6 steps with these weights."""
    told = {"source": "drawn", "side": 32, "widths": tuple(map(str, WIDTHS)), "steps": 6, "batch": 2, **keys}
    config = settled(Config(run=str(folder), preset="tiny", device="cpu", **told), loop.Ranks(0, 1, 0))
    model = network or dark_network()
    folder.mkdir(parents=True, exist_ok=True)
    shape = {"classes": 2, "picture_classes": 2, "widths": list(WIDTHS)}
    script.write_network_file(folder, config, "semi_supervised", "esp-psp", shape, CLASSES)
    optimizer = torch.optim.Adam(model.parameters())
    loop.save_state(folder, done, dataclasses.asdict(config), model, loop.Average(model, 0.0), optimizer)
    start = {"step": 0, "time": 100.0, "event": "start", "config": dataclasses.asdict(config), "world": 1}
    lines = [{**start, "hardware": "a CPU"}, {"step": done, "time": 220.0, "loss": 0.5}]
    (folder / loop.JOURNAL_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
