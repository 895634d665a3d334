"""Ranges of option values. Constructors annotate their arguments with these types."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Positive = Annotated[int, Field(gt=0, le=10**9)]
NotNegative = Annotated[int, Field(ge=0, le=10**9)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # of NumPy
Gibibytes = Annotated[float, Field(gt=0, le=2**20)]
Factor = Annotated[float, Field(ge=0, le=1e6)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0, le=1)]
LearningRate = Annotated[float, Field(ge=0, le=1000)]
SelfEnsemble = Literal[False, True, "mirror"]
