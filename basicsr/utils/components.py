"""Sections of option files as pydantic models, made from the signatures of registered classes."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Literal, Union

import torch
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, create_model
from pydantic_core import CoreSchema

from basicsr.utils.registry import Entry, Registry

Fields = dict[str, Any]  # argument -> (annotation, default), as pydantic's create_model takes it


GENERATED = "generated"  # the module of classes that stand for a chosen type


class Strict(BaseModel):
    """A mapping whose keys are all known and whose values are of the announced types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Component(Strict):
    """A mapping with a `type`. Subclasses add the keys that belong to the place of use."""

    type: str

    def arguments(self) -> dict[str, Any]:
        """`type` and its constructor's arguments, without the keys of the place of use."""
        place: Any = next(base for base in type(self).__mro__ if base.__module__ != GENERATED)
        return self.model_dump(exclude=set(place.model_fields) - {"type"})


class OneOf:
    """Annotation of a Component field: which types it may have, each with its own arguments."""

    models: ClassVar[dict[tuple[type[BaseModel], str], type[BaseModel]]] = {}

    def __init__(self, kind: str, choices: Mapping[str, Fields]) -> None:
        self.kind = kind
        self.choices = choices

    @classmethod
    def registered(cls, registry: Registry) -> OneOf:
        return cls(
            registry.kind, {name: fields_of(registry.entry(name)) for name in registry.names()}
        )

    def __get_pydantic_core_schema__(
        self, place: type[Component], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        for name, fields in self.choices.items():
            if (place, name) not in self.models:
                fields = {"type": (Literal[name], ...), **fields}
                self.models[place, name] = create_model(
                    name, __base__=place, __module__=GENERATED, **fields
                )
        union = reduce(or_, (self.models[place, name] for name in self.choices))
        return handler.generate_schema(Annotated[union, Field(discriminator="type")])


def fields_of(entry: Entry, skip: Iterable[str] = ()) -> Fields:
    """The arguments of a constructor as fields; what only a tensor could be is left out."""
    constructed: Any = entry.cls
    hints = typing.get_type_hints(constructed.__init__, include_extras=True)
    return {
        name: (_plain(hints[name]), ... if given.default is inspect._empty else given.default)
        for name, given in entry.parameters().items()
        if name not in skip
    }


def _plain(annotation: Any) -> Any:
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return reduce(or_, (_plain(part) for part in parts if part is not torch.Tensor))
    if typing.get_origin(annotation) is tuple:
        return types.GenericAlias(tuple, tuple(p if p is ... else _plain(p) for p in parts))
    return annotation


def model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel]:
    """The model of the section at `loc`, found by following field types and chosen types."""
    for step in loc:
        if (model, step) in OneOf.models:
            model = OneOf.models[model, str(step)]
        elif step in model.model_fields:
            model = _section(model.model_fields[str(step)].annotation) or model
    return model


def _section(annotation: Any) -> type[BaseModel] | None:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section(part) for part in typing.get_args(annotation))
    return next((section for section in found if section), None)
