"""How restored images are measured: `measure(restored, target, protocol)`, every protocol by name."""

from .protocols import PROTOCOLS, Protocol, Scores, measure

__all__ = ["PROTOCOLS", "Protocol", "Scores", "measure"]
