"""Restore and measure data sets:  python basicsr/test.py -opt options/test/...yml

On several GPUs:  torchrun --nproc-per-node 8 basicsr/test.py -opt options/test/...yml
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from basicsr.data import build_dataset
from basicsr.evaluation.evaluate import evaluate, pictures_in
from basicsr.evaluation.score_files import markdown, summary, write_results
from basicsr.inference.restorer import Restorer, RestorerSettings
from basicsr.models.pretrained import network_with_weights
from basicsr.options import TestOptions, load_options, save_options
from basicsr.utils.cli import add_option_file, command
from basicsr.utils.devices import select_device
from basicsr.utils.distributed import World, distributed_world
from basicsr.utils.files import sha256
from basicsr.utils.logs import start_logging
from basicsr.utils.provenance import provenance

TIMEOUT = 3600.0  # seconds for which a process waits until the others have restored their images


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Restore and measure data sets.")
    add_option_file(parser)
    arguments = parser.parse_args()
    options = load_options(TestOptions, arguments.opt, arguments.force_yml)
    device = select_device(options.device)
    with distributed_world(device, TIMEOUT) as world:
        test(options, arguments.opt, device, world)


def test(options: TestOptions, option_file: str, device: torch.device, world: World) -> None:
    """Restore every data set of `options`, and write `results/<name>`: images and scores.

    The processes of the `world` share the images of each.
    """
    sources = {each.name: build_dataset(each.arguments()) for each in options.datasets.values()}
    for source in sources.values():
        source.check()
    folder = Path("results", options.name)
    folder.mkdir(parents=True, exist_ok=True)
    logger = start_logging(folder / "test.log", world)
    weights = Path(options.path.pretrain_network_g)
    restorer = Restorer(
        network_with_weights(options.network_g.arguments(), weights),
        device,
        RestorerSettings(precision=options.precision, **options.val.restoring()),
    )
    measured = {}
    for name, source in sources.items():
        keep = pictures_in(folder / name, source) if options.val.save_img else None
        measured[name] = evaluate(
            restorer, source, options.val.protocols, options.val.quantize, keep, world
        )
        if not source.has_gt:
            logger.info(
                "%s: %d images restored; there are no clean ones to measure against",
                *(name, len(source)),
            )
    if not world.is_main:
        return
    save_options(options, folder / "options.yml")
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
