"""Pydantic models for sections of option files, made from the signatures of registered classes."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, create_model
from pydantic_core import CoreSchema

from basicsr.utils.registry import Entry, Registry

Fields = dict[str, Any]  # argument -> (annotation, default), the format of create_model

GENERATED = "generated"  # __module__ of the models made here


class Strict(BaseModel):
    """Mapping without unknown keys, whose values have exactly the annotated types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Component(Strict):
    """Mapping with a `type` and the arguments of its constructor.

    Subclasses add keys that belong to the section, such as the `weight` of a loss.
    """

    type: str

    def arguments(self) -> dict[str, Any]:
        """Return `type` and the constructor's arguments, without the keys of the section."""
        section: Any = next(base for base in type(self).__mro__ if base.__module__ != GENERATED)
        return self.model_dump(exclude=set(section.model_fields) - {"type"})


class OneOf:
    """Annotation of a Component: the types to choose from, each with its own arguments."""

    models: ClassVar[dict[tuple[type[BaseModel], str], type[BaseModel]]] = {}

    def __init__(self, choices: Mapping[str, Fields]) -> None:
        self.choices = choices

    @classmethod
    def registered(cls, registry: Registry) -> OneOf:
        """Return the choice among all classes of `registry`."""
        return cls({name: fields_of(registry.entry(name)) for name in registry.names()})

    def __get_pydantic_core_schema__(
        self, section: type[Component], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        for name, fields in self.choices.items():
            if (section, name) not in self.models:
                fields = {"type": (Literal[name], ...), **fields}
                self.models[section, name] = create_model(
                    name, __base__=section, __module__=GENERATED, **fields
                )
        union = reduce(or_, (self.models[section, name] for name in self.choices))
        return handler.generate_schema(Annotated[union, Field(discriminator="type")])


def fields_of(
    entry: Entry, skip: Iterable[str] = (), ranges: Mapping[str, Any] | None = None
) -> Fields:
    """Return the arguments of a constructor as fields, without the names in `skip`.

    YAML cannot hold tensors, so they are dropped from unions like `float | Tensor`. `ranges`
    replaces the annotations of arguments by name.
    """
    constructed: Any = entry.cls
    hints = typing.get_type_hints(constructed.__init__, include_extras=True)
    hints.update(ranges or {})
    return {
        name: (_plain(hints[name]), ... if given.default is inspect._empty else given.default)
        for name, given in entry.parameters().items()
        if name not in skip
    }


def _plain(annotation: Any) -> Any:
    """Remove Tensor from the unions in an annotation."""
    from torch import Tensor

    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return reduce(or_, (_plain(part) for part in parts if part is not Tensor))
    if typing.get_origin(annotation) is tuple:
        return types.GenericAlias(tuple, tuple(p if p is ... else _plain(p) for p in parts))
    return annotation


def model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel]:
    """Return the model of the section at `loc`, a pydantic error location."""
    for step in loc:
        if (model, step) in OneOf.models:
            model = OneOf.models[model, str(step)]
        else:
            model = _section(_annotation(model, step)) or model
    return model


def _annotation(model: type[BaseModel], step: str | int) -> Any:
    """Return the annotation of a field or, if there is none of that name, of extra fields."""
    if step in model.model_fields:
        return model.model_fields[str(step)].annotation
    return inspect.get_annotations(model, eval_str=True).get("__pydantic_extra__")


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the first model in an annotation."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    for part in typing.get_args(annotation):
        if section := _section(part):
            return section
    return None
