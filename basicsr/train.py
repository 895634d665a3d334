"""Train a network from an option file:  python basicsr/train.py -opt options/train/...yml

On several GPUs:  torchrun --nproc-per-node 8 basicsr/train.py -opt options/train/...yml
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: import the library that the file belongs to
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from basicsr.utils.interruptions import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()  # before the other imports, which take seconds

from basicsr.utils.cli import (
    add_launcher,
    add_memory,
    add_option_file,
    add_output_dir,
    command,
    script_parser,
)


@command
def main() -> None:
    exit_on_signals(interrupts=False)  # as a command of the installed package, only now
    parser = script_parser(__doc__)
    add_option_file(parser)
    add_launcher(parser)
    parser.add_argument(
        "--auto_resume", action="store_true", help="resume from this run's newest training state"
    )
    parser.add_argument(
        "--force", action="store_true", help="resume even if options or data have changed"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="build everything, take a few steps, print whether a run fits and how long it takes",
    )
    add_memory(parser)
    add_output_dir(parser, "experiments")
    arguments = parser.parse_args()
    if arguments.memory is not None and not arguments.check:
        parser.error("--memory: only for --check")

    # here, so that --help and mistakes do not wait for PyTorch
    from basicsr.options import TrainOptions, load_options
    from basicsr.training.check import check
    from basicsr.training.run import Process
    from basicsr.training.trainer import train
    from basicsr.utils.devices import select_device
    from basicsr.utils.distributed import distributed_world, require_launched, was_restarted
    from basicsr.utils.errors import options_at
    from basicsr.utils.interruptions import StopRequest, Watchdog

    command_line = f"basicsr/train.py -opt {arguments.opt}"
    require_launched(arguments.launcher, arguments.local_rank, command_line)
    options = load_options(TrainOptions, arguments.opt, arguments.force_yml)
    device = select_device(options.device)
    if arguments.check:
        with options_at(arguments.opt):
            check(options, device, arguments.memory)
        return
    with (
        options_at(arguments.opt),
        distributed_world(device, options.train.stall_timeout) as world,
        Watchdog(options.train.stall_timeout) as watchdog,
    ):
        process = Process(device, world, StopRequest(), watchdog)
        auto_resume = arguments.auto_resume or was_restarted()
        train(options, process, auto_resume, arguments.force, arguments.output_dir)


if __name__ == "__main__":
    main()
