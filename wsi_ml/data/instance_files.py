"""Pictures with label maps as files hold them: reading, and what a picture of a folder is.

A label map holds 0 outside and another number for each instance, in one channel of 8 or 16 bits.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from wsi_ml.data.task_pictures import TaskPicture
from wsi_ml.errors import BadRequestError

NUCLEI_TYPES = ("Neutrophil", "Epithelial nucleus", "Lymphocyte", "Plasma cell", "Eosinophil", "Connective nucleus")
"""Types 1 to 6 of nuclei in Lizard and CoNIC (Graham et al. 2021), and in paper C."""
GLAND_TYPES = ("Gland", "Surface epithelium")
"""Types 1 and 2 of glands in paper C."""
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
LABEL_KINDS = ("exact", "hand", "weak", "teacher")
"""How labels were made; scores against those of a teacher are agreement with a model, not accuracy."""


@dataclass(frozen=True)
class FolderPicture:
    """A picture at 0.5 µm and all that a set knows of it."""

    name: str
    slide: str
    """Pictures of one slide, or patient, are never on both sides of a split that Ocular makes."""
    part: str
    """training, validation or test as the set has it; "" where it does not say."""
    rgb: np.ndarray
    """uint8 H×W×3."""
    labels: Mapping[str, np.ndarray]
    """int32 H×W label maps by task; a task that is not there is not known of this picture."""
    types: Mapping[str, np.ndarray] = field(default_factory=dict)
    """uint8 H×W by task: type of each pixel's instance from 1, 0 outside and where nobody knows."""
    kind: str = "hand"
    """How its labels were made, one of LABEL_KINDS."""

    def of(self, task: str) -> TaskPicture:
        """The picture for one of its tasks; raises BadRequestError where sizes differ."""
        return TaskPicture(self.name, self.rgb, self.labels[task], self.types.get(task))


def read_rgb(path: Path) -> np.ndarray:
    """uint8 H×W×3 of a picture file; raises FileNotFoundError and BadRequestError naming the file."""
    return _opened(path, "RGB")


def read_label_map(path: Path) -> np.ndarray:
    """int32 H×W of a file with one channel of whole numbers; raises FileNotFoundError, BadRequestError."""
    values = _opened(path, "")
    if values.ndim != 2 or values.dtype == bool or not np.issubdtype(values.dtype, np.integer):
        raise BadRequestError(
            f"The label map “{path.name}” holds {values.dtype} {values.shape}, not one channel of 8 or 16 bits with "
            "another number for each instance."
        )
    return as_labels(values, path.name)


def as_labels(values: np.ndarray, name: str) -> np.ndarray:
    """A label map as int32; raises BadRequestError for numbers that are not whole or are below 0."""
    if not np.issubdtype(values.dtype, np.integer):
        raise BadRequestError(f"The label map of “{name}” holds {values.dtype}, not whole numbers.")
    if values.size and int(values.min()) < 0:
        raise BadRequestError(f"The label map of “{name}” has the number {int(values.min())}; instances are from 1 up.")
    return values.astype(np.int32)


def as_types(values: np.ndarray, labels: np.ndarray, names: Sequence[str], name: str) -> np.ndarray:
    """Types uint8 within the instances; raises BadRequestError for another size or a number that is no type."""
    if values.shape != labels.shape:
        raise BadRequestError(
            f"The label map of “{name}” is {labels.shape[1]} × {labels.shape[0]} px and its types "
            f"{values.shape[-1]} × {values.shape[0]}; they must be of one size."
        )
    highest = int(values.max(initial=0))
    if highest > len(names) or int(values.min(initial=0)) < 0:
        wrong = highest if highest > len(names) else int(values.min())
        raise BadRequestError(
            f"“{name}” has an instance of type {wrong}; types are 1 to {len(names)} ({', '.join(names)})."
        )
    return np.where(labels > 0, values, 0).astype(np.uint8)


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file, names and values without blanks around them; BadRequestError where a column is missing."""
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines)
        names = [(name or "").strip() for name in reader.fieldnames or ()]
        missing = [column for column in columns if column not in names]
        if missing:
            raise BadRequestError(f"The table {path.name} has no column {missing[0]!r}.")
        reader.fieldnames = names
        return [{key: (value or "").strip() for key, value in row.items() if isinstance(key, str)} for row in reader]


def pictures_of(folder: Path) -> list[Path]:
    """The picture files of a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS) if folder.is_dir() else []


def _opened(path: Path, mode: str) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"“{path.parent.name}” lacks the file “{path.name}”.")
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert(mode) if mode else picture)
    except (OSError, UnidentifiedImageError) as error:
        raise BadRequestError(f"“{path.name}” cannot be read as a picture.") from error
