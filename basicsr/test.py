"""Restore and measure data sets:  python basicsr/test.py -opt options/test/...yml

On several GPUs:  torchrun --nproc-per-node 8 basicsr/test.py -opt options/test/...yml
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: import the library that the file belongs to
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.utils.interruptions import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the other imports, which take seconds

from basicsr.utils.cli import add_launcher, add_option_file, add_output_dir, command, script_parser

if TYPE_CHECKING:
    import torch

    from basicsr.options import TestOptions
    from basicsr.utils.distributed import World

RESULTS = Path("results")
TIMEOUT = 3600.0
"""Seconds that a process waits for the others to restore their images."""


@command
def main() -> None:
    """Run the test that the option file on the command line describes."""
    exit_on_signals(interrupts=False)  # as a command of the installed package, only now
    parser = script_parser(__doc__)
    add_option_file(parser)
    add_launcher(parser)
    add_output_dir(parser, "results")
    arguments = parser.parse_args()

    # here, so that --help and mistakes do not wait for PyTorch
    from basicsr.options import TestOptions, load_options
    from basicsr.utils.devices import select_device
    from basicsr.utils.distributed import distributed_world, require_launched
    from basicsr.utils.errors import options_at

    command_line = f"basicsr/test.py -opt {arguments.opt}"
    require_launched(arguments.launcher, arguments.local_rank, command_line)
    options = load_options(TestOptions, arguments.opt, arguments.force_yml)
    device = select_device(options.device)
    with options_at(arguments.opt), distributed_world(device, TIMEOUT) as world:
        test(options, arguments.opt, device, world, arguments.output_dir)


def test(
    options: TestOptions,
    option_file: str,
    device: torch.device,
    world: World,
    results: Path = RESULTS,  # noqa: PT028 (it is no test of pytest)
) -> None:
    """Restore and measure every data set of a test; write images and scores to `results/<name>`.

    Args:
        options: options of the test.
        option_file: file that they come from, for the provenance.
        device: device that the network runs on.
        world: processes that share the images of each data set.
        results: folder in which the test's folder is made.

    Raises:
        UserError: weights, images and options do not fit together; nothing has been restored.
    """
    from basicsr.data import build_dataset
    from basicsr.evaluation.evaluate import check_images, evaluate, pictures_in
    from basicsr.evaluation.score_files import markdown, summary, write_results
    from basicsr.inference.restorer import Restorer, RestorerSettings
    from basicsr.models.fitting import require_fitting
    from basicsr.models.pretrained import network_with_weights, saved_network, weights_file
    from basicsr.options import save_options
    from basicsr.utils.errors import options_at
    from basicsr.utils.files import sha256
    from basicsr.utils.logs import start_logging
    from basicsr.utils.provenance import provenance
    from basicsr.utils.registry import options_of

    datasets = {}
    for key, section in options.datasets.items():
        with options_at(f"datasets.{key}"):
            datasets[key] = build_dataset(section.arguments())
    folder = results / options.name
    folder.mkdir(parents=True, exist_ok=True)
    logger = start_logging(folder / "test.log", world)
    weights = weights_file(options.path.pretrain_network_g)
    with options_at("network_g"):
        if options.network_g is None:
            network, _ = saved_network(weights)
            network_options = options_of(network)
        else:
            network_options = options.network_g.arguments()
            network = network_with_weights(network_options, weights)
    for key, dataset in datasets.items():
        require_fitting(network, dataset, f"datasets.{key}")
    for key, dataset in datasets.items():
        check_images(dataset, options.val.protocols, f"datasets.{key}")

    settings = RestorerSettings(precision=options.precision, **options.val.restoring())
    restorer = Restorer(network, device, settings)
    precision = restorer.settings.precision
    world.require_same(precision, "the precision that their devices support; use precision: fp32")
    options = options.model_copy(update={"precision": precision})
    scores = {}
    for key, dataset in datasets.items():
        name = options.datasets[key].name
        save_image = pictures_in(folder / name, dataset) if options.val.save_img else None
        scores[name] = evaluate(
            restorer, dataset, options.val.protocols, options.val.quantize, save_image, world
        )
        if not any(image.restored for image in scores[name]):
            logger.info(
                "%s: %d images restored; there is no ground truth to measure against",
                name,
                len(dataset),
            )

    if not world.is_main:
        return
    save_options(options, folder / "options.yml")
    means = summary(scores, options.val.protocols)
    facts = {
        "option_file": option_file,
        "options": {**options.model_dump(mode="json"), "network_g": network_options},
        "weights": str(weights),
        "weights_sha256": sha256(weights),
        **provenance(device),
    }
    write_results(folder, options.name, scores, means, facts)
    if means:
        logger.info("scores, also in %s:\n%s", folder, markdown(means))


if __name__ == "__main__":
    main()
