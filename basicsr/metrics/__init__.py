"""Image quality: `measure(restored, target, protocol)`, and the registries behind it.

Every `*_protocol.py` of this folder registers its metrics and protocols.
"""

from basicsr.metrics import iqa, protocols  # noqa: F401  (they register themselves)
from basicsr.metrics.base import (
    DEFAULT_PROTOCOL,
    METRIC_REGISTRY,
    PROTOCOL_REGISTRY,
    Metric,
    Protocol,
    Scores,
    flag_remarks,
    get_protocol,
    get_score,
    measure,
    metric_label,
    protocol_names,
)
from basicsr.utils.registry import import_modules

__all__ = [
    "DEFAULT_PROTOCOL",
    "METRIC_REGISTRY",
    "PROTOCOL_REGISTRY",
    "Metric",
    "Protocol",
    "Scores",
    "flag_remarks",
    "get_protocol",
    "get_score",
    "measure",
    "metric_label",
    "protocol_names",
]

import_modules(__name__, __path__, "_protocol")
