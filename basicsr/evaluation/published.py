"""Published checkpoints: into files of ours, and the scores that their authors printed."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from basicsr.archs import from_released
from basicsr.io.checkpoints import load_weights, save_weights
from basicsr.metrics import PROTOCOLS, Scores
from basicsr.utils.errors import CheckpointError, OptionsError
from basicsr.utils.files import sha256
from basicsr.utils.registry import options_of, suggest

QUANTIZE = ("round", "truncate")
PSNR_ALLOWANCE = Decimal("0.01")  # dB, for another device and another library's arithmetic
SSIM_ALLOWANCE = Decimal("0.0001")


class PublishedScore(NamedTuple):
    """A score as it was printed, digit by digit, and how it was obtained.

    `quantize` is how the authors made the restored images 8-bit: "round" or "truncate".
    """

    dataset: str
    psnr: str
    ssim: str
    protocol: str
    quantize: str = "round"

    @classmethod
    def parse(cls, text: str) -> PublishedScore:
        """From "Rain100L:37.48:0.979:matlab_y_double:truncate"; the last part may be left out.

        Raises OptionsError where it is something else.
        """
        parts = text.split(":")
        if len(parts) not in (4, 5):
            raise OptionsError(f"score '{text}': expected DATASET:PSNR:SSIM:PROTOCOL[:truncate]")
        score = cls(*parts)
        for name, number in (("PSNR", score.psnr), ("SSIM", score.ssim)):
            try:
                plain = Decimal(number).is_finite()
            except InvalidOperation:
                plain = False
            if not plain:
                raise OptionsError(f"score '{text}': the {name} '{number}' is no number")
        for name, given, known in (
            ("protocol", score.protocol, PROTOCOLS),
            ("quantization", score.quantize, QUANTIZE),
        ):
            if given not in known:
                raise OptionsError(
                    f"score '{text}': no {name} is called '{given}'{suggest(given, known)}; "
                    f"known: {', '.join(known)}"
                )
        return score

    def tolerances(self) -> tuple[float, float]:
        """How far a measured PSNR and SSIM may be off: what the printed digits leave open, plus
        the allowances."""
        return (
            float(_half_a_digit(self.psnr) + PSNR_ALLOWANCE),
            float(_half_a_digit(self.ssim) + SSIM_ALLOWANCE),
        )

    def agrees_with(self, measured: Scores) -> bool:
        psnr, ssim = self.tolerances()
        return (
            abs(measured.psnr - float(self.psnr)) <= psnr
            and abs(measured.ssim - float(self.ssim)) <= ssim
        )


def _half_a_digit(printed: str) -> Decimal:
    """Half of the last printed digit: 0.005 for "37.48"."""
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
    """Write the published checkpoint `original` of the network `type` as a file of ours.

    `parts` are the further files of a network that was published in several, by hint (DIDMDN).
    The metadata holds the options that rebuild the network, the originals' SHA-256 and the
    `facts`. Returns the network. Raises CheckpointError where a file is no such checkpoint.
    """
    files = {"": original, **parts}
    read = {hint: load_weights(file) for hint, file in files.items()}
    for hint, weights in read.items():
        if weights.network is not None:
            raise CheckpointError(f"{files[hint]}: is a file of this project already")
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
