"""Sets, scores, figures and report of an evaluation, each by itself."""

import numpy as np
import pytest

from train import figures, report, scoring
from train.candidates import Candidate
from train.held_out import CODES, PairSet, PatchSet, places_of, source_pairs, source_patches
from wsi_ml.data.batches import make_batch
from wsi_ml.errors import BadRequestError, ModelOutputError


class Grid:
    """A test source of twelve patches of two slides: class, ×40 picture and slide by the patch's number."""

    classes = ("AT", "BG")

    def __len__(self):
        return 3

    def batch(self, index):
        numbers = range(4 * index, 4 * index + 4)
        stored = [np.full((16, 16, 3), number, np.uint8) for number in numbers]
        base = [np.full((32, 32, 3), number, np.uint8) if number != 2 else None for number in numbers]
        return make_batch(stored, base, [number % 2 if number < 10 else -1 for number in numbers])

    def slides_of(self, index):
        return ("one",) * 4 if index < 2 else ("two",) * 4


def test_pairs_of_a_source_are_so_many_of_each_class_and_none_of_those_left_out():
    pairs = source_pairs(Grid(), "grid", "", ("s",), 3, ["BG"], seed=0)
    assert pairs.groups == ("AT", "two") and pairs.slides == ("s",)
    numbers = [int(stored[0, 0, 0]) for stored, _ in pairs.read("AT")]
    assert len(numbers) == 3 and set(numbers) <= {0, 4, 6, 8}, "2 has no ×40 picture"
    assert [int(base[0, 0, 0]) for _, base in pairs.read("AT")] == numbers
    assert [int(stored[0, 0, 0]) for stored, _ in pairs.read("two")] == [10, 11]
    again = source_pairs(Grid(), "grid", "", (), 3, ["BG"], seed=0)
    assert [int(stored[0, 0, 0]) for stored, _ in again.read("AT")] == numbers


def test_every_patch_is_as_likely_to_be_taken():
    counts = np.zeros(12)
    for seed in range(600):
        pairs = source_pairs(Grid(), "grid", "", (), 1, ["BG", "two"], seed)
        counts[int(pairs.read("AT")[0][0][0, 0, 0])] += 1
    assert counts[[0, 4, 6, 8]] == pytest.approx(np.full(4, 150), abs=45)


def candidate(tell, classes=("AT", "BG"), **more):
    return Candidate("judge", "judge", {}, tell=tell, classes=classes, **more)


def even_odd(pictures):
    """Sure of BG for odd numbers, but takes 4 for BG as well."""
    number = pictures[:, 0, 0, 0]
    return np.eye(2, dtype=np.float32)[np.where(number == 4, 1, number % 2)]


def test_classes_are_counted_over_all_labelled_rows():
    row = scoring.patches_json(candidate(even_odd), source_patches(Grid(), "grid", "words", ()))
    assert row["patches"] == 10 and row["confusion"]["rows"] == [[4, 1], [0, 5]]
    assert row["recall"] == {"AT": 0.8, "BG": 1.0} and row["balanced_accuracy"] == 0.9
    assert row["brier"] == pytest.approx(0.2) and row["calibration_error"] == pytest.approx(0.1)


def test_a_model_may_count_the_classes_otherwise():
    row = scoring.patches_json(
        candidate(lambda pictures: even_odd(pictures)[:, ::-1], ("BG", "AT")), source_patches(Grid(), "grid", "", ())
    )
    assert row["confusion"] == {"classes": ["BG", "AT"], "rows": [[5, 0], [1, 4]]}


def test_tissue_classes_go_by_name_and_by_code():
    names = ("Collagen stroma", "Adipose", "something else")
    known, places = places_of(PatchSet("", "", CODES, lambda: iter(())), names)
    assert known == ("STR", "ADI", "something else")
    assert dict(zip(CODES, places.tolist(), strict=True))["STR"] == 0 and places[CODES.index("LYM")] == -1


@pytest.mark.parametrize(
    ("judge", "error", "sentence"),
    [
        (candidate(even_odd, ("AT", "X")), BadRequestError, "judge tells no class BG; it tells AT, X."),
        (candidate(even_odd, ("AT", "BG", "X")), ModelOutputError, "gave 2 probabilities a patch; its list of classes"),
        (candidate(even_odd, picture="base"), BadRequestError, "from ×40 pixels; grid has none"),
    ],
)
def test_a_model_that_does_not_fit_the_set_is_refused(judge, error, sentence):
    with pytest.raises(error, match=sentence):
        scoring.patches_json(judge, source_patches(Grid(), "grid", "", ()))


def test_a_source_without_classes_is_no_patch_set():
    source = Grid()
    source.classes = ()
    assert source_patches(source, "grid", "", ()) is None


def test_scores_are_means_over_pictures_and_equal_pictures_have_no_psnr():
    flat = np.full((8, 8, 3), 100, np.uint8)
    pairs = [(flat, np.full((16, 16, 3), 100 + error, np.uint8)) for error in (1, 2, 4)]
    read = {"a": pairs, "b": [(flat, np.full((16, 16, 3), 100, np.uint8))]}
    held = PairSet("flat", "words", ("a", "b"), read.__getitem__)
    plain = scoring.score_pairs(lambda rgb: rgb.repeat(2, 0).repeat(2, 1), held)
    assert plain[0].median_picture() == 1
    value = scoring.pairs_json(held, plain, plain)
    by_hand = [10 * np.log10(255**2 / error**2) for error in (1, 2, 4)]
    assert value["slides"][0]["model"]["psnr"] == pytest.approx(np.mean(by_hand), abs=1e-5)
    assert value["slides"][1]["model"] == {
        "psnr": None, "ssim": 1.0, "psnr_luma": None, "ssim_gaussian": 1.0, "ssim_luma": 1.0,
    }  # fmt: skip
    assert value["mean"]["pictures"] == 4 and value["mean"]["bicubic"]["psnr"] is None


def test_an_error_map_is_black_at_zero_and_brightest_from_the_stated_top_on():
    scan = np.zeros((2, 3, 3), np.uint8)
    picture = scan.copy()
    picture[0, 1], picture[0, 2], picture[1, 2] = figures.ERROR_TOP, 255, figures.ERROR_TOP // 2
    made = figures.error_map(picture, scan).astype(int)
    assert made[0, 0].sum() < 10 and (made[0, 1] == made[0, 2]).all() and made[0, 1].min() > 150
    assert made[0, 0].sum() < made[1, 2].sum() < made[0, 1].sum()


def test_the_busiest_window_is_where_the_structure_is():
    scan = np.full((256, 256, 3), 240, np.uint8)
    scan[140:240:4, 70:180] = 40
    assert figures.busiest(scan) == (64, 128)


def test_the_comparison_shows_the_pixels_of_its_crops():
    rng = np.random.default_rng(0)
    scan = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    sheet = figures.comparison([figures.Crop("one", scan, scan, scan), figures.Crop("two", scan, scan, scan)], "net")
    large = scan.repeat(figures.ZOOM, 0).repeat(figures.ZOOM, 1)
    top = figures.MARGIN + 2 * figures.LINE
    for place in range(3):
        left = figures.MARGIN + place * (256 + figures.GAP)
        assert (sheet[top : top + 256, left : left + 256] == large).all()


def test_confusion_and_reliability_pictures_show_what_they_count():
    picture = figures.confusion_picture(["AT", "BG"], [[90, 10], [0, 0]])
    right, wrong, empty = (picture[74 + y, 150 + x] for x, y in ((5, 5), (83, 5), (5, 83)))
    assert right[0] < 80 and wrong[0] > 200 and (empty == 255).all()
    bins = [
        {"low": 0.0, "high": 0.5, "count": 0, "confidence": None, "accuracy": None},
        {"low": 0.5, "high": 1.0, "count": 8, "confidence": 0.75, "accuracy": 0.5},
    ]
    drawn = figures.reliability_picture(bins, 0.25)
    column = drawn[60:360, 58 + 200]  # beside where the diagonal crosses the gap
    assert (column == figures.BLUE).all(axis=1).sum() == pytest.approx(150, abs=3)
    assert (column == figures.RED).all(axis=1).sum() == 4, "both ends of the gap"


def test_numbers_are_printed_as_the_paper_prints_them():
    assert report.number(0.8999, 3) == ".900" and report.number(1.0, 3) == "1.000" and report.number(None, 2) == "–"
    assert report.number(31.824, 2) == "31.82"
