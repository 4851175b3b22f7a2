"""Time of one synthesised 512-px tile and its share of the machine's convolution peak: `python -m benchmarks.sr_speed`.

Peak and network are measured in turn in one process, so that a busy neighbour hurts both alike. No engine, no HTTP.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.common import SHARED, table, write_result
from wsi_ml.data.pairs import read_tiles, store_pixels, tile_files
from wsi_ml.slides.codec import decode_jpeg, encode_jpeg
from wsi_ml.sr import open_upscaler
from wsi_ml.sr.network import NetworkUpscaler, interleave

T_SIDE = 512
CORE = T_SIDE // 2
PEAK_CHANNELS, PEAK_SIDE = 64, 256
Row = dict[str, object]


def times_ms(call: Callable[[], object], rounds: int) -> np.ndarray:
    """Wall times of `rounds` calls in ms after three unmeasured ones."""
    for _ in range(3):
        call()
    spans = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        spans.append(1e3 * (time.perf_counter() - begin))
    return np.array(spans)


def peak_conv(dtype: torch.dtype, channels: int) -> tuple[Callable[[], object], float]:
    """A lone 3×3 convolution, channels last, as fast as this machine computes it, and its work in GFLOP."""
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1).to(dtype=dtype, memory_format=torch.channels_last)
    picture = torch.randn(1, channels, PEAK_SIDE, PEAK_SIDE).to(dtype=dtype, memory_format=torch.channels_last)

    def call() -> object:
        with torch.inference_mode():
            return layer(picture)

    return call, 2 * 9 * channels * channels * PEAK_SIDE**2 / 1e9


def network_gflop(model: torch.nn.Module, side: int) -> float:
    """Work of every convolution on a square of `side` stored pixels (a multiply and an add count two)."""
    return (
        sum(2 * side**2 * layer.weight.numel() for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)) / 1e9
    )


def stored_square(side: int) -> np.ndarray:
    """Real stored pixels of at least `side`, repeated in a mosaic."""
    slide, files = next(iter(tile_files(SHARED).items()))
    assert slide
    tile = store_pixels(read_tiles(files[:1])[0])
    repeat = -(-side // tile.shape[0])
    return np.ascontiguousarray(np.tile(tile, (repeat, repeat, 1))[:side, :side])


def tile_job(upscaler: NetworkUpscaler) -> Callable[[], object]:
    """All the CPU work of one cold tile: decode a stored 512-px JPEG, grow, upscale, crop, encode."""
    halo = upscaler.card.halo
    jpeg = encode_jpeg(stored_square(T_SIDE))
    low, high = 128 - halo, 128 + CORE + halo

    def call() -> object:
        stored = decode_jpeg(jpeg)
        made = upscaler(stored[low:high, low:high])
        return encode_jpeg(made[2 * halo : 2 * halo + T_SIDE, 2 * halo : 2 * halo + T_SIDE])

    return call


def parts(upscaler: NetworkUpscaler, side: int, rounds: int) -> list[Row]:
    """Where the time of a tile goes."""
    pixels = torch.from_numpy(stored_square(side))[None].permute(0, 3, 1, 2).float()
    phases = torch.zeros(1, side, side, 12, dtype=torch.uint8)
    with torch.inference_mode():
        network = times_ms(lambda: upscaler.model.phases(pixels), rounds)  # type: ignore[operator]
        joining = times_ms(lambda: interleave(phases), rounds)
    picture, jpeg = stored_square(T_SIDE), encode_jpeg(stored_square(T_SIDE))
    spans = {
        "network": network, "interleave sub-pixels": joining,
        "decode one stored 512-px JPEG": times_ms(lambda: decode_jpeg(jpeg), rounds),
        "encode a 512-px JPEG": times_ms(lambda: encode_jpeg(picture), rounds),
    }  # fmt: skip
    return [
        {"part": name, "best ms": f"{span.min():.1f}", "p50 ms": f"{np.median(span):.1f}"}
        for name, span in spans.items()
    ]


def measured(model: str, dtype: torch.dtype, threads: int, rounds: int) -> Row:
    """One row: tile time, network time and share of the peak of a 64-channel convolution."""
    torch.set_num_threads(threads)
    upscaler = open_upscaler(model)
    assert isinstance(upscaler, NetworkUpscaler)
    upscaler = NetworkUpscaler(upscaler.card, upscaler.weights, dtype=dtype)
    side = CORE + 2 * upscaler.card.halo
    pixels = torch.from_numpy(stored_square(side))[None].permute(0, 3, 1, 2).float()

    def network() -> object:
        with torch.inference_mode():
            return upscaler.model.phases(pixels)  # type: ignore[operator]

    conv, conv_gflop = peak_conv(dtype, PEAK_CHANNELS)
    own, own_gflop = peak_conv(dtype, upscaler.card.config["channels"])
    peak = max(conv_gflop / times_ms(conv, rounds).min(), own_gflop / times_ms(own, rounds).min()) * 1e3
    span = times_ms(network, rounds)
    whole = times_ms(tile_job(upscaler), rounds)
    rate = network_gflop(upscaler.model, side) / span.min() * 1e3
    return {
        "numbers": str(dtype).removeprefix("torch."), "threads": threads,
        "tile p50 ms": f"{np.median(whole):.1f}", "tile p95 ms": f"{np.percentile(whole, 95):.1f}",
        "network best ms": f"{span.min():.1f}", "network p50 ms": f"{np.median(span):.1f}",
        "GFLOP/s": f"{rate:.0f}", "conv peak GFLOP/s": f"{peak:.0f}", "share of peak": f"{100 * rate / peak:.0f} %",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="sr-fast", help="name, or path of a card")
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    kinds = [(torch.bfloat16, 2), (torch.bfloat16, 1), (torch.float32, 2)]
    rows = [measured(args.model, dtype, threads, args.rounds) for dtype, threads in kinds]
    torch.set_num_threads(2)
    upscaler = open_upscaler(args.model)
    assert isinstance(upscaler, NetworkUpscaler)
    card = upscaler.card
    side = CORE + 2 * card.halo
    gflop = network_gflop(upscaler.model, side)
    body = "\n\n".join([
        f"Model `{card.name}`, weights {card.sha256[:12]}, {card.parameters:,} parameters, halo {card.halo}. A tile is "
        f"{CORE} stored pixels and its halo: {side} px in, {gflop:.1f} GFLOP, {T_SIDE} px out. "
        "*tile* is all the work of a cold tile: decode a stored JPEG, network, interleave, crop, encode. "
        "The peak is the faster of a lone 3×3 convolution of 64 channels and one of the network's width.",
        table(rows),
        "## Parts of a tile (bf16 where the machine has it, 2 threads)",
        table(parts(upscaler, side, args.rounds)),
    ])  # fmt: skip
    write_result("sr_speed", "Super-resolution speed", "python -m benchmarks.sr_speed", body)


if __name__ == "__main__":
    main()
