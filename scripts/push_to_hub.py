"""Publish weights on the Hugging Face hub, with a model card made from their metadata.

    python scripts/push_to_hub.py DTPNet-T_any-rain OWNER/NAME
    python scripts/push_to_hub.py experiments/NAME OWNER/NAME --folder card    # only write and look

Log in first (hf auth login), or set HF_TOKEN. Then `--weights hf:OWNER/NAME` uses the weights.
scripts/publish_weights.py puts training data, recipe and scores into the metadata. The extra `hub`
has the client of the hub: pip install "dtpnet-derain[hub]".
"""

from __future__ import annotations

import argparse
from pathlib import Path

from basicsr.models.pretrained import weights_file
from basicsr.utils.cli import command, script_parser
from basicsr.utils.errors import OptionsError


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    # hub_files first: it names the extra if the client is missing
    import basicsr.io.hub_files  # noqa: F401
    from basicsr.models.hub import HubNetwork, push_to_hub

    weights = weights_file(options.weights)
    if options.folder is None:
        address = push_to_hub(weights, options.repository, options.licence, options.private)
        print(f"{weights.name}: published at {address}")
        return
    if options.folder.exists():
        raise OptionsError(f"--folder {options.folder}: exists; name a new folder")
    HubNetwork(weights, options.licence, options.repository).save_pretrained(options.folder)
    print(f"{weights.name}: written to {options.folder}, not published")


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument("weights", metavar="NAME|RUN|FILE")
    parser.add_argument("repository", metavar="OWNER/NAME")
    parser.add_argument(
        "--licence", default="apache-2.0", metavar="ID", help="of the weights (default: apache-2.0)"
    )
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="write there, do not publish")
    return parser


if __name__ == "__main__":
    main()
