"""One way to every source of batches, by name and options: what the training scripts' keys lead to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_ml.data.atlas_batches import AtlasBatches, fixed_pairs
from wsi_ml.data.augment import AugmentConfig
from wsi_ml.data.batches import BatchSource
from wsi_ml.data.dense_patches import dense_patches
from wsi_ml.data.labelled_patches import COEFFICIENT, INTERSECTION, LabelledPatches, checked_classes
from wsi_ml.data.library_patches import annotated_library, library_pixels
from wsi_ml.data.mixed_batches import MixedBatches, shares
from wsi_ml.data.msu import CLASS_CHANCES, SLIDE_ENDINGS, SlideFiles, annotated_slides, find_slides
from wsi_ml.data.pairs import PatchConfig, load_slides, read_tiles, tile_files
from wsi_ml.data.patch_augment import AugmentationSettings
from wsi_ml.data.patch_reader import AnnotatedSlide, PatchReader
from wsi_ml.data.slide_patches import SlidePatches, spread_patches
from wsi_ml.data.tissue import TEST_SLIDES, read_tissue_set, split_patches
from wsi_ml.data.tissue_batches import TissueBatches, fixed_tissue
from wsi_ml.errors import BadRequestError
from wsi_ml.slides.library import Library
from wsi_ml.slides.reading import open_slide

PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class SourceOptions:
    """What a source is made from; each source reads the fields that concern it."""

    data: Path
    """Folder of the data sets; for `msu` and `slides` the folder with the slides, for `library` the library."""
    batch: int
    """Rows of a batch, of one rank."""
    side: int = 224
    """Side of a patch in stored pixels."""
    seed: int = 0
    part: str = "training"
    """`training` (endless, varied), `validation` or `test` (every patch once, unchanged)."""
    validation: tuple[str, ...] = ()
    """Slides, by name, kept out of the training for watching it."""
    test: tuple[str, ...] = ()
    """Slides, by name, kept out of both."""
    classes: tuple[str, ...] = ()
    """Classes in the order of the labels; () for all of the training slides, alphabetical."""
    class_chances: tuple[float, ...] = ()
    """Chances of the classes; () for all alike, but of paper A's five classes for those of its authors."""
    labelled_data: Path | None = None
    """Folder of the labelled source where two are joined and it has another one."""
    labelled_share: float = 0.5
    """Share of labelled rows where two sources are joined."""
    coefficient: float = COEFFICIENT
    """How far a region's chance goes with its area: −1 inversely, 0 not at all, 1 in proportion."""
    intersection: float = INTERSECTION
    """Share of a training patch that must lie in its region."""
    pairs: str = "store"
    """How a ×40 scan becomes a pair: `store` (kernel and JPEG of the store) or `levels` (its own levels)."""
    mpp: float | None = None
    """µm/px of slides that state none."""
    layer: str = ""
    """Name or id of the layer of `library`; the newest truth or annotation layer by default."""
    scan_tiles: int = 150
    """Tiles cut from each whole ×40 scan beside the tile sets, for `atlas`."""
    steps_per_epoch: int | None = None
    """Most batches an epoch."""
    patches_per_slide: int = 64
    """Patches of each validation or test slide, where there are no regions to cover; of each class, where there are."""
    stain: bool = True
    """Stains, sizes and light varied too, for `tissue-weak` and `atlas`."""
    augmentation: AugmentationSettings | None = None
    """Geometry and blur of a preset, in training."""


def open_source(name: str, options: SourceOptions) -> BatchSource:
    """The source of that name: a finite one (batches.FiniteSource) for the parts validation and test.

    Two names joined by `+` give rows of both in each training batch, in the share told; for the other parts, the second
    alone. Raises BadRequestError for an unknown name, part or slide, FileNotFoundError where data is not there,
    AnnotationFileError, RegionTooSmallError and IngestError for data that cannot be used: one sentence each.
    """
    if options.part not in PARTS:
        raise BadRequestError(f"There is no part {options.part!r}; there are {', '.join(PARTS)}.")
    if both := sorted(set(options.validation) & set(options.test)):
        raise BadRequestError(f"A slide is for validation and for the test: {', '.join(both)}.")
    if "+" in name:
        first, second = name.split("+", 1)
        beside = replace(options, data=options.labelled_data or options.data)
        if options.part != "training":
            return open_source(second, beside)
        pairs, labelled = shares(options.batch, options.labelled_share)
        return MixedBatches(
            open_source(first, replace(options, batch=pairs)), open_source(second, replace(beside, batch=labelled))
        )
    if name not in SOURCES:
        raise BadRequestError(f"There is no source {name!r}; there are {', '.join(SOURCES)}, and two joined by +.")
    return SOURCES[name](options)


def _atlas(options: SourceOptions) -> BatchSource:
    """Tiles at ×40 of many slides; pairs without classes."""
    held_out = options.validation + options.test
    if options.part != "training":
        return _fixed_atlas(options)
    slides = load_slides(options.data, held_out, options.scan_tiles, options.seed)
    per_tile = next(count for count in (4, 2, 1) if options.batch % count == 0)
    patches = PatchConfig(options.batch, per_tile, options.side)
    augmentation = AugmentConfig() if options.stain else AugmentConfig(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    return AtlasBatches(
        slides, patches, augmentation, options.seed, options.steps_per_epoch, options.augmentation
    )  # fmt: skip


def _fixed_atlas(options: SourceOptions) -> BatchSource:
    files, wanted = tile_files(options.data), _held_out(options)
    if not files:
        raise FileNotFoundError(f"{options.data} holds none of the ×40 tile sets.")
    _check_names(wanted, files)
    tiles = {slide: read_tiles(files[slide][: options.patches_per_slide]) for slide in wanted}
    return fixed_pairs(tiles, options.side, options.batch)


def _tissue_weak(options: SourceOptions) -> BatchSource:
    """Weakly labelled tissue at ×20; by default one slide is the test, and single-slide classes are split by place."""
    split = split_patches(read_tissue_set(options.data), options.test or TEST_SLIDES)
    if options.part == "training":
        return TissueBatches(
            split.training, options.batch, options.side, options.augmentation, options.seed,
            options.steps_per_epoch, options.stain,
        )  # fmt: skip
    patches = split.by_place if options.part == "validation" else split.by_slide
    return fixed_tissue(patches, options.side, options.batch)


def _msu(options: SourceOptions) -> BatchSource:
    """Slides and annotations in the layout of PATH-DT-MSU."""
    names = options.classes or checked_classes(_msu_slides(replace(options, part="training")))
    return _labelled(_msu_slides(options), replace(options, classes=names))


def _msu_slides(options: SourceOptions) -> list[AnnotatedSlide]:
    return annotated_slides(_msu_files(options), options.pairs, options.mpp)


def _msu_files(options: SourceOptions) -> list[SlideFiles]:
    if options.part == "test" and not options.test:
        return find_slides(options.data, "test")
    files = {found.slide.stem: found for found in find_slides(options.data, "train")}
    return [files[name] for name in _of_part(list(files), options)]


def _msu_unlabelled(options: SourceOptions) -> BatchSource:
    """The same slides without their annotations, in blocks."""
    return _unlabelled([_reader(found.slide, options) for found in _msu_files(options)], options)


def _slides(options: SourceOptions) -> BatchSource:
    """Any slides of a folder, in blocks."""
    if not options.data.is_dir():
        raise FileNotFoundError(f"There is no folder “{options.data.name}” with slides.")
    files = {path.stem: path for path in sorted(options.data.iterdir()) if path.suffix.lower() in SLIDE_ENDINGS}
    return _unlabelled([_reader(files[name], options) for name in _of_part(list(files), options)], options)


def _library(options: SourceOptions) -> BatchSource:
    """Slides of a library with the regions of a layer."""
    slides = {slide.pixels.name: slide for slide in annotated_library(options.data, options.layer)}
    training = [slides[name] for name in _of_part(list(slides), replace(options, part="training"))]
    names = options.classes or checked_classes(training)
    chosen = [slides[name] for name in _of_part(list(slides), options)]
    return _labelled(chosen, replace(options, classes=names))


def _library_unlabelled(options: SourceOptions) -> BatchSource:
    """Slides of a library, in blocks; without ×40 pictures, which the library does not keep."""
    slides = {slide.name: slide for slide in Library(options.data).slides()}
    return _unlabelled(
        library_pixels(options.data, [slides[name] for name in _of_part(list(slides), options)]), options
    )


SOURCES: dict[str, Callable[[SourceOptions], BatchSource]] = {
    "atlas": _atlas,
    "tissue-weak": _tissue_weak,
    "msu": _msu,
    "msu-unlabelled": _msu_unlabelled,
    "library": _library,
    "library-unlabelled": _library_unlabelled,
    "slides": _slides,
}


def _labelled(slides: Sequence[AnnotatedSlide], options: SourceOptions) -> BatchSource:
    """Training: class by chance, region by weight; else the dense grid, so many patches of each class."""
    if options.part != "training":
        return dense_patches(
            slides, options.batch, options.side, classes=options.classes, most=options.patches_per_slide or None,
            seed=options.seed,
        )  # fmt: skip
    chances = options.class_chances
    if not chances and options.classes == tuple(CLASS_CHANCES):
        chances = tuple(CLASS_CHANCES.values())
    return LabelledPatches(
        slides, options.batch, options.side, options.seed, classes=options.classes, class_chances=chances,
        coefficient=options.coefficient, intersection=options.intersection, augmentation=options.augmentation,
        length=options.steps_per_epoch,
    )  # fmt: skip


def _unlabelled(slides: Sequence[PatchReader], options: SourceOptions) -> BatchSource:
    if options.part != "training":
        return spread_patches(slides, options.batch, options.side, options.patches_per_slide, options.seed)
    return SlidePatches(
        slides, options.batch, options.side, options.seed, options.augmentation, options.steps_per_epoch
    )  # fmt: skip


def _reader(path: Path, options: SourceOptions) -> PatchReader:
    return PatchReader(open_slide(path), options.pairs, options.mpp)


def _held_out(options: SourceOptions) -> tuple[str, ...]:
    """The slides named for the part; raises BadRequestError where none are."""
    names = options.validation if options.part == "validation" else options.test
    if not names:
        raise BadRequestError(f"No slides are named for the part {options.part}.")
    return names


def _of_part(names: Sequence[str], options: SourceOptions) -> list[str]:
    """Slides of the part: those named for it, or for the training all the rest."""
    _check_names(options.validation + options.test, names)
    if options.part != "training":
        return list(_held_out(options))
    rest = [name for name in names if name not in options.validation + options.test]
    if not rest:
        raise BadRequestError("No slide is left for training.")
    return rest


def _check_names(wanted: Sequence[str], there: Sequence[str] | dict[str, list[Path]]) -> None:
    if unknown := [name for name in wanted if name not in there]:
        raise BadRequestError(
            f"The split names slides that are not there: {', '.join(unknown)}; there are {', '.join(there)}."
        )
