"""Keys and presets of `train.cerberus`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from train import loop
from train.config import key
from train.script import PRESET_S, UNSET, RunConfig
from wsi_ml.data.instance_folders import LAYOUTS, layout_of
from wsi_ml.data.task_batches import PATCH, SAMPLERS, TARGETS, TaskBatchSettings
from wsi_ml.data.task_pictures import INSTANCE_TASKS, POINTS, TYPE, base_task
from wsi_ml.data.task_sets import SET_TASKS, knows

KNOWN = (*INSTANCE_TASKS, f"nuclei{TYPE}", f"gland{TYPE}", f"nuclei{POINTS}", f"gland{POINTS}", PATCH)
_FOLDERS = ", ".join(f"{name}:FOLDER" for name in LAYOUTS)


@dataclass(frozen=True)
class Preset:
    """What the keys below do not name."""

    batch: int = 27
    side: int = 448
    patch_side: int = 144
    width: int = 64
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    steps: int = 90_000
    drop_after: int = 70_000
    rate: float = 1e-3
    sampler: str = "paper"
    weights: str = "paper"
    average: float = 0.0


PRESETS = {
    "paper": Preset(),
    # Their 140 epochs are not converted to steps; see docs/training.md.
    "authors-code": Preset(batch=12, drop_after=75_000, sampler="authors", weights="authors"),
    "tiny": Preset(4, 96, 48, 16, (1, 1, 1, 1), 300, 240, 3e-3, average=0.98),
}


@dataclass(frozen=True)
class Config(RunConfig):
    """Keys of the training; the meanings are printed by `--help`."""

    run: str = key("runs/cerberus", "folder of this run: state, journal, pictures, TensorBoard")
    preset: str = key("paper", f"settings that the keys below do not name: {', '.join(PRESETS)} (minutes on a CPU)")
    tasks: tuple[str, ...] = key((*INSTANCE_TASKS, PATCH), f"what is learned, any of {', '.join(KNOWN)}")
    data: str = key("../shared/data", "folder of the sets that have a name only")
    nuclei_sets: tuple[str, ...] = key(
        ("dsb2018",),
        f"sets that teach nuclei: {', '.join(SET_TASKS)} (monuseg: research), {_FOLDERS}",
    )
    gland_sets: tuple[str, ...] = key(("drawn",), "sets that teach glands: drawn, glas:FOLDER, crag:, folder:")
    lumen_sets: tuple[str, ...] = key(("drawn",), "sets that teach lumina: drawn, folder:FOLDER")
    scenes: int = key(4, "drawn scenes of the set drawn, and under the set stained")
    scene_parts: int = key(9, "parts of 512 stored pixels of each scene, 1...9")
    target: str = key("plus", f"instances as {' or '.join(TARGETS)}: eroded interior without or with contour")
    points_of: tuple[str, ...] = key((), "tasks of points: names of the types whose instances count; none: all")
    point_radius: float = key(3.0, "tasks of points: radius of the discs in pixels of 0.5 um")
    sampler: str = key("", f"how batches mix tasks: {', '.join(SAMPLERS)}; empty: the preset's")
    patch_share: float = key(0.3, "samplers paper and fixed: share of batches that are of patches")
    task_weights: str = key("", "factors of the tasks' losses: paper (all 1) or authors; empty: the preset's")
    type_weights: tuple[str, ...] = key((), "weights of the types, background first; none: by the types' pixels")
    side: int = key(PRESET_S, "side of a picture with instances, a multiple of 16; 0: the preset's")
    patch_side: int = key(PRESET_S, "side of a patch, a multiple of 16; 0: the preset's")
    width: int = key(PRESET_S, "channels of the finest features; 0: the start's, else the preset's")
    drop_after: int = key(PRESET_S, "steps after which the rate falls to a tenth; 0: in the preset's proportion")
    start: str = key("", "weights of a ResNet-34 to start from (.safetensors, torchvision's names)")
    start_run: str = key("", "run to put new heads on: all that it has learned is frozen, batch norm included")
    validation_pictures: int = key(8, "pictures of each task and patches of each class that are looked at")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is not {', '.join(PRESETS)}")
        if not self.tasks or set(self.tasks) - set(KNOWN):
            raise ValueError(f"tasks are some of {', '.join(KNOWN)}, not {', '.join(self.tasks) or 'none'}")
        for task in INSTANCE_TASKS:
            for word in self.sets_of(task):
                if (layout_of(word) is None and word not in SET_TASKS) or not knows(word, task):
                    raise ValueError(f"{task}_sets has {word!r}, which is no set of {task}; --help lists them")
        if len([task for task in self.tasks if task.endswith(TYPE)]) > 1 and self.type_weights:
            raise ValueError("type_weights are of one task of types; with two they follow the types' pixels")
        if self.task_weights not in ("", "paper", "authors"):
            raise ValueError(f"task_weights {self.task_weights!r} is not paper or authors")
        if self.start and self.start_run:
            raise ValueError("start and start_run cannot both be told")

    def sets_of(self, task: str) -> tuple[str, ...]:
        """Names of the sets that teach a task or what is told of its instances."""
        by_task = {"gland": self.gland_sets, "lumen": self.lumen_sets, "nuclei": self.nuclei_sets}
        return by_task[base_task(task)]


def settled(config: Config, here: loop.Ranks) -> Config:
    """The preset's values in place of what was not told; the drop keeps its place where steps are told."""
    chosen = PRESETS[config.preset]
    steps = config.steps or chosen.steps
    whole = dataclasses.replace(
        config,
        steps=steps,
        batch=config.batch or chosen.batch,
        side=config.side or chosen.side,
        patch_side=config.patch_side or chosen.patch_side,
        rate=config.rate or chosen.rate,
        drop_after=config.drop_after or steps * chosen.drop_after // chosen.steps,
        average=chosen.average if config.average == UNSET else config.average,
        warm_up=max(0, config.warm_up),
        sampler=config.sampler or chosen.sampler,
        task_weights=config.task_weights or chosen.weights,
    )
    parts = here.world * whole.accumulate
    if whole.batch % parts:
        raise ValueError(f"batch {whole.batch} is no multiple of ranks times accumulate, {parts}")
    return whole


def batch_settings(config: Config, here: loop.Ranks) -> TaskBatchSettings:
    """What one rank's part of a step is made of."""
    rows = config.batch // (here.world * config.accumulate)
    return TaskBatchSettings(
        rows, config.side, config.patch_side, config.target, config.sampler, config.patch_share, config.point_radius
    )  # fmt: skip
