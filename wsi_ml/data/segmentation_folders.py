"""Layouts that pixel and picture labels come in: folders of pictures with masks, and slides as CAMELYON has them."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import shapely
from PIL import Image, UnidentifiedImageError

from wsi_ml.data.batches import NO_CLASS
from wsi_ml.data.camelyon import CamelyonSlide, camelyon_regions, find_camelyon
from wsi_ml.data.patch_reader import PatchReader
from wsi_ml.data.pixel_batches import LabelledPicture, check_picture, class_of_mask
from wsi_ml.data.slide_patches import TissuePlaces
from wsi_ml.errors import BadRequestError
from wsi_ml.slides.reading import open_slide

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
TABLE = "pictures.csv"
PARTS = ("training", "validation", "test")
UNLABELLED_VALUE = 255
"""Value of a mask file's pixels that have no label."""
TUMOUR_CLASSES = ("Normal", "Tumour")
TUMOUR_SHARE = 0.5
"""Share of a tumour slide's pictures that are laid over tumour: it is a small part of most of these slides."""


def read_folder(folder: Path, classes: Sequence[str]) -> list[tuple[LabelledPicture, str]]:
    """(picture, part) of `images/`, `masks/` and `pictures.csv`, by name; the part is "" where the table names none.

    `masks/<stem>.png` holds class numbers, 255 for no label. The table has the columns file and label (name or number
    of a class, empty for none) and may have slide and part (training, validation, test). Masks and table may be
    missing, but not both for one picture. Raises FileNotFoundError, BadRequestError.
    """
    if not (folder / "images").is_dir():
        raise FileNotFoundError(f"“{folder.name}” holds no folder images.")
    images = sorted(path for path in (folder / "images").iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
    if not images:
        raise BadRequestError(f"The folder images of “{folder.name}” holds no pictures ({', '.join(IMAGE_ENDINGS)}).")
    masks = {path.stem: path for path in (folder / "masks").glob("*.png")}
    alone = sorted(masks.keys() - {path.stem for path in images})
    if alone:
        raise BadRequestError(f"The mask “{alone[0]}.png” has no picture of that name in images.")
    table = _table(folder / TABLE, {path.name for path in images})
    rows = [_read(path, masks.get(path.stem), table.get(path.name, {}), classes) for path in images]
    known = [picture.mask for picture, _ in rows if picture.mask is not None]
    # One such mask is a picture of nothing but the first class; a folder of them was written as 0 and 255.
    if any((mask == NO_CLASS).any() for mask in known) and not any((mask > 0).any() for mask in known):
        raise BadRequestError(
            f"The masks of “{folder.name}” hold only 0 and 255, and 255 means no label: write classes as 0, 1 …"
        )
    return rows


def _table(path: Path, images: set[str]) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        if not {"file", "label"} <= set(reader.fieldnames or ()):
            raise BadRequestError(f"{TABLE} needs the columns file and label.")
        rows = {row["file"]: row for row in reader}
    unknown = sorted(rows.keys() - images)
    if unknown:
        raise BadRequestError(f"{TABLE} names “{unknown[0]}”, which is not in images.")
    return rows


def _read(
    path: Path, mask_path: Path | None, row: dict[str, str], classes: Sequence[str]
) -> tuple[LabelledPicture, str]:
    label = _class_of(row.get("label") or "", path.name, classes)
    part = row.get("part") or ""
    if part and part not in PARTS:
        raise BadRequestError(f"{TABLE} puts “{path.name}” into part {part!r}; parts are {', '.join(PARTS)}.")
    if mask_path is None and label == NO_CLASS:
        raise BadRequestError(f"“{path.name}” has neither a mask nor a class in {TABLE}.")
    mask = None if mask_path is None else _read_mask(mask_path, len(classes))
    picture = LabelledPicture(path.stem, row.get("slide") or path.stem, _pixels(path, "RGB"), mask, label)
    return check_picture(picture, len(classes)), part


def _class_of(text: str, name: str, classes: Sequence[str]) -> int:
    text = text.strip()
    if not text:
        return NO_CLASS
    if text in classes:
        return list(classes).index(text)
    if text.isascii() and text.isdigit() and int(text) < len(classes):
        return int(text)
    raise BadRequestError(f"{TABLE} gives “{name}” the class {text!r}; classes are {', '.join(classes)}.")


def _read_mask(path: Path, classes: int) -> np.ndarray:
    values = _pixels(path, "")
    if values.ndim != 2 or values.dtype != np.uint8:
        raise BadRequestError(f"The mask “{path.name}” is no 8-bit picture of one channel.")
    found = set(np.unique(values).tolist())
    wrong = sorted(value for value in found if value >= classes and value != UNLABELLED_VALUE)
    if wrong:
        raise BadRequestError(f"The mask “{path.name}” has the value {wrong[0]}; classes are 0 to {classes - 1}.")
    return np.where(values == UNLABELLED_VALUE, NO_CLASS, values).astype(np.int8)


def _pixels(path: Path, mode: str) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert(mode) if mode else picture)
    except (OSError, UnidentifiedImageError) as error:
        raise BadRequestError(f"“{path.name}” cannot be read as a picture.") from error


# -- slides --------------------------------------------------------------------------------------------------------


def known_slides(folder: Path) -> list[CamelyonSlide]:
    """Slides of a CAMELYON folder whose pixels have labels: those with outlines, and those told to be normal."""
    slides = [each for each in find_camelyon(folder) if each.annotation is not None or each.is_tumour is False]
    if not slides:
        raise BadRequestError(
            f"No slide of “{folder.name}” has outlines (<name>.xml) or is told to be normal (normal_…, stages.csv)."
        )
    return slides


def slide_pictures(
    slides: Sequence[CamelyonSlide], side: int, per_slide: int, seed: int, present: float = 0.0,
    mpp: float | None = None,
) -> Iterator[LabelledPicture]:  # fmt: skip
    """`per_slide` pictures of tissue of each slide at ×20, drawn once with `seed`; classes as TUMOUR_CLASSES.

    On a slide with outlines, half of them are laid over tumour. What is not outlined is normal, glass too. Raises
    BadRequestError for a slide that shows no tissue, states no µm/px or is smaller than a picture.
    """
    for number, found in enumerate(slides):
        pixels = PatchReader(open_slide(found.slide), "store", mpp)
        tumour: list[shapely.Polygon] = []
        if found.annotation is not None:
            tumour, _ = camelyon_regions(found.annotation, pixels.outline_size, pixels.region_scale)
        rng = np.random.default_rng([seed, number])
        places, near = TissuePlaces(pixels, side), shapely.STRtree(tumour)
        over = round(TUMOUR_SHARE * per_slide) if tumour else 0
        for count in range(per_slide):
            if count < over:
                x, y = _place_over(tumour, pixels, side, rng)
                read = pixels.read(x, y, side)
            else:
                _, x, y, read = places.draw(places.block(rng), rng)
            mask = mask_at([tumour[each] for each in near.query(shapely.box(x, y, x + side, y + side))], x, y, side)
            name = f"{found.slide.stem}-{x}-{y}"
            yield LabelledPicture(name, found.slide.stem, read.finished()[0], mask, class_of_mask(mask, present))
        pixels.reader.close()


def mask_at(regions: Sequence[shapely.Polygon], x: int, y: int, side: int) -> np.ndarray:
    """int8 side×side: 1 where a pixel's centre is in a region, else 0; the corner x, y in the regions' plane."""
    mask = np.zeros((side, side), np.int8)
    columns, rows = np.meshgrid(np.arange(x, x + side) + 0.5, np.arange(y, y + side) + 0.5)
    for region in regions:
        mask[shapely.contains_xy(region, columns, rows)] = 1
    return mask


def _place_over(
    regions: Sequence[shapely.Polygon], pixels: PatchReader, side: int, rng: np.random.Generator
) -> tuple[int, int]:  # fmt: skip
    """Corner of a picture whose middle lies anywhere within the bounds of a region, large ones more often."""
    areas = np.array([region.area for region in regions])
    left, top, right, bottom = regions[int(rng.choice(len(regions), p=areas / areas.sum()))].bounds
    x, y = rng.uniform(left, right) - side / 2, rng.uniform(top, bottom) - side / 2
    return (
        int(np.clip(x, 0, pixels.size.width - side)),
        int(np.clip(y, 0, pixels.size.height - side)),
    )
