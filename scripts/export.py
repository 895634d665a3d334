"""Export a network with its weights as ONNX or as a program of torch.export.

    python scripts/export.py DTPNet-T_any-rain -o dtpnet-t.onnx
    python scripts/export.py experiments/NAME/models/net_g_latest.safetensors -o net.pt2
    python scripts/export.py DTPNet-T_any-rain -o dtpnet-t_fp16.onnx --precision fp16

The file maps `lq`, 1 x in_channels x H x W in float32 with values in [0, 1], to `restored`, 1 x
out_channels x H x W in float32, which is not clipped. H and W must be multiples of `size_multiple`
in the metadata of the file: pad at the bottom and right (by reflection, as test.py does), and crop
the result. With --precision fp16 the weights are stored and used as float16.

Before the file is written, its outputs are compared with PyTorch's in several sizes. The extra
`export` has the packages for ONNX: pip install "dtpnet-derain[export]".
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import basicsr
from basicsr.archs import RestorationNetwork
from basicsr.models.pretrained import saved_network, weights_file
from basicsr.utils.cli import command, script_parser
from basicsr.utils.errors import OptionsError
from basicsr.utils.files import atomic_write, sha256
from basicsr.utils.registry import options_of

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2}
"""Allowed difference to PyTorch's float32, relative to the largest value if that is above 1."""
LARGEST_SIDE = 2**16
SMALLEST_SIDE = 16  # of the images that the file is made and checked with

Run = Callable[[Tensor], Tensor]


class InPrecision(nn.Module):
    """A network in another precision, with float32 inputs and outputs."""

    def __init__(self, network: RestorationNetwork, precision: str) -> None:
        super().__init__()
        self.dtype = DTYPES[precision]
        self.network = network.to(self.dtype)

    def forward(self, lq: Tensor) -> Tensor:
        restored = self.network(lq.to(self.dtype))
        assert isinstance(restored, Tensor)
        return restored.float()


@command
def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.out.suffix not in FORMATS:
        raise OptionsError(f"-o {options.out}: the file's name must end in .onnx or .pt2")
    file = weights_file(options.weights)
    network, weights = saved_network(file)
    facts = facts_of(network)
    facts = {
        **facts,
        "network": (weights.network or facts["options"])["type"],  # PRN_r, not its class PReNet
        "precision": options.precision,
        "weights_sha256": sha256(file),
        "library": f"dtpnet-derain {basicsr.__version__}",
    }
    difference = export(network, options.out, options.precision, facts)
    multiple = network.size_multiple
    sides = "any height and width" if multiple == 1 else f"sides that are multiples of {multiple}"
    print(
        f"{options.out}: {facts['network']} in {options.precision}, for {sides}; differs from "
        f"PyTorch by at most {difference:.1e}"
    )


def facts_of(network: RestorationNetwork) -> dict[str, Any]:
    """Return what a program needs to know to use the exported network."""
    options = options_of(network)
    return {
        "network": options["type"],
        "options": json.loads(json.dumps(options)),
        "in_channels": network.in_channels,
        "out_channels": network.out_channels,
        "size_multiple": network.size_multiple,
        "values": "RGB or gray in [0, 1]; clip the output",
    }


def export(network: RestorationNetwork, file: Path, precision: str, facts: dict[str, Any]) -> float:
    """Write `file` once its outputs agree with PyTorch's, and return the largest difference.

    Args:
        network: network with its weights, on the CPU.
        file: its suffix, .onnx or .pt2, is the format.
        precision: "fp32" or "fp16".
        facts: metadata.

    Raises:
        OptionsError: packages are missing, the network cannot be exported, or outputs differ.
    """
    network = network.float().eval().requires_grad_(False)
    images = [torch.rand(1, network.in_channels, *size) for size in check_sizes(network)]
    with torch.no_grad():
        expected = [network(image) for image in images]
    program = exported_program(InPrecision(network, precision).eval(), images[0])
    content, run = FORMATS[file.suffix](program, facts)
    difference = max(
        float((run(image) - each).abs().max() / max(1.0, float(each.abs().max())))
        for image, each in zip(images, expected, strict=True)
    )
    if not difference <= TOLERANCES[precision]:  # also if it is not a number
        raise OptionsError(
            f"{file}: not written: the outputs differ from PyTorch's by {difference:.1e}, more "
            f"than {TOLERANCES[precision]:g}"
        )
    with atomic_write(file) as stream:
        stream.write(content)
    return difference


def check_sizes(network: RestorationNetwork) -> list[tuple[int, int]]:
    """Return heights and widths to check; the network is exported with an image of the first."""
    multiple = network.size_multiple
    side = max(2 * multiple, network.fitting_side(SMALLEST_SIDE))
    return [
        (side + multiple, side),
        (side, side + 3 * multiple),
        (2 * side + multiple, 2 * side),
        (side, side),
    ]


def exported_program(module: InPrecision, image: Tensor) -> torch.export.ExportedProgram:
    """Return the program of a network, for images of every size that it accepts.

    Raises OptionsError if the program holds an operator that PyTorch does not have.
    """
    multiple = module.network.size_multiple
    sides = {
        axis: multiple * torch.export.Dim(name, min=1, max=LARGEST_SIDE // multiple)
        if multiple > 1
        else torch.export.Dim(name, min=1, max=LARGEST_SIDE)
        for axis, name in ((2, "height"), (3, "width"))
    }
    with torch.no_grad(), _silence():
        program = torch.export.export(module, (image,), dynamic_shapes=(sides,), strict=False)
    for node in program.graph.nodes:
        namespace = getattr(node.target, "namespace", "aten")
        if namespace not in ("aten", "higher_order", "prims"):
            raise OptionsError(
                f"{type(module.network).__name__}: uses the operator {node.target}, which only "
                "this project has; define it with PyTorch's operators where it is traced"
            )
    return program


def to_program_file(
    program: torch.export.ExportedProgram, facts: dict[str, Any]
) -> tuple[bytes, Run]:
    """Return the content of a .pt2 file, and a function that runs it."""
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"metadata.json": json.dumps(facts)})
    content.seek(0)
    with _silence():
        module = torch.export.load(content).module()

    def run(image: Tensor) -> Tensor:
        with torch.no_grad():
            restored: Tensor = module(image)
        return restored

    return content.getvalue(), run


def to_onnx_file(program: torch.export.ExportedProgram, facts: dict[str, Any]) -> tuple[bytes, Run]:
    """Return the content of an .onnx file, and a function that runs it with ONNX Runtime."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch.onnx needs it)
    except ModuleNotFoundError as error:
        raise OptionsError(
            f'-o: ONNX needs the package {error.name}: pip install "dtpnet-derain[export]"'
        ) from None
    with tempfile.TemporaryDirectory() as folder, _silence():
        file = Path(folder) / "network.onnx"
        torch.onnx.export(
            program,
            f=file,
            input_names=["lq"],
            output_names=["restored"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        model = onnx.load(file)
    for key, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value)
        model.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        (restored,) = session.run(None, {"lq": image.numpy()})
        return torch.from_numpy(np.asarray(restored))

    return content, run


FORMATS = {".onnx": to_onnx_file, ".pt2": to_program_file}


class _silence(warnings.catch_warnings):
    """Context without the warnings and log messages of PyTorch's exporters."""

    def __enter__(self) -> Any:
        logging.disable(logging.WARNING)
        entered = super().__enter__()
        warnings.simplefilter("ignore")
        return entered

    def __exit__(self, *error: Any) -> None:
        logging.disable(logging.NOTSET)
        super().__exit__(*error)


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(__doc__)
    parser.add_argument(
        "weights",
        metavar="NAME|FILE",
        help="shipped weights, or a .safetensors file of this project",
    )
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="FILE.onnx|FILE.pt2")
    parser.add_argument(
        "--precision", choices=list(DTYPES), default="fp32", help="default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    main()
