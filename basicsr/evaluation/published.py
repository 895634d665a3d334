"""Published checkpoints: their conversion, and the scores that their authors printed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from basicsr.archs import from_released
from basicsr.io.checkpoints import load_weights, save_weights
from basicsr.metrics import Protocol, Scores, get_protocol
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.files import sha256
from basicsr.utils.registry import options_of, suggest

QUANTIZE = ("round", "truncate")


class PublishedScore(NamedTuple):
    """Scores of one data set as they were printed, digit by digit.

    `scores` has the printed numbers by metric. `quantize` is how the authors made restored images
    8-bit: "round" or "truncate".
    """

    dataset: str
    scores: dict[str, str]
    protocol: str
    quantize: str = "round"

    @classmethod
    def parse(cls, text: str) -> PublishedScore:
        """Parse "Rain100L:37.48:0.979:matlab_y_double:truncate"; the last part is optional.

        The numbers are those of the protocol's metrics, in order. "Rain100L:psnr=37.48:matlab_y"
        names them instead. Raises OptionsError if the text is malformed.
        """
        dataset, *parts = text.split(":")
        named = list(itertools.takewhile(lambda part: "=" in part, parts))
        if named:
            protocol_parts = parts[len(named) :]
            quantize = "round"
            if len(protocol_parts) > 1 and protocol_parts[-1] in QUANTIZE:
                quantize = protocol_parts.pop()
            protocol = _protocol(text, ":".join(protocol_parts))
            printed = dict(part.split("=", 1) for part in named)
        elif len(parts) in (3, 4):
            protocol, quantize = _protocol(text, parts[2]), "".join(parts[3:]) or "round"
            if len(protocol.metrics) < 2:
                raise OptionsError(
                    f"score '{text}': protocol '{protocol.name}' has 1 metric; use METRIC=VALUE"
                )
            printed = dict(zip([metric.name for metric in protocol.metrics], parts, strict=False))
        else:
            raise OptionsError(
                f"score '{text}': expected DATASET:PSNR:SSIM:PROTOCOL[:truncate] or "
                "DATASET:METRIC=VALUE[:METRIC=VALUE...]:PROTOCOL[:truncate]"
            )
        if quantize not in QUANTIZE:
            raise OptionsError(
                f"score '{text}': no quantization is called '{quantize}'"
                f"{suggest(quantize, QUANTIZE)}; known: {', '.join(QUANTIZE)}"
            )
        for name, number in printed.items():
            _require_number(text, protocol, name, number)
        return cls(dataset, printed, protocol.name, quantize)

    @classmethod
    def from_facts(cls, facts: Mapping[str, str]) -> PublishedScore:
        """Return the score that the metadata of a weights file holds."""
        scores = dict(facts)
        dataset, protocol = scores.pop("dataset"), scores.pop("protocol")
        return cls(
            dataset, quantize=scores.pop("quantize", "round"), protocol=protocol, scores=scores
        )

    def facts(self) -> dict[str, str]:
        """Return the score as metadata of a weights file."""
        return {
            "dataset": self.dataset,
            **self.scores,
            "protocol": self.protocol,
            "quantize": self.quantize,
        }

    def tolerances(self) -> dict[str, float]:
        """Return by metric how far a measured value may be off.

        That is half of the last printed digit, plus one unit of the last digit that tables show of
        the metric (0.01 dB), for another device and another library's arithmetic.
        """
        metrics = {metric.name: metric for metric in get_protocol(self.protocol).metrics}
        return {
            name: float(_half_a_digit(printed) + Decimal(1).scaleb(-metrics[name].decimals))
            for name, printed in self.scores.items()
        }

    def agrees_with(self, measured: Scores) -> bool:
        return all(
            abs(measured[name] - float(self.scores[name])) <= tolerance
            for name, tolerance in self.tolerances().items()
        )


def _protocol(text: str, name: str) -> Protocol:
    try:
        return get_protocol(name)
    except OptionsError as error:
        raise OptionsError(f"score '{text}': {error}") from None


def _require_number(text: str, protocol: Protocol, name: str, number: str) -> None:
    try:
        label = protocol.metric(name).label
    except OptionsError as error:
        raise OptionsError(f"score '{text}': {error}") from None
    try:
        finite = Decimal(number).is_finite()
    except InvalidOperation:
        finite = False
    if not finite:
        raise OptionsError(f"score '{text}': the {label} '{number}' is not a number")


def _half_a_digit(printed: str) -> Decimal:
    """Return half of the last printed digit: 0.005 for "37.48"."""
    exponent = Decimal(printed).as_tuple().exponent
    assert isinstance(exponent, int)  # finite
    return Decimal(5).scaleb(exponent - 1)


def convert(
    type: str,
    original: Path,
    out: Path,
    hints: Mapping[str, Any],
    parts: Mapping[str, Path],
    **facts: Any,
) -> nn.Module:
    """Convert a published checkpoint to a .safetensors file that describes itself.

    Args:
        type: registered name of the network.
        original: the published file.
        out: the file to write. Its metadata holds the options that rebuild the network, the
            SHA-256 of the originals and the `facts`.
        hints: constructor arguments that cannot be read from the weights.
        parts: further files of a network that was published in several, by hint (DIDMDN).
        **facts: training set, source and published scores.

    Returns:
        the network with the weights.

    Raises:
        CheckpointError: if a file is not such a checkpoint.
    """
    files = {"": original, **parts}
    read = {hint: load_weights(file) for hint, file in files.items()}
    for hint, weights in read.items():
        if weights.network is not None:
            raise CheckpointError(f"{files[hint]}: was converted already")
    others = {hint: read[hint].state_dict for hint in parts}
    try:
        network = from_released(type, read[""].state_dict, **hints, **others)
    except CheckpointError as error:
        names = " with ".join(str(file) for file in files.values())
        raise CheckpointError(f"{names}: {error}") from None
    save_weights(
        out,
        network.state_dict(),
        {**options_of(network), "type": type},
        originals=[{"file": file.name, "sha256": sha256(file)} for file in files.values()],
        **facts,
    )
    return network
