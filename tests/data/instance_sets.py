"""Small folders in the layouts of GlaS, CRAG, Lizard, CoNIC and our own, drawn: discs whose instances are known."""

import csv

import numpy as np
from PIL import Image

from tests.data.task_circles import circles_picture


def drawn(seed, task="nuclei", side=48):
    """(rgb, labels uint16, types 1 or 2 of each number)."""
    picture = circles_picture(task, seed, side)
    kinds = np.array([0, *(1 + number % 2 for number in range(int(picture.labels.max())))])
    return picture.rgb, picture.labels.astype(np.uint16), kinds


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_table(path, columns, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def write_glas(folder, names=("train_1", "train_2", "train_3", "train_4", "testA_1", "testB_1"), grades=True):
    """Patients of two training pictures each; grades by turns, as the published table spells them."""
    for number, name in enumerate(names):
        rgb, labels, _ = drawn(number, "gland")
        save(folder / f"{name}.bmp", rgb)
        save(folder / f"{name}_anno.bmp", labels.astype(np.uint8))
    if grades:
        rows = [[name, f" {1 + number // 2}", f" {('benign', 'malignant')[number % 2]}", " healthy"]
                for number, name in enumerate(names)]  # fmt: skip
        columns = ["name", " patient ID", " grade (GlaS)", " grade (Sirinukunwattana et al. 2015)"]
        write_table(folder / "Grade.csv", columns, rows)
    return folder


def write_crag(folder, counts=(5, 2)):
    for part, stem, count in (("train", "train", counts[0]), ("valid", "test", counts[1])):
        for number in range(count):
            rgb, labels, _ = drawn(number, "gland")
            save(folder / part / "Images" / f"{stem}_{number}.png", rgb)
            save(folder / part / "Annotation" / f"{stem}_{number}.png", labels.astype(np.uint8))
    return folder


def lizard_values(seed):
    """What a label file holds: numbers with gaps, classes 1 and 2, doubles, as MATLAB writes them."""
    _, labels, kinds = drawn(seed)
    numbers = np.unique(labels)[1:].astype(int)
    return {
        "inst_map": labels.astype(float) * 3, "id": (numbers * 3.0)[:, None], "class": kinds[numbers][:, None] * 1.0,
        "centroid": np.zeros((len(numbers), 2)),
    }  # fmt: skip


def write_conic(folder, count=6):
    folder.mkdir(parents=True, exist_ok=True)
    rows = [drawn(number) for number in range(count)]
    np.save(folder / "images.npy", np.stack([rgb for rgb, _, _ in rows]))
    both = [np.stack([labels, kinds[labels]], -1) for _, labels, kinds in rows]
    np.save(folder / "labels.npy", np.stack(both).astype(np.uint16))
    names = [[f"consep_{number // 2}-000{number % 2}"] for number in range(count)]
    write_table(folder / "patch_info.csv", ["patch_info"], names)
    return folder


def write_own(folder, count=4):
    """Pictures 0… with nuclei and types; the even ones with glands and, inside them, lumina."""
    for number in range(count):
        rgb, labels, kinds = drawn(number)
        save(folder / "images" / f"{number}.png", rgb)
        save(folder / "nuclei" / f"{number}.png", labels)
        save(folder / "nuclei_types" / f"{number}.png", kinds[labels].astype(np.uint8))
        if number % 2 == 0:
            save(folder / "glands" / f"{number}.png", labels)
            save(folder / "lumina" / f"{number}.png", np.roll(labels, 1, 0) * (labels > 0))
    parts = ("training", "training", "validation", "test")
    rows = [[f"{number}.png", f"slide-{number}", parts[number % 4], "teacher"] for number in range(count)]
    write_table(folder / "pictures.csv", ["file", "slide", "part", "labels"], rows)
    return folder
