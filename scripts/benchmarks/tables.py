"""Markdown of benchmark.json."""

from __future__ import annotations

from typing import Any

from .networks import OUT_OF_MEMORY

HEADINGS = (
    "variant",
    "time",
    "quartiles",
    "faster",
    "share of floor",
    "peak memory (GiB)",
    "above start",
    "of baseline's peak",
)


def heading(document: dict[str, Any]) -> str:
    """Return the title, with machine, versions and date."""
    with_kernels = f"; with kernels in {document['kernels']}" if document["kernels"] else ""
    return (
        "# Benchmark\n\n{device}; torch {torch}, Python {python}, {library} {git_revision}, "
        "{date}".format(**document["provenance"])
        + with_kernels
    )


def network(row: dict[str, Any]) -> str:
    """Return a case's table, with a line for each variant."""
    height, width = row["size"]
    lines = [
        f"\n### {row['network']}, {row['subject']}, {row['batch']} x {width} x {height}\n",
        *(_floor(*each) for each in sorted(row["floors"].items(), reverse=True)),
        "",
        _line(*HEADINGS),
        _line(*("---",) * len(HEADINGS)),
    ]
    for name, variant in row["variants"].items():
        if variant["memory"] == OUT_OF_MEMORY:
            lines.append(_line(name, OUT_OF_MEMORY, *("",) * (len(HEADINGS) - 2)))
            continue
        seconds, ratio = variant["seconds"], row["ratios"].get(name)
        lines.append(
            _line(
                name,
                duration(seconds["median"]),
                f"{duration(seconds['lower'])} to {duration(seconds['upper'])}",
                f"{ratio['speed']:.2f} x" if ratio else "",
                f"{variant['share_of_floor']:.0%}",
                f"{variant['memory']['peak'] / 2**30:.2f}",
                f"{(variant['memory']['peak'] - variant['memory']['before']) / 2**30:.2f}",
                f"{ratio['memory']:.2f} x" if ratio else "",
            )
        )
    return "\n".join(lines)


def _floor(precision: str, floor: dict[str, Any]) -> str:
    """Return the line that explains the floor."""
    speed = floor["ceilings"]
    return (
        f"{precision}: {floor['macs'] / 1e9:.1f} GMACs at {speed['macs'] / 1e9:.1f} GMACs/s "
        f"(large matrix product), {floor['traffic'] / 1e9:.2f} GB at "
        f"{speed['traffic'] / 1e9:.1f} GB/s (large copy): "
        f"at least {duration(floor['seconds'])}, bound by {floor['bound']}.  "
    )


def loader(measured: dict[str, Any]) -> str:
    fast, plain = measured["loader"], measured["plain"]
    return (
        f"\n## Loader\n\n{measured['images']}, {measured['workers']} workers on "
        f"{measured['cores']} cores, patches of {measured['size']}: {_rate(fast)} pairs of patches "
        f"a second; plain decode and crop {_rate(plain)} "
        f"({fast['median'] / plain['median']:.1f} times as fast)."
    )


def metrics(measured: dict[str, Any]) -> str:
    lines = [
        "\n## Metrics\n",
        f"{measured['images']}, {measured['protocol']}, {measured['workers']} threads.\n",
        _line("", "seconds", "lowest to highest"),
        _line(*("---",) * 3),
    ]
    for name in ("files", "measure", "skimage"):
        each = measured[name]
        spread = f"{each['low']:.2f} to {each['high']:.2f}"
        lines.append(_line(name, f"{each['median']:.2f}", spread))
    return "\n".join(lines)


def _rate(figures: dict[str, Any]) -> str:
    return f"{figures['median']:.0f} ({figures['low']:.0f} to {figures['high']:.0f})"


def duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _line(*texts: str) -> str:
    return "| " + " | ".join(texts) + " |"
