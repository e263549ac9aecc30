"""The search-space DSL: space files, Space, Arch."""

from noahnas.space.arch import Arch
from noahnas.space.declaration import Budget, ModuleSpace
from noahnas.space.load import format_space, parse_space, shipped
from noahnas.space.schema import Attribute, Shape
from noahnas.space.space import Gene, Space

__all__ = [
    "Arch",
    "Attribute",
    "Budget",
    "Gene",
    "ModuleSpace",
    "Shape",
    "Space",
    "format_space",
    "parse_space",
    "shipped",
]
