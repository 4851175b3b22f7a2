"""Sets of pictures to learn segmentation and classes from, by name, each split by slide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from wsi_ml.data import nuclei, tissue
from wsi_ml.data.batches import NO_CLASS
from wsi_ml.data.nuclei import PART_SIDE, SCENE_SIDE
from wsi_ml.data.pixel_batches import LabelledPicture, cut_to_side, halved
from wsi_ml.data.segmentation_folders import PARTS, TUMOUR_CLASSES, known_slides, read_folder, slide_pictures
from wsi_ml.data.synthetic import GLAND, LUMEN, make_scene
from wsi_ml.data.synthetic_pixels import Painter
from wsi_ml.errors import BadRequestError
from wsi_ml.geometry import Region, Size
from wsi_ml.slides.kernel import halve_pixels

GLAND_CLASSES = ("Other", "Gland")
NUCLEUS_CLASSES = ("Other", "Nucleus")
FOLDER_CLASSES = ("Other", "Target")
HELD_OUT = 0.2
"""Share of the slides that goes to validation, and to the test, where neither names nor the layout say."""
SPLIT_SEED = 17
SCENE_STEP = 100_000
"""Between the seeds of the scenes of two parts."""
OWN_SPLIT = {"drawn": ("validation", "test"), "tissue-weak": ("validation",)}
"""Sources and the parts that nobody can name for them."""


@dataclass(frozen=True)
class PictureOptions:
    """How a set is read."""

    data: Path
    side: int
    seed: int = 0
    classes: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    slides: tuple[str, ...] = ()
    """Of a folder: the slides that are used; none named: all."""
    present: float = 0.0
    scenes: int = 6
    slide_pictures: int = 100
    mpp: float | None = None
    halvings: int = 0
    """Times that pictures are halved before they are cut: 1 is ×10."""
    parts: tuple[str, ...] = PARTS
    """Parts that are wanted: of the others no pixel is kept."""


@dataclass
class PictureSet:
    """Pictures of one side by their use."""

    classes: tuple[str, ...]
    training: list[LabelledPicture] = field(default_factory=list)
    validation: list[LabelledPicture] = field(default_factory=list)
    test: list[LabelledPicture] = field(default_factory=list)
    held_out: set[str] = field(default_factory=set)
    """Slides of which nothing is trained on, whichever parts were wanted."""

    def add(self, pictures: Iterable[LabelledPicture], part: str, options: PictureOptions) -> None:
        """Cut pictures to the side and put them into a part, if that is wanted; else they are not even taken."""
        for picture in pictures if part in options.parts else ():
            for _ in range(options.halvings):
                picture = halved(picture)
            getattr(self, part).extend(cut_to_side(picture, options.side, options.present))


def open_pictures(source: str, options: PictureOptions) -> PictureSet:
    """The set of a name: drawn, nuclei, tissue-weak, folder, camelyon, or several joined by +.

    Raises BadRequestError for an unknown name, for sets of unlike classes and for a split named where a set has its
    own, FileNotFoundError where data is missing.
    """
    names = source.split("+")
    unknown = [name for name in names if name not in READERS]
    if unknown:
        raise BadRequestError(f"There is no source {unknown[0]!r}; there are {', '.join(READERS)}.")
    for name in names:
        for key in OWN_SPLIT.get(name, ()):
            if getattr(options, key):
                raise BadRequestError(f"The source {name} holds out its own pictures; leave the key {key} empty.")
    first, *others = [READERS[name](options) for name in names]
    for name, other in zip(names[1:], others, strict=True):
        if other.classes != first.classes:
            theirs = [f"{each} tells {', '.join(of.classes)}" for each, of in ((names[0], first), (name, other))]
            raise BadRequestError(f"{' and '.join(theirs)}: such sets cannot be joined.")
        for part in PARTS:
            getattr(first, part).extend(getattr(other, part))
        first.held_out |= other.held_out
    if PARTS[0] in options.parts and not first.training:
        raise BadRequestError(f"Nothing of {source} is left to train on: all of it is held out.")
    return first


def _drawn(options: PictureOptions) -> PictureSet:
    """Drawn mucosa: glands with their lumina, exact to the pixel."""
    found = PictureSet(GLAND_CLASSES)
    for number, (part, scenes) in enumerate(zip(PARTS, (options.scenes, 1, 1), strict=True)):
        first = options.seed + number * SCENE_STEP
        for seed in range(first, first + scenes):
            if number:
                found.held_out.add(_scene_name(seed))
            found.add(_scene_pictures(seed), part, options)
    return found


def _scene_pictures(seed: int) -> Iterable[LabelledPicture]:
    """The nine parts of a scene at the stored resolution with their gland masks."""
    painter = Painter(make_scene(Size(SCENE_SIDE, SCENE_SIDE), seed))
    for y in range(0, SCENE_SIDE, PART_SIDE):
        for x in range(0, SCENE_SIDE, PART_SIDE):
            base_region = Region(x, y, PART_SIDE, PART_SIDE)
            gland = np.isin(painter.labels(base_region).tissue, (GLAND, LUMEN))
            quarter = gland.reshape(PART_SIDE // 2, 2, PART_SIDE // 2, 2).sum((1, 3))
            mask = (quarter >= 2).astype(np.int8)
            rgb = halve_pixels(painter.paint(base_region))
            yield LabelledPicture(f"{_scene_name(seed)}-{x}-{y}", _scene_name(seed), rgb, mask, NO_CLASS)


def _scene_name(seed: int) -> str:
    return f"scene-{seed}"


def _nuclei(options: PictureOptions) -> PictureSet:
    """The hand-outlined nuclei as pixel labels; held out are the clusters of `wsi_ml.data.nuclei`."""
    found = PictureSet(NUCLEUS_CLASSES)
    pictures = [
        LabelledPicture(each.name, each.name, each.rgb, (each.labels > 0).astype(np.int8), NO_CLASS)
        for each in nuclei.read_hand_set(options.data).values()
    ]
    split = replace(
        options, validation=options.validation or nuclei.VALIDATION, test=options.test or nuclei.TEST
    )  # fmt: skip
    _split_by_slide(found, pictures, split)
    return found


def _tissue_weak(options: PictureOptions) -> PictureSet:
    """Real patches with weak classes only: glandular mucosa against the rest; held out by place and by slide."""
    gland = tissue.CODES.index("GLA")
    found = PictureSet(GLAND_CLASSES)
    split = tissue.split_patches(tissue.read_tissue_set(options.data), options.test or tissue.TEST_SLIDES)
    for part, patches in zip(PARTS, (split.training, split.by_place, split.by_slide), strict=True):
        pictures = [
            LabelledPicture(f"{at.slide}-{at.l0_x}-{at.l0_y}", at.slide, at.rgb, None, int(at.label == gland))
            for at in patches
        ]
        found.add(pictures, part, options)
    found.held_out = {at.slide for at in split.by_slide}
    return found


def _folder(options: PictureOptions) -> PictureSet:
    """The user's own pictures; see `read_folder`. A split that is named goes before that of the table."""
    found = PictureSet(options.classes or FOLDER_CLASSES)
    rows = read_folder(options.data, found.classes)
    if options.slides:
        unknown = sorted(set(options.slides) - {picture.slide for picture, _ in rows})
        if unknown:
            raise BadRequestError(f"The key slides names “{unknown[0]}”, which is not in the data.")
        rows = [row for row in rows if row[0].slide in options.slides]
    if not any(part for _, part in rows) or options.validation or options.test:
        _split_by_slide(found, [picture for picture, _ in rows], options)
        return found
    sides = {part: {picture.slide for picture, each in rows if (each or PARTS[0]) == part} for part in PARTS}
    shared = sorted((sides["training"] & (sides["validation"] | sides["test"])) | (sides["validation"] & sides["test"]))
    if shared:
        raise BadRequestError(f"Slide “{shared[0]}” has pictures in two parts; a slide belongs to one.")
    found.held_out = sides["validation"] | sides["test"]
    for picture, part in rows:
        found.add([picture], part or PARTS[0], options)
    return found


def _camelyon(options: PictureOptions) -> PictureSet:
    """Slides with outlined metastases; where none is named, CAMELYON16's own test slides are the test."""
    found = PictureSet(TUMOUR_CLASSES)
    slides = known_slides(options.data)
    names = [each.slide.stem for each in slides]
    test = options.test or tuple(name for name in names if name.startswith("test_"))
    parts = split_names(names, options.validation, test)
    found.held_out = _held_out(parts)
    for number, part in enumerate(PARTS):
        chosen = [each for each in slides if parts[each.slide.stem] == part]
        seed = options.seed + number * SCENE_STEP
        side = options.side << options.halvings
        pictures = slide_pictures(chosen, side, options.slide_pictures, seed, options.present, options.mpp)
        found.add(pictures, part, options)
    return found


READERS = {
    "drawn": _drawn, "nuclei": _nuclei, "tissue-weak": _tissue_weak, "folder": _folder, "camelyon": _camelyon,
}  # fmt: skip


def _split_by_slide(found: PictureSet, pictures: Sequence[LabelledPicture], options: PictureOptions) -> None:
    parts = split_names([each.slide for each in pictures], options.validation, options.test)
    found.held_out = _held_out(parts)
    for picture in pictures:
        found.add([picture], parts[picture.slide], options)


def _held_out(parts: dict[str, str]) -> set[str]:
    return {name for name, part in parts.items() if part != PARTS[0]}


def split_names(names: Sequence[str], validation: Sequence[str], test: Sequence[str]) -> dict[str, str]:
    """Part of every slide: as named, and where a part is not named a fifth of the others by a fixed shuffle.

    Of fewer than three slides none is held out unless named. Raises BadRequestError for a name that is not there.
    """
    every = sorted(set(names))
    unknown = sorted((set(validation) | set(test)) - set(every))
    if unknown:
        raise BadRequestError(f"The split names “{unknown[0]}”, which is not in the data.")
    parts = dict.fromkeys(every, PARTS[0]) | dict.fromkeys(validation, PARTS[1]) | dict.fromkeys(test, PARTS[2])
    free = [name for name in every if parts[name] == PARTS[0]]
    order = [free[place] for place in np.random.default_rng(SPLIT_SEED).permutation(len(free))]
    count = max(1, round(HELD_OUT * len(every))) if len(every) >= 3 else 0
    for part, named in ((PARTS[1], validation), (PARTS[2], test)):
        if not named:
            parts |= dict.fromkeys(order[:count], part)
            order = order[count:]
    return parts
