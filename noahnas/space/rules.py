"""Rules: a small closed grammar of relations that architectures must obey. Parsed by hand.

    rule       = "at most" N "modules per block"
               | M.ATTRIBUTE ("non-decreasing" | "non-increasing")
               | "if" comparison "then" comparison
               | comparison
    comparison = M.depth OP (N | FRACTION | "all" | M.depth)
               | M.dim OP (N | M.dim)
               | M.ATTRIBUTE OP VALUE
    OP         = "==" | "!=" | "<" | "<=" | ">" | ">="

`M.depth` is the number of blocks with dim > 0. A comparison of dims or attributes is read block by
block; in a block without the module the dim is 0, and what is said of its attributes holds.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from noahnas.space.declaration import Depth, read_depth
from noahnas.space.schema import Value

OPERATORS: dict[str, Callable[..., bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
ORDERS: dict[str, Callable[..., bool]] = {
    "non-decreasing": operator.le,
    "non-increasing": operator.ge,
}
FORMS = (
    "a rule is 'at most N modules per block', 'M.dim non-decreasing', 'A OP B' or "
    "'if A OP B then C OP D', such as 'if vpt.depth == all then adapter.dim <= 16'"
)
_TERM = re.compile(r"([A-Za-z_][\w-]*)\.([A-Za-z_]\w*)")
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_WORD = re.compile(r"[A-Za-z_][\w+-]*")
_COMPARISON = re.compile(r"(\S+) (==|!=|<=|>=|<|>) (\S+)")
_AT_MOST = re.compile(r"at most ([0-9]{1,4}) modules? per block")
MAX_TEXT = 200


@dataclass(frozen=True)
class Term:
    """`lora.dim`: an attribute of a module, or its depth."""

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}.{self.attribute}"


@dataclass(frozen=True)
class Comparison:
    """`left op right`."""

    left: Term
    op: str
    right: Term | Depth | Value

    def __str__(self) -> str:
        right = str(self.right).lower() if isinstance(self.right, bool) else self.right
        return f"{self.left} {self.op} {right}"

    @property
    def of_depth(self) -> bool:
        """Whether it is about whole architectures rather than single blocks."""
        return self.left.attribute == "depth"

    @property
    def terms(self) -> tuple[Term, ...]:
        """What it compares."""
        return (self.left, self.right) if isinstance(self.right, Term) else (self.left,)

    def holds(self, values: Mapping[Term, Value]) -> bool | None:
        """Its truth for these values of the terms; None where a value is None."""
        left = values[self.left]
        right = values[self.right] if isinstance(self.right, Term) else self.right
        if left is None or right is None:
            return None
        return OPERATORS[self.op](left, right)


@dataclass(frozen=True)
class AtMost:
    """`at most N modules per block`."""

    count: int

    def __str__(self) -> str:
        return f"at most {self.count} modules per block"


@dataclass(frozen=True)
class Ordered:
    """`lora.dim non-decreasing`, over the blocks that have the module."""

    term: Term
    order: str

    def __str__(self) -> str:
        return f"{self.term} {self.order}"


@dataclass(frozen=True)
class Implies:
    """`if condition then conclusion`."""

    condition: Comparison
    conclusion: Comparison

    def __str__(self) -> str:
        return f"if {self.condition} then {self.conclusion}"


Rule = AtMost | Ordered | Implies | Comparison


def parse_rule(text: str) -> Rule:
    """A rule from its text.

    Raises:
        ValueError: if it is none; says why.
    """
    words = " ".join(text.split())
    if len(words) > MAX_TEXT:
        raise ValueError(f"a rule has at most {MAX_TEXT} letters")
    if match := _AT_MOST.fullmatch(words):
        return AtMost(int(match[1]))
    if words.startswith("if ") and words.count(" then ") == 1:
        condition, _, conclusion = words.removeprefix("if ").partition(" then ")
        return Implies(_comparison(condition), _comparison(conclusion))
    subject, _, order = words.rpartition(" ")
    if order in ORDERS and (term := _term(subject)):
        if term.attribute == "depth":
            raise ValueError(f"'{words}': a depth has no order; order a dim or an attribute")
        return Ordered(term, order)
    return _comparison(words)


def _term(text: str) -> Term | None:
    match = _TERM.fullmatch(text)
    return Term(match[1], match[2]) if match else None


def _comparison(text: str) -> Comparison:
    spaced = re.sub(r"\s*(==|!=|<=|>=|<(?!=)|>(?!=))\s*", r" \1 ", text).strip()
    match = _COMPARISON.fullmatch(spaced)
    left = _term(match[1]) if match else None
    if not match or not left:
        raise ValueError(f"'{text}' is no comparison: {FORMS}")
    right = _term(match[3])
    if right:
        numbers = {left.attribute, right.attribute}
        if numbers not in ({"dim"}, {"depth"}):
            raise ValueError(f"'{text}' compares unlike things; compare dims, or depths")
        return Comparison(left, match[2], right)
    return Comparison(left, match[2], _literal(left.attribute, match[3], text))


def _literal(attribute: str, word: str, text: str) -> Depth | Value:
    number = _NUMBER.fullmatch(word)
    whole = int(word) if number and not number[1] else None
    if attribute == "depth":
        try:
            return read_depth(word if whole is None else whole)
        except Exception:
            raise ValueError(
                f"'{text}': a depth is a count of blocks, a fraction such as 1/4, or all"
            ) from None
    if attribute == "dim":
        if whole is None or whole < 0:
            raise ValueError(f"'{text}': a dim is a whole number of at least 0")
        return whole
    if whole is not None:
        return whole
    if number:
        return float(word)
    if word in ("true", "false"):
        return word == "true"
    if _WORD.fullmatch(word):
        return word
    raise ValueError(f"'{text}': '{word}' is neither a number nor a word")


# --- on a bound space --------------------------------------------------------------------------


def bound_rule(rule: Rule, blocks: int) -> Rule:
    """The rule with fractions and `all` as numbers of blocks.

    Raises:
        ValueError: if a fraction is not a whole number of blocks, or a depth is beyond them.
    """
    if isinstance(rule, Implies):
        pair = (bound_rule(part, blocks) for part in (rule.condition, rule.conclusion))
        return Implies(*pair)  # type: ignore[arg-type]  # a Comparison stays one
    if isinstance(rule, Comparison) and rule.of_depth and not isinstance(rule.right, Term):
        count = count_of(rule.right, blocks)  # type: ignore[arg-type]  # a depth
        if count > blocks and rule.op in ("==", "!="):
            raise ValueError(
                f"{rule.left} is at most the backbone's {blocks} blocks, never {count}"
            )
        return Comparison(rule.left, rule.op, count)
    return rule


def count_of(depth: Depth, blocks: int) -> int:
    """A depth as a number of blocks.

    Raises:
        ValueError: if it is not whole.
    """
    if isinstance(depth, Fraction):
        if (depth * blocks).denominator != 1:
            raise ValueError(f"{depth} of {blocks} blocks is not a whole number of blocks")
        return int(depth * blocks)
    return blocks if depth == "all" else int(depth)


def terms_of(rule: Rule) -> tuple[Term, ...]:
    """Every term that a rule speaks of."""
    if isinstance(rule, Implies):
        return rule.condition.terms + rule.conclusion.terms
    if isinstance(rule, Ordered):
        return (rule.term,)
    return rule.terms if isinstance(rule, Comparison) else ()


def breaks(
    rule: Rule,
    blocks: int,
    value: Callable[[Term, int], Value],
    present: Sequence[Sequence[bool]],
) -> int:
    """In how many places an architecture breaks a bound rule.

    Args:
        rule: with depths as numbers of blocks.
        blocks: of the backbone.
        value: of a term in a block; a depth is the same in each.
        present: for each module, whether it is in each block.
    """
    if isinstance(rule, AtMost):
        return sum(sum(there) > rule.count for there in zip(*present, strict=True))
    if isinstance(rule, Ordered):
        dim = Term(rule.term.module, "dim")
        values = [value(rule.term, i) for i in range(blocks) if value(dim, i)]
        in_order = ORDERS[rule.order]
        return sum(not in_order(a, b) for a, b in itertools.pairwise(values))
    condition = rule.condition if isinstance(rule, Implies) else None
    conclusion = rule.conclusion if isinstance(rule, Implies) else rule
    once = conclusion.of_depth and (condition is None or condition.of_depth)
    terms = terms_of(rule)
    return sum(
        broken(condition, conclusion, {term: value(term, i) for term in terms})
        for i in range(1 if once else blocks)
    )


def broken(
    condition: Comparison | None, conclusion: Comparison | None, values: Mapping[Term, Value]
) -> bool:
    """Whether the condition holds and the conclusion does not; None stands for true and false."""
    met = True if condition is None else condition.holds(values)
    kept = False if conclusion is None else conclusion.holds(values)
    return met is True and kept is False
