"""Restore and measure data sets:  python basicsr/test.py -opt options/test/...yml"""

from __future__ import annotations

import argparse
from pathlib import Path

from basicsr.data import build_dataset
from basicsr.models.evaluation import evaluate
from basicsr.models.pretrained import network_with_weights
from basicsr.models.restoring import Restorer
from basicsr.models.results import markdown, summary, write_results
from basicsr.options import TestOptions, load_options, save_options
from basicsr.utils.cli import command
from basicsr.utils.devices import select_device
from basicsr.utils.files import sha256
from basicsr.utils.provenance import provenance
from basicsr.utils.run_log import start_logging


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Restore and measure data sets.")
    parser.add_argument("-opt", required=True, metavar="FILE", help="YAML option file")
    parser.add_argument(
        "--force_yml", nargs="+", default=[], metavar="a:b:c=value", help="replace these options"
    )
    arguments = parser.parse_args()
    test(load_options(TestOptions, arguments.opt, arguments.force_yml), arguments.opt)


def test(options: TestOptions, option_file: str) -> None:
    """Restore every data set of `options`, and write `results/<name>`: images and scores."""
    device = select_device(options.device)
    sources = {each.name: build_dataset(each.arguments()) for each in options.datasets.values()}
    folder = Path("results", options.name)
    folder.mkdir(parents=True, exist_ok=True)
    logger = start_logging(folder / "test.log")
    weights = Path(options.path.pretrain_network_g)
    restorer = Restorer(
        network_with_weights(options.network_g.arguments(), weights),
        device,
        options.precision,
        **options.val.restoring(),
    )
    save_options(options, folder / "options.yml")

    measured = {}
    for name, source in sources.items():
        images = folder / name if options.val.save_img else None
        measured[name] = evaluate(
            restorer, source, options.val.protocols, options.val.quantize, images
        )
        if not source.has_gt:
            logger.info(
                "%s: %d images restored; there are no clean ones to measure against",
                *(name, len(source)),
            )
    rows = summary(measured, options.val.protocols)
    facts = {
        "option_file": option_file,
        "options": options.model_dump(mode="json"),
        "weights": str(weights),
        "weights_sha256": sha256(weights),
        **provenance(device),
    }
    write_results(folder, options.name, measured, rows, facts)
    if rows:
        logger.info("scores, also in %s:\n%s", folder, markdown(rows))


if __name__ == "__main__":
    main()
