"""A network computed by OpenVINO on a CPU; its conversion is cached for the user."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from basicsr import archs
from basicsr.archs import RestorationNetwork
from basicsr.utils.errors import OptionsError
from basicsr.utils.files import atomic_write, cache_folder, is_own
from basicsr.utils.registry import options_of

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
TOLERANCE = 1e-4
"""Allowed difference to PyTorch in float32, relative to the largest value if that is above 1."""
ARCHS = Path(archs.__file__).parent
CACHED_NETWORKS = 4
FEATURE_COPIES = 3
"""Measured: DTPNet-T at 768 x 768 in float32 allocates 2.8 times the features that are needed."""
SMALLEST_SIDE = 24  # of the images that conversions are made and checked with


class OpenVINONetwork:
    """Network that OpenVINO computes, for images of any height and width that the network takes.

    The conversion of a network, which takes seconds, is kept in the user's cache folder under a
    hash of its weights, its options and the code of the networks. Before it is kept, its outputs
    are compared with PyTorch's in several sizes.

    Args:
        network: network with float32 weights on the CPU, in eval mode.
        precision: "fp32", or "bf16" on a processor with units for it.

    Raises:
        OptionsError: the package is missing, or OpenVINO cannot compute this network.
    """

    def __init__(self, network: RestorationNetwork, precision: str) -> None:
        try:
            import openvino
        except ModuleNotFoundError:
            raise OptionsError(
                'backend: openvino is not installed; pip install "dtpnet-derain[openvino]"'
            ) from None
        self.core = openvino.Core()
        model = self._cached(network)
        self.bytes_per_pixel = _bytes_per_pixel(model, network)
        config = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.run = self.core.compile_model(model, "CPU", config)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the network's output for a 1 x C x H x W image, in float32."""
        (restored,) = self.run(x.float().contiguous().numpy()).values()
        return torch.tensor(restored)

    def memory(self, x: Tensor) -> int:
        """Return about how many bytes OpenVINO allocates for image `x`."""
        return FEATURE_COPIES * self.bytes_per_pixel * x.shape[2] * x.shape[3]

    def _cached(self, network: RestorationNetwork) -> Any:
        """Return OpenVINO's model of the network from the cache, into which it is put if needed."""
        import openvino

        stem = f"{type(network).__name__}-{_key(network, openvino.__version__)}"
        graph, weights = (cache_folder() / f"{stem}{suffix}" for suffix in (".xml", ".bin"))
        if is_own(graph) and is_own(weights):
            graph.touch()  # the least recently used ones are removed first
            return self.core.read_model(graph)
        model = converted(network)
        run = self.core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        _check(network, run)
        with tempfile.TemporaryDirectory(dir=graph.parent) as folder:
            made = Path(folder, "network.xml")
            openvino.save_model(model, made, compress_to_fp16=False)
            for source, target in ((made.with_suffix(".bin"), weights), (made, graph)):
                with atomic_write(target) as file:
                    file.write(source.read_bytes())
        _remove_oldest(graph.parent)
        return model


def converted(network: RestorationNetwork) -> Any:
    """Return OpenVINO's model of a network, for 1 x C x H x W images of any H and W.

    Raises OptionsError if OpenVINO lacks an operation of the network, or if code of the network
    decides by the size of the image.
    """
    # openvino.convert_model does the same, but reports its use over the internet
    from openvino import PartialShape
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    image = torch.rand(1, network.in_channels, *check_sizes(network)[0])
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trace = torch.jit.trace(network, (image,), check_trace=False)
    for warning in caught:  # RestorationNetwork's and PyTorch's are about checks of the shape
        code = Path(warning.filename)
        decides = issubclass(warning.category, torch.jit.TracerWarning)
        if decides and code.name != "base.py" and code.is_relative_to(ARCHS):
            place = f"{code.name}, line {warning.lineno}"
            raise _unsupported(network, f"{place} depends on the size of the image")
    frontend = FrontEndManager().load_by_framework("pytorch")
    try:
        decoder = TorchScriptPythonDecoder(trace, example_input=(image,))
        loaded = frontend.load(decoder)  # does not keep the decoder alive
        model = frontend.convert(loaded)
        model.reshape({0: PartialShape([1, network.in_channels, -1, -1])})
    except Exception as error:  # the frontend's errors have no common class
        lines = str(error).splitlines()
        reason = next((line for line in lines if "No conversion rule" in line), lines[-1])
        raise _unsupported(network, reason.lstrip("- ")) from error
    return model


def check_sizes(network: RestorationNetwork) -> list[tuple[int, int]]:
    """Return heights and widths to check; the network is converted with an image of the first."""
    multiple = network.size_multiple
    side = network.fitting_side(max(2 * multiple, SMALLEST_SIDE))
    return [
        (side + multiple, side),
        (side, side + 3 * multiple),
        (network.fitting_side(6 * side), side + 2 * multiple),
    ]


def _check(network: RestorationNetwork, run: Any) -> None:
    """Raise OptionsError if outputs differ from PyTorch's."""
    generator = torch.Generator().manual_seed(0)
    for height, width in check_sizes(network):
        image = torch.rand(1, network.in_channels, height, width, generator=generator)
        with torch.no_grad():
            expected = network(image)
        try:
            (restored,) = run(image.numpy()).values()
        except RuntimeError as error:
            raise _unsupported(network, str(error).splitlines()[-1]) from error
        difference = (torch.tensor(restored) - expected).abs().max()
        difference /= max(1.0, float(expected.abs().max()))
        if not difference <= TOLERANCE:  # also if it is not a number
            raise _unsupported(
                network,
                f"at {width}x{height}, its outputs differ from PyTorch's by {difference:.1e}",
            )


def _unsupported(network: RestorationNetwork, reason: str) -> OptionsError:
    return OptionsError(
        f"backend: OpenVINO cannot compute {type(network).__name__} ({reason}); use pytorch"
    )


def _bytes_per_pixel(model: Any, network: RestorationNetwork) -> int:
    """Return the largest sum of the features that exist at the same time, by pixel of the image."""
    side = network.fitting_side(256)
    model = model.clone()
    model.reshape([1, network.in_channels, side, side])
    operations = model.get_ordered_ops()
    last_use: dict[str, int] = {}
    for place, operation in enumerate(operations):
        for value in operation.inputs():
            last_use[value.get_source_output().get_node().get_name()] = place
    total = largest = 0
    released: dict[int, int] = {}
    for place, operation in enumerate(operations):
        if operation.get_type_name() != "Constant":
            size = sum(_bytes(output) for output in operation.outputs())
            total += size
            end = last_use.get(operation.get_name(), len(operations))
            released[end] = released.get(end, 0) + size
        largest = max(largest, total)
        total -= released.pop(place, 0)
    return -(-largest // side**2)


def _bytes(output: Any) -> int:
    shape = output.get_partial_shape()
    if shape.is_dynamic:  # such as a number of elements, which is small
        return 0
    size: int = output.get_element_type().size
    for length in shape.to_shape():
        size *= length
    return size


def _key(network: RestorationNetwork, version: str) -> str:
    """Return a hash of all that the conversion depends on."""
    facts = [version, torch.__version__, options_of(network)]
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    for file in sorted(ARCHS.rglob("*.py")):
        digest.update(file.read_bytes())
    digest.update(Path(__file__).read_bytes())
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _remove_oldest(folder: Path) -> None:
    """Keep the networks that were used most recently."""
    graphs = sorted(folder.glob("*.xml"), key=lambda file: file.stat().st_mtime)
    for graph in graphs[:-CACHED_NETWORKS]:
        graph.unlink(missing_ok=True)
        graph.with_suffix(".bin").unlink(missing_ok=True)
