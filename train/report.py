"""An evaluation as Markdown: tables, pictures and the words that say what was measured on what."""

from __future__ import annotations

from typing import Any

from train.figures import ERROR_TOP

GAIN_NOTE = "Gains are over bicubic interpolation of the same stored pixels."
COMPARE_NOTE = (
    "Compare models on the same pictures only: these scans were compressed before they came here, which no network "
    "can undo."
)


def markdown(results: dict[str, Any]) -> str:
    """The report of what `train.evaluate` writes as results.json; pictures are named as files beside it."""
    model = results["model"]
    parts = [f"# {model['name']}", f"Written by `{results['command']}`.", table(_facts(model))]
    parts += [f"Left out: {sentence}" for sentence in results["left_out"]]
    for row in results["sr"]:
        parts += _sr_section(row, model["name"])
    for row in results["classification"]:
        parts += _class_section(row)
    return "\n\n".join(parts) + "\n"


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of equal keys as a Markdown table."""
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(row[key]) for key in head) + " |" for row in rows]
    return "\n".join(lines)


def number(value: float | None, places: int) -> str:
    """A number with so many decimals; `–` where there is none, with no leading zero below 1 as the paper prints."""
    if value is None:
        return "–"
    text = f"{value:.{places}f}"
    return text[1:] if text.startswith("0.") else text


def _facts(model: dict[str, Any]) -> list[dict[str, Any]]:
    """What is known of the model, one row each."""
    shown = {**model}
    if isinstance(shown.get("config"), dict):
        shown["config"] = ", ".join(f"{name} {value}" for name, value in shown["config"].items()) or "–"
    if shown.get("sha256"):
        shown["sha256"] = shown["sha256"][:12]
    if isinstance(shown.get("parameters"), int):
        shown["parameters"] = f"{shown['parameters']:,}"
    return [{"model": name, "": value} for name, value in shown.items() if name != "name" and value not in ("", None)]


def _sr_section(row: dict[str, Any], model: str) -> list[str]:
    mean = {"slide": "mean over pictures", **row["mean"]}
    rows = [line for each in (*row["slides"], mean) for line in _sr_rows(each, model)]
    lines = "\n".join(f"- *{_HEADS[name]}*: {words}" for name, words in row["definitions"].items())
    parts = [f"## Super-resolution: {row['set']}", f"{row['words']}. {COMPARE_NOTE} {GAIN_NOTE}", table(rows), lines]
    if "picture" in row:
        parts += [
            "Of each slide the tile with the median PSNR, and of that the window whose brightness varies most; error "
            f"maps are the mean absolute difference of the colours, brightest at {ERROR_TOP} grey levels and more.",
            f"![bicubic, {model}, scan and both error maps]({row['picture']})",
        ]
    return parts


_HEADS = {
    "psnr": "PSNR dB", "ssim": "SSIM 7×7", "psnr_luma": "Y-PSNR dB", "ssim_gaussian": "SSIM Gaussian",
    "ssim_luma": "Y-SSIM Gaussian",
}  # fmt: skip


def _sr_rows(each: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """Bicubic and the model on one slide; one row where the model is bicubic."""
    made = []
    for name, key in (("bicubic", "bicubic"), (model, "model"))[1 if model == "bicubic" else 0 :]:
        values = each[key]
        places = {head: 2 if "psnr" in measure else 4 for measure, head in _HEADS.items()}
        cells = {head: number(values[measure], places[head]) for measure, head in _HEADS.items()}
        made.append({"slide": each["slide"], "pictures": each["pictures"], "method": name, **cells,
                     "gain PSNR / SSIM": _gain(each) if key == "model" and model != "bicubic" else ""})  # fmt: skip
    return made


def _gain(each: dict[str, Any]) -> str:
    differences = []
    for measure, places in (("psnr", 2), ("ssim", 4)):
        ours, plain = each["model"][measure], each["bicubic"][measure]
        differences.append("–" if ours is None or plain is None else f"{ours - plain:+.{places}f}")
    return " / ".join(differences)


def _class_section(row: dict[str, Any]) -> list[str]:
    classes, counts = row["confusion"]["classes"], row["confusion"]["rows"]
    figures = {
        "patches": row["patches"], "accuracy": number(row["accuracy"], 4),
        "balanced accuracy": number(row["balanced_accuracy"], 4), "macro-F1": number(row["macro_f1"], 4),
        "calibration error (15 bins)": number(row["calibration_error"], 4), "Brier (0…2)": number(row["brier"], 4),
        "log loss": number(row["log_loss"], 4),
    }  # fmt: skip
    matrix = [
        {"true \\ told": name, **dict(zip(classes, line, strict=True)), "recall": number(row["recall"][name], 4),
         "F1": number(row["f1"][name], 4)}
        for name, line in zip(classes, counts, strict=True)
    ]  # fmt: skip
    bins = [
        {"confidence": f"{each['low']:.2f}–{each['high']:.2f}", "patches": each["count"],
         "mean confidence": number(each["confidence"], 3), "told rightly": number(each["accuracy"], 3)}
        for each in row["reliability"] if each["count"]
    ]  # fmt: skip
    parts = [f"## Classes: {row['set']}", f"{row['words'][:1].upper()}{row['words'][1:]}.", table([figures])]
    parts += [table(matrix), table(bins)]
    if "pictures" in row:
        parts.append(" ".join(f"![{words}]({file})" for words, file in row["pictures"].items()))
    return parts
