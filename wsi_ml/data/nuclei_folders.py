"""The published sets of nuclei with types, as they come: Lizard (Graham et al. 2021) and CoNIC (Graham et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wsi_ml.data.instance_files import NUCLEI_TYPES, FolderPicture, as_labels, as_types, read_rgb, read_table
from wsi_ml.errors import BadRequestError

try:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError
except ImportError:  # an extra: only Lizard's label files need it
    loadmat = None
    MatReadError = ValueError

MAT_KEYS = ("inst_map", "id", "class")
LIZARD_PARTS = {"1": "training", "2": "validation", "3": "test"}
"""The set's own thirds as the authors' first fold takes them: one to learn from, the next to watch."""


def read_lizard(folder: Path) -> list[FolderPicture]:
    """Pictures by stem anywhere below the folder, `Labels/<stem>.mat`, and `info.csv` with the set's own thirds.

    Raises FileNotFoundError for what is missing, BadRequestError for label files that cannot be read and without SciPy.
    """
    files = sorted(folder.rglob("*.mat"))
    if not files:
        raise FileNotFoundError(f"“{folder.name}” holds no Lizard labels (Labels/<picture>.mat).")
    if loadmat is None:
        raise BadRequestError("Lizard's label files need SciPy: pip install ocular-wsi[lizard].")
    images = {path.stem: path for path in folder.rglob("*.png") if "overlay" not in path.parent.name.lower()}
    alone = [path.stem for path in files if path.stem not in images]
    if alone:
        raise FileNotFoundError(f"“{folder.name}” lacks the file “{alone[0]}.png”.")
    tables = sorted(folder.rglob("info.csv"))
    rows = read_table(tables[0], ("Filename", "Split")) if tables else []
    parts = {row["Filename"].removesuffix(".png"): LIZARD_PARTS.get(row["Split"], "") for row in rows}
    found = []
    for file in files:
        labels, types = _read_mat(file)
        rgb = read_rgb(images[file.stem])
        part = parts.get(file.stem, "")
        found.append(FolderPicture(file.stem, file.stem, part, rgb, {"nuclei": labels}, {"nuclei": types}))
    return found


def _read_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(label map, types) of a MATLAB file; numbers of `id` need not follow each other."""
    try:
        values: dict[str, Any] = loadmat(path, variable_names=MAT_KEYS)
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError) as error:
        raise BadRequestError(f"“{path.name}” cannot be read as a MATLAB file of version 5.") from error
    missing = [key for key in MAT_KEYS if key not in values]
    if missing:
        raise BadRequestError(f"“{path.name}” lacks {missing[0]!r}; Lizard's files hold {', '.join(MAT_KEYS)}.")
    whole = values["inst_map"]
    labels = as_labels(whole.astype(np.int64) if _is_whole(whole) else whole, path.name)
    numbers, kinds = (np.ravel(values[key]).astype(np.int64) for key in ("id", "class"))
    if len(numbers) != len(kinds):
        raise BadRequestError(f"“{path.name}” has {len(numbers)} objects and {len(kinds)} classes.")
    wrong = kinds[(kinds < 1) | (kinds > len(NUCLEI_TYPES))]
    if len(wrong):
        raise BadRequestError(f"“{path.name}” has an object of class {wrong[0]}; classes are 1 to {len(NUCLEI_TYPES)}.")
    used = np.unique(labels)
    unknown = np.setdiff1d(used[used > 0], numbers)
    if len(unknown):
        raise BadRequestError(f"Object {unknown[0]} of “{path.name}” has no class.")
    by_number = np.zeros(max(int(used.max(initial=0)), int(numbers.max(initial=0))) + 1, np.int64)
    by_number[numbers] = kinds
    return labels, as_types(by_number[labels], labels, NUCLEI_TYPES, path.name)


def _is_whole(values: np.ndarray) -> bool:
    """MATLAB keeps whole numbers as doubles too."""
    return bool(np.issubdtype(values.dtype, np.floating) and (values == np.floor(values)).all())


def read_conic(folder: Path) -> list[FolderPicture]:
    """`images.npy` N×H×W×3, `labels.npy` N×H×W×2 (instances, types) and `patch_info.csv`, a name a patch.

    A patch `consep_1-0003` is of the picture `consep_1`. Raises FileNotFoundError, BadRequestError.
    """
    images, labels = (_read_array(folder / name) for name in ("images.npy", "labels.npy"))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise BadRequestError(f"“images.npy” holds {images.dtype} {images.shape}, not uint8 N×H×W×3.")
    if labels.shape != (*images.shape[:3], 2):
        raise BadRequestError(
            f"“labels.npy” is {labels.shape} and “images.npy” {images.shape}; labels are N×H×W×2 of the same N, H, W."
        )
    names = _patch_names(folder / "patch_info.csv", len(images))
    return list(_conic_pictures(images, labels, names))


def _patch_names(table: Path, count: int) -> list[str]:
    if not table.is_file():
        raise FileNotFoundError(f"“{table.parent.name}” lacks the file “{table.name}”.")
    names = [row["patch_info"] for row in read_table(table, ("patch_info",))]
    if len(names) != count:
        raise BadRequestError(f"“{table.name}” names {len(names)} patches; there are {count}.")
    return names


def _conic_pictures(images: np.ndarray, labels: np.ndarray, names: list[str]) -> Iterator[FolderPicture]:
    for rgb, both, name in zip(images, labels, names, strict=True):
        instances = as_labels(both[..., 0], name)
        types = as_types(both[..., 1], instances, NUCLEI_TYPES, name)
        slide = name.rpartition("-")[0] or name
        yield FolderPicture(name, slide, "", np.array(rgb), {"nuclei": instances}, {"nuclei": types})


def _read_array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"“{path.parent.name}” lacks the file “{path.name}”.")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadRequestError(f"“{path.name}” cannot be read as one array of numbers.") from error
