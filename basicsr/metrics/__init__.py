"""Measuring restored images: `measure(restored, target, protocol)`, and the protocols by name."""

from basicsr.metrics.protocols import PROTOCOLS, Protocol, Scores, measure

__all__ = ["PROTOCOLS", "Protocol", "Scores", "measure"]
