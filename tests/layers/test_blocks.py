"""Blocks as bytes: read here by hand from the documented layout, and by the decoder."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import shapely

from tests.layers.shapes import batch_of, mixed_batch
from tests.layers.test_columns import same
from wsi_ml.errors import DamagedError
from wsi_ml.layers.blocks import decode_block, encode_block, pack_block, unpack_block
from wsi_ml.layers.columns import columns_of


def test_blocks_come_back_exactly():
    columns = columns_of(mixed_batch(), 1000)
    same(decode_block(encode_block(columns)), columns)
    for number in range(0, len(columns), 37):
        one = columns.span(number, number + 1)
        same(decode_block(encode_block(one)), one)
    none = columns.span(0, 0)
    assert len(decode_block(encode_block(none))) == 0


def test_the_layout_is_the_documented_one():
    holed = shapely.Polygon([(10, 20), (50, 20), (50, 60), (10, 60)], [[(20, 30), (30, 30), (20, 40)]])
    two = shapely.MultiPolygon([shapely.Polygon([(0, 0), (1, 0), (0, 1)]), shapely.Polygon([(5, 5), (6, 5), (5, 6)])])
    data = encode_block(columns_of(batch_of([holed, two, shapely.box(7, 7, 8, 9)], [2, 0, 1], [0.5, np.nan, 1]), 40))
    assert data[:4] == b"OCB1" and len(data) % 4 == 0
    count, parts, rings, points, origin_x, origin_y, reserved = struct.unpack_from("<4I2iI", data, 4)
    assert (count, parts, rings, points, origin_x, origin_y, reserved) == (3, 4, 5, 17, 0, 0, 0)
    place = 32

    def read(kind, length):
        nonlocal place
        values = struct.unpack_from(f"<{length}{kind}", data, place)
        place += -(-struct.calcsize(f"<{length}{kind}") // 4) * 4
        return list(values)

    assert read("I", 3) == [40, 41, 42]
    assert read("H", 3) == [2, 0, 1]
    assert read("H", 3) == [5000, 65535, 10000]
    assert read("f", 3) == [1550, 1, 2]
    assert read("i", 12) == [160, 320, 800, 960, 0, 0, 96, 96, 112, 112, 128, 144]
    assert read("I", 3) == [1, 3, 4]
    assert read("I", 4) == [2, 3, 4, 5]
    assert read("I", 5) == [4, 7, 10, 13, 17]
    x_steps, y_steps = read("i", 17), read("i", 17)
    assert (x_steps[:7], y_steps[:7]) == ([160, 640, 0, -640, 320, 160, -160], [320, 0, 640, 0, 480, 0, 160])
    assert (x_steps[7:13], y_steps[7:13]) == ([0, 16, -16, 80, 16, -16], [0, 0, 16, 80, 0, 16])
    assert place == len(data)


def test_coordinates_are_relative_to_the_origin():
    far = columns_of(batch_of([shapely.box(90_000, 70_000, 90_020, 70_030)]), 0)
    data = encode_block(far)
    assert struct.unpack_from("<2i", data, 20) == (90_000 * 16, 70_000 * 16)
    assert decode_block(data).boxes.tolist() == [[1_440_000, 1_120_000, 1_440_320, 1_120_480]]


def test_packing_is_plain_gzip_and_always_the_same():
    data = encode_block(columns_of(mixed_batch(), 0))
    packed = pack_block(data)
    assert packed == pack_block(data) and gzip.decompress(packed) == data == unpack_block(packed)
    assert packed[4:8] == bytes(4)  # no time


@pytest.mark.parametrize("length", [0, 3, 31, 32, 100, -4, -1])
def test_cut_bytes_are_damage(length):
    data = encode_block(columns_of(mixed_batch(count=20), 0))
    with pytest.raises(DamagedError):
        decode_block(data[:length])
    with pytest.raises(DamagedError):
        unpack_block(pack_block(data)[:length])


def test_foreign_bytes_are_damage():
    data = encode_block(columns_of(mixed_batch(count=20), 0))
    with pytest.raises(DamagedError):
        decode_block(b"XXXX" + data[4:])
    with pytest.raises(DamagedError):
        unpack_block(b"no gzip at all")
