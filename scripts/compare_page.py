"""Compare degraded and restored images on a contact sheet and a web page.

    python scripts/compare_page.py --lq DIR --restored DIR --gt DIR --out DIR

writes DIR/sheet.png (degraded | restored | ground truth | change) and DIR/index.html, one file with
all images inside and a divider to drag across each of them. Without --gt, only protocols that need
no ground truth are measured.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from basicsr.data import LAYOUTS
from basicsr.evaluation.restored_images import match_restored
from basicsr.io.images import write_png
from basicsr.metrics import DEFAULT_PROTOCOL, Metric, Protocol, Scores, get_protocol
from basicsr.utils.cli import command, positive, script_parser
from basicsr.utils.errors import DataError

CHANGE_GAIN = 4  # a change of 64 levels has full brightness in the map
CAPTIONS = {
    "lq": "degraded",
    "restored": "restored",
    "gt": "ground truth",
    "change": f"change (x {CHANGE_GAIN})",
}


class Comparison(NamedTuple):
    """Versions of one image by column of the sheet, and the scores of `lq` and `restored`."""

    name: str
    versions: dict[str, np.ndarray]
    scores: dict[str, Scores]


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    protocol = get_protocol(options.protocol)
    images = read_images(options, protocol)
    write_png(options.out / "sheet.png", sheet(images, protocol))
    page = web_page(images, protocol, options.title)
    (options.out / "index.html").write_text(page, encoding="utf-8")
    print(f"{len(images)} images: {options.out / 'sheet.png'}, {options.out / 'index.html'}")


def read_images(options: argparse.Namespace, protocol: Protocol) -> list[Comparison]:
    """Read and measure the first images of the folders.

    Raises DataError if files have no partner, cannot be read, or differ in size.
    """
    gt_of = {}
    if options.gt is not None:
        matched = match_restored(options.restored, options.gt, options.layout)
        gt_of = {image.name: image for image in matched}
    images = []
    for pair in match_restored(options.restored, options.lq)[: options.max_images]:
        restored, lq = pair.read("rgb", 8)
        assert lq is not None
        versions = {"lq": lq, "restored": restored}
        if gt_of:
            gt = gt_of[pair.name].read("rgb", 8)[1]
            assert gt is not None
            versions["gt"] = gt
        images.append(_compared(pair.name, versions, protocol))
    return images


def _compared(name: str, versions: dict[str, np.ndarray], protocol: Protocol) -> Comparison:
    sizes = {version: f"{image.shape[1]}x{image.shape[0]}" for version, image in versions.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{version} {size}" for version, size in sizes.items())
        raise DataError(f"{name}: the images to compare differ in size ({listed})")
    gt = versions.get("gt")
    scores = {}
    if gt is not None or not protocol.needs_reference:
        scores = {version: protocol(versions[version], gt) for version in ("lq", "restored")}
    change = change_map(versions["lq"], versions["restored"])
    return Comparison(name, {**versions, "change": change}, scores)


def change_map(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the largest change of the channels of each pixel, from black to yellow."""
    import matplotlib

    levels = np.abs(before.astype(int) - after).max(axis=2) * CHANGE_GAIN
    colours = matplotlib.colormaps["inferno"](np.minimum(levels, 255).astype(np.uint8))
    return np.round(colours[..., :3] * 255).astype(np.uint8)


def sheet(images: Sequence[Comparison], protocol: Protocol, cell: int = 420) -> np.ndarray:
    """Return a contact sheet: one row per image, its versions side by side, with captions."""
    columns = list(images[0].versions)
    gap, head, caption = 14, 44, 36
    rows = [_fitted(image, cell) for image in images]
    width = gap + (cell + gap) * len(columns)
    height = head + sum(row[0].height + caption for row in rows)
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    title, small = ImageFont.load_default(20), ImageFont.load_default(16)
    lefts = [gap + (cell + gap) * column for column in range(len(columns))]
    for left, column in zip(lefts, columns, strict=True):
        draw.text((left + cell / 2, head / 2), CAPTIONS[column], "black", title, anchor="mm")
    top = head
    for image, row in zip(images, rows, strict=True):
        bottom = top + row[0].height
        for left, column, version in zip(lefts, columns, row, strict=True):
            picture.paste(version, (left, top))
            if column in image.scores:
                text = f"{caption_of(image.scores[column], protocol)} ({protocol.name})"
                draw.text((left + cell / 2, bottom + 5), text, "#444", small, anchor="ma")
        top = bottom + caption
    return np.asarray(picture)


def _fitted(image: Comparison, width: int) -> list[Image.Image]:
    """Return the versions, resized to one width."""
    rows, columns = image.versions["lq"].shape[:2]
    size = (width, max(1, round(rows * width / columns)))
    return [
        Image.fromarray(version).resize(size, Image.Resampling.LANCZOS)
        for version in image.versions.values()
    ]


def caption_of(scores: Scores, protocol: Protocol) -> str:
    """Return the scores as text; a metric with a unit needs no name."""
    return ", ".join(
        _number(metric, scores) if metric.unit else f"{metric.label} {_number(metric, scores)}"
        for metric in protocol.available_metrics
    )


def _number(metric: Metric, scores: Scores, sign: str = "") -> str:
    unit = f" {metric.unit}" if metric.unit else ""
    return f"{scores[metric.name]:{sign}.{metric.decimals}f}{unit}"


def web_page(images: Sequence[Comparison], protocol: Protocol, title: str) -> str:
    """Return the HTML page, with every image inside it."""
    template = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    compared = [column for column in images[0].versions if column != "lq"]
    return template.substitute(
        title=html.escape(title),
        summary=_summary(images, protocol),
        choices="\n    ".join(_choice(column) for column in compared),
        figures="\n".join(_figure(image, protocol) for image in images),
        table=_table(images, protocol),
    )


def _summary(images: Sequence[Comparison], protocol: Protocol) -> str:
    count = "1 image" if len(images) == 1 else f"{len(images)} images"
    if not images[0].scores:
        return f"{count}. There is no ground truth, so nothing is measured."
    metric = protocol.metrics[0]
    before, after = (
        _number(metric, _mean(images, version, protocol)) for version in ("lq", "restored")
    )
    return (
        f"{count}, mean {metric.label}: {before} degraded, {after} restored, under the protocol "
        f"<b>{protocol.name}</b>: {html.escape(protocol.description)}."
    )


def _choice(column: str) -> str:
    checked = " checked" if column == "restored" else ""
    return (
        f'<label><input type="radio" name="right" value="{column}" '
        f'data-tag="{CAPTIONS[column]}"{checked}>{CAPTIONS[column]}</label>'
    )


def _figure(image: Comparison, protocol: Protocol) -> str:
    name = html.escape(image.name)
    height, width = image.versions["lq"].shape[:2]
    over = "\n".join(
        f'        <img class="over {column}" src="{_embedded(version)}" alt="{name}, {column}">'
        for column, version in image.versions.items()
        if column != "lq"
    )
    metric = protocol.metrics[0]
    scores = " → ".join(_number(metric, each) for each in image.scores.values())
    return f"""    <figure>
      <div class="divided" style="aspect-ratio: {width} / {height}">
        <img src="{_embedded(image.versions["lq"])}" alt="{name}, degraded">
{over}
        <input type="range" min="0" max="100" step="any" value="50" aria-label="divider of {name}">
        <div class="divider"></div>
        <div class="tag left">degraded</div><div class="tag right"></div>
      </div>
      <figcaption><b>{name}</b><span>{scores}</span></figcaption>
    </figure>"""


def _embedded(image: np.ndarray) -> str:
    data = io.BytesIO()
    # no optimize=True: with it Pillow fails on noisy images, for which its buffer is too small
    Image.fromarray(image).save(data, "JPEG", quality=92, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _table(images: Sequence[Comparison], protocol: Protocol) -> str:
    if not images[0].scores:
        return ""
    headings = [
        f"{version} {metric.label}"
        for version in ("degraded", "restored")
        for metric in protocol.available_metrics
    ]
    rows = [_row(html.escape(image.name), image.scores, protocol) for image in images]
    means = {version: _mean(images, version, protocol) for version in ("lq", "restored")}
    return f"""<h2>Scores ({protocol.name})</h2>
  <div class="scroll"><table>
    <thead><tr>{_cells("th", ["image", *headings, "difference"])}</tr></thead>
    <tbody>{"".join(rows)}</tbody>
    <tfoot>{_row("mean of these", means, protocol)}</tfoot>
  </table></div>"""


def _row(name: str, scores: dict[str, Scores], protocol: Protocol) -> str:
    first = protocol.metrics[0]
    difference = {first.name: scores["restored"][first.name] - scores["lq"][first.name]}
    numbers = [
        _number(metric, scores[version])
        for version in ("lq", "restored")
        for metric in protocol.available_metrics
    ]
    return f"<tr>{_cells('td', [name, *numbers, _number(first, difference, sign='+')])}</tr>"


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{text}</{tag}>" for text in texts)


def _mean(images: Sequence[Comparison], version: str, protocol: Protocol) -> Scores:
    return protocol.summarize([image.scores[version] for image in images])


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("--lq", required=True, type=Path, metavar="DIR", help="degraded images")
    parser.add_argument("--restored", required=True, type=Path, metavar="DIR")
    parser.add_argument("--gt", type=Path, metavar="DIR", help="ground truth")
    parser.add_argument(
        "--layout", choices=LAYOUTS, metavar="NAME", help="data set that names the ground truth"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--title", default="Restored images")
    parser.add_argument("--protocol", default=DEFAULT_PROTOCOL, metavar="NAME")
    parser.add_argument("--max-images", type=positive, default=12, metavar="N")
    return parser


if __name__ == "__main__":
    main()
