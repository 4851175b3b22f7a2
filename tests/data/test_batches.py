"""Sources without slides: pairs of tiles, weak tissue, both joined; the same batches whoever makes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.presets import AUTHORS_CODE, PAPER
from wsi_ml.data.atlas_batches import AtlasBatches, FixedPatches, fixed_pairs
from wsi_ml.data.augment import AugmentConfig
from wsi_ml.data.batch_dataset import BatchDataset, batch_loader
from wsi_ml.data.batches import batches_an_epoch, joined, make_batch
from wsi_ml.data.mixed_batches import MixedBatches, shares
from wsi_ml.data.pairs import PatchConfig, store_pixels
from wsi_ml.data.tissue import TissuePatch
from wsi_ml.data.tissue_batches import CLASS_NAMES, TissueBatches, fixed_tissue
from wsi_ml.errors import BadRequestError
from wsi_ml.slides.kernel import halve_pixels


def tiles(count: int, side: int = 128, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(60, 200, (side, side, 3), dtype=np.uint8) for _ in range(count)]


def atlas(batch: int = 8, seed: int = 3, **options) -> AtlasBatches:
    slides = {"one": tiles(3), "two": tiles(2, seed=1)}
    return AtlasBatches(slides, PatchConfig(batch, 4, 24), AugmentConfig(), seed, **options)


def tissue(seed: int = 5, **options) -> TissueBatches:
    rng = np.random.default_rng(0)
    patches = [
        TissuePatch(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8), label, "s", 0, 0)
        for label in (0, 1, 2, 5)
        for _ in range(3)
    ]
    return TissueBatches(patches, 6, options.pop("side", 24), options.pop("augmentation", None), seed, **options)


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# -- batches -------------------------------------------------------------------------------------------------------


def test_rows_without_a_base_are_black_and_say_so():
    small, large = tiles(2, 4), tiles(1, 8)
    batch = make_batch(small, [large[0], None], [2, -1])
    assert batch.has_base.tolist() == [True, False] and batch.labels.tolist() == [2, -1]
    assert (batch.stored.dtype, batch.base.dtype, batch.labels.dtype) == (np.uint8, np.uint8, np.int64)
    assert np.array_equal(batch.base[0], large[0]) and not batch.base[1].any()
    assert joined([batch, batch]).stored.shape == (4, 4, 4, 3)
    with pytest.raises(BadRequestError, match=r"×40 patch of 4 × 4 px does not belong to a ×20 patch of 4 × 4"):
        make_batch(small, [small[0], None], [0, 0])


def test_batches_an_epoch():
    assert batches_an_epoch(100.9, 10) == 10 and batches_an_epoch(3, 10) == 1
    assert batches_an_epoch(1e6, 10, 2000) == 2000


# -- sources -------------------------------------------------------------------------------------------------------


def test_atlas_pairs():
    source = atlas()
    batch = source.batch(5)
    assert batch.stored.shape == (8, 24, 24, 3) and batch.base.shape == (8, 48, 48, 3)
    assert batch.has_base.all() and (batch.labels == -1).all() and source.classes == ()
    assert np.abs(batch.stored.astype(int) - [halve_pixels(each) for each in batch.base]).mean() < 12
    assert len(source) == 5 * 128 * 128 // 48**2 // 8 and len(atlas(length=2)) == 2
    with pytest.raises(BadRequestError, match="multiple of 4"):
        atlas(6)


def test_blur_of_the_preset_on_pairs():
    plain = atlas().batch(0)
    paper = atlas(blur=PAPER.stage_one.augmentation).batch(0)
    both = atlas(blur=AUTHORS_CODE.stage_two.augmentation).batch(0)
    changed = (paper.stored != plain.stored).any((1, 2, 3))
    assert 0 < changed.sum() < 8 and np.array_equal(paper.base, plain.base)
    assert np.array_equal((both.base != plain.base).any((1, 2, 3)), (both.stored != plain.stored).any((1, 2, 3)))


def test_tissue_rows():
    source = tissue()
    rows = [source.batch(index) for index in range(60)]
    assert rows[0].stored.shape == (6, 24, 24, 3) and not any(batch.has_base.any() for batch in rows)
    counts = np.bincount(np.concatenate([batch.labels for batch in rows]), minlength=6)
    assert counts[[3, 4]].sum() == 0 and counts[[0, 1, 2, 5]].min() > 60  # 90 of each are expected
    assert source.classes == CLASS_NAMES and len(source) == 2
    plain = tissue(side=224, stain=False)
    rgb, label = plain.batch(0).stored[0], plain.batch(0).labels[0]
    assert any((rgb == each.rgb).all() for each in plain.sampler.by_class[label])
    with pytest.raises(BadRequestError, match="224 px a side; a side of 225"):
        tissue(side=225)


def test_mixed_rows():
    pairs, labelled = atlas(4), tissue()
    source = MixedBatches(pairs, labelled)
    batch = source.batch(7)
    assert batch.has_base.tolist() == [True] * 4 + [False] * 6
    assert (batch.labels[:4] == -1).all() and (batch.labels[4:] >= 0).all()
    assert np.array_equal(batch.stored[:4], pairs.batch(7).stored)
    assert np.array_equal(batch.stored[4:], labelled.batch(7).stored)
    assert source.classes == CLASS_NAMES and len(source) == len(pairs)
    # labels of another list of classes would be wrong here
    assert (MixedBatches(labelled, fixed_other()).batch(0).labels[:6] == -1).all()
    with pytest.raises(BadRequestError, match="must have classes"):
        MixedBatches(labelled, pairs)
    assert shares(32, 0.5) == (16, 16) and shares(8, 0.01) == (7, 1) and shares(2, 0.99) == (1, 1)
    with pytest.raises(BadRequestError):
        shares(1, 0.5)


def fixed_other() -> FixedPatches:
    return FixedPatches(tiles(2, 24), [None] * 2, [0, 1], ["a", "b"], 2, ("x", "y"))


def test_fixed_sources():
    picture = tiles(1, 128)[0]
    source = fixed_pairs({"one": [picture], "two": [picture]}, 24, 3)
    assert len(source) == 3 and source.slides_of(1) == ("one", "two", "two")
    assert np.array_equal(source.batch(0).stored[1], store_pixels(picture)[:24, 24:48])
    assert np.array_equal(source.batch(0).base[1], picture[:48, 48:96])
    assert len(source.batch(2).stored) == 2
    with pytest.raises(IndexError):
        source.batch(3)
    with pytest.raises(BadRequestError, match="No tile holds a patch of 65"):
        fixed_pairs({"one": [picture]}, 65, 3)
    patch = TissuePatch(tiles(1, 224)[0], 3, "slide", 0, 0)
    middle = fixed_tissue([patch], 24, 4)
    assert np.array_equal(middle.batch(0).stored[0], patch.rgb[100:124, 100:124])
    assert middle.batch(0).labels.tolist() == [3] and middle.slides_of(0) == ("slide",)


# -- the same whoever asks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [atlas, tissue, lambda seed=3: MixedBatches(atlas(4, seed), tissue(seed))])
def test_a_batch_depends_on_seed_and_index_alone(make):
    one, other = make(), make()
    later = one.batch(9)
    one.batch(2)
    assert same(later, one.batch(9)) and same(later, other.batch(9))
    assert not same(later, one.batch(8)) and not same(later, make(seed=77).batch(9))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_and_ranks_see_every_batch_once(workers):
    source = atlas()
    for indexes in (range(3, 9), range(4, 12, 2)):
        found = list(batch_loader(source, indexes, workers))
        assert len(found) == len(indexes)
        for index, batch in zip(indexes, found, strict=True):
            expected = source.batch(index)
            assert set(batch) == {"stored", "base", "has_base", "labels"}
            assert all(np.array_equal(batch[name].numpy(), getattr(expected, name)) for name in batch)
    assert batch["stored"].dtype == torch.uint8 and batch["labels"].dtype == torch.int64


def test_the_data_set():
    data = BatchDataset(atlas(length=4))
    assert len(data) == 4 and data[1]["has_base"].dtype == torch.bool
