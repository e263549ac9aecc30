"""The search-space DSL: space files, Space, Arch."""

from noahnas.space.arch import Arch
from noahnas.space.budget import Amount, Budget
from noahnas.space.declaration import Choices, ModuleSpace
from noahnas.space.genes import Gene
from noahnas.space.load import parse_space, shipped
from noahnas.space.schema import Attribute, Shape
from noahnas.space.space import Space
from noahnas.space.write import format_space

__all__ = [
    "Amount",
    "Arch",
    "Attribute",
    "Budget",
    "Choices",
    "Gene",
    "ModuleSpace",
    "Shape",
    "Space",
    "format_space",
    "parse_space",
    "shipped",
]
