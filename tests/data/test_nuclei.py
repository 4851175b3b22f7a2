"""Nuclei: reading the hand-made set, targets of hand-made squares, drawn scenes with exact truth."""

import csv

import numpy as np
import pytest
import shapely
from PIL import Image

from wsi_ml.data import nuclei
from wsi_ml.geometry import Size


def squares(*boxes, size=(20, 24)):
    """Label map of (y, x, height, width) boxes, numbered in order."""
    labels = np.zeros(size, np.int32)
    for number, (y, x, height, width) in enumerate(boxes, start=1):
        labels[y : y + height, x : x + width] = number
    return labels


def test_a_square_alone_has_a_rim_of_one_pixel_and_the_rest_inside():
    (interior, rim), touching = nuclei.targets(squares((4, 5, 6, 8)))
    assert interior.sum() == 4 * 6 and rim.sum() == 6 * 8 - 4 * 6
    assert interior[5:9, 6:12].all() and rim[4, 5:13].all() and rim[9, 5:13].all()
    assert not (interior & rim).any() and not touching.any()


def test_interior_and_rim_together_are_the_nuclei():
    labels = squares((1, 1, 7, 7), (1, 8, 7, 7), (10, 4, 5, 12))
    (interior, rim), _ = nuclei.targets(labels)
    assert ((interior + rim) == (labels > 0)).all()


def test_two_touching_squares_keep_two_rim_pixels_between_their_interiors():
    (interior, rim), touching = nuclei.targets(squares((4, 2, 6, 6), (4, 8, 6, 6)))
    assert interior[6, 3:7].all() and interior[6, 9:13].all()
    assert rim[6, 7:9].all() and not interior[6, 7:9].any()
    # Both squares lie within two pixels of the pixels of columns 6 to 9.
    assert touching[6].nonzero()[0].tolist() == [6, 7, 8, 9]


def test_squares_five_pixels_apart_do_not_touch():
    _, touching = nuclei.targets(squares((4, 2, 6, 6), (4, 13, 6, 6)))
    assert not touching.any()


def test_the_border_of_the_picture_makes_no_rim():
    (interior, rim), _ = nuclei.targets(squares((0, 0, 5, 5)))
    assert interior.sum() == 16 and rim.sum() == 9 and not rim[0, :4].any()


def test_diameter_is_that_of_a_circle_of_the_median_area():
    labels = squares((0, 0, 4, 4), (6, 0, 4, 4), (0, 8, 10, 10))
    picture = nuclei.NucleiPicture("x", np.zeros((20, 24, 3), np.uint8), labels)
    assert picture.diameter() == pytest.approx(np.sqrt(4 * 16 / np.pi))
    assert picture.count() == 3
    assert nuclei.NucleiPicture("y", picture.rgb, labels * 0).diameter() == 0.0


def test_outlines_own_the_pixels_whose_centres_they_hold():
    outlines = np.array([shapely.box(1.4, 1.4, 4.6, 3.6), shapely.box(7.6, 0, 30, 30)], dtype=object)
    labels = nuclei.label_outlines(outlines, Size(10, 6))
    assert (labels[1:4, 1:5] == 1).sum() == 3 * 4 and (labels == 1).sum() == 12
    assert (labels[:, 8:] == 2).all() and (labels == 2).sum() == 12


def test_a_drawn_part_shows_its_nuclei_where_its_truth_says():
    (part,) = nuclei.draw_parts(3, 1)
    picture = part.picture
    assert picture.rgb.shape == part.bare.shape == (512, 512, 3) and picture.labels.shape == (512, 512)
    assert picture.count() > 80
    changed = np.abs(picture.rgb.astype(int) - part.bare.astype(int)).sum(axis=2) > 60
    inside = picture.labels > 0
    assert changed[inside].mean() > 0.95 and changed[~inside].mean() < 0.06


def test_a_drawn_part_is_the_same_every_time():
    assert (nuclei.draw_parts(3, 1)[0].picture.rgb == nuclei.draw_parts(3, 1)[0].picture.rgb).all()


def test_reading_keeps_pixels_and_numbers(tmp_path):
    folder = tmp_path / nuclei.HAND_SET
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rgb, labels = np.full((6, 8, 3), 200, np.uint8), np.zeros((6, 8), np.uint16)
    labels[1:3, 1:3] = 700
    Image.fromarray(rgb).save(folder / "images" / "a.png")
    Image.fromarray(labels).save(folder / "labels" / "a.png")
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "group"], ["a", "white-bg"]])
    pictures = nuclei.read_hand_set(tmp_path)
    assert list(pictures) == ["a"] and pictures["a"].labels.max() == 700 and pictures["a"].labels.dtype == np.int32
    with pytest.raises(FileNotFoundError, match=nuclei.HAND_SET):
        nuclei.read_hand_set(tmp_path / "nowhere")


def test_no_held_out_picture_is_in_two_parts():
    assert len(set(nuclei.TEST) | set(nuclei.VALIDATION)) == 15 + 7
