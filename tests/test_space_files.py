"""Space files: the grammar, what is printed, and what is wrong with a broken one."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from noahnas import Space
from noahnas.__main__ import main
from noahnas.errors import NoahnasError, SpaceError
from noahnas.report.spaces import notes
from noahnas.space import Budget, Choices, ModuleSpace, format_space, parse_space, shipped
from noahnas.space.budget import flops_amount, latency_amount, params_amount
from noahnas.space.check import check
from noahnas.space.editor import json_schema
from noahnas.space.rules import parse_rule
from noahnas.space.selectors import select

from .speed import within

pytestmark = pytest.mark.usefixtures("gate")
BROKEN = Path(__file__).parent / "broken_spaces"
SHIPPED = Path(__file__).parents[1] / "search_spaces"


def of(modules: str, rest: str = "") -> Space:
    return parse_space(f"name: x\nmodules:\n  {modules}\n{rest}")


# --- the grammar -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("lora: {dim: 4}", ModuleSpace(4)),
        ("lora: {dim: [5, 1, 10]}", ModuleSpace((1, 5, 10))),
        ("lora: {dim: {from: 4, to: 16, step: 4}}", ModuleSpace((4, 8, 12, 16))),
        ("lora: {dim: {from: 4, to: 64, factor: 2}}", ModuleSpace((4, 8, 16, 32, 64))),
        ("lora: {dim: 1, depth: [1/4, 3, all]}", ModuleSpace(1, (3, Fraction(1, 4), "all"))),
        ("lora: {dim: 1, depth: 2/2}", ModuleSpace(1, "all")),
        ("lora: {dim: 1, depth: {from: 3, to: 9, step: 3}}", ModuleSpace(1, (3, 6, 9))),
        ("lora: {dim: 1, depth: [3], from: last}", ModuleSpace(1, 3, "last")),
        ("lora: {dim: 1, tie: thirds}", ModuleSpace(1, tie="thirds")),
        ("lora: {blocks: {0-5: [1, 2], -1: 3}}", ModuleSpace(blocks={"0-5": (1, 2), "-1": (3,)})),
        ("gate: {dim: 1, sides: both}", ModuleSpace(1, attributes={"sides": "both"})),
        (
            "gate: {dim: 1, alpha: {from: 1, to: 2, step: 0.5, tie: none}, bias: [false, true]}",
            ModuleSpace(
                1, attributes={"alpha": Choices((1, 1.5, 2), "none"), "bias": (False, True)}
            ),
        ),
        (
            "gate: {dim: 1, alpha: {choices: [8, null], tie: pairs}}",
            ModuleSpace(1, attributes={"alpha": Choices((None, 8), "pairs")}),
        ),
    ],
)
def test_each_form_of_the_grammar_equals_what_python_builds(
    text: str, declared: ModuleSpace
) -> None:
    name = text.partition(":")[0]
    assert of(text) == Space("x", {name: declared})
    assert of(text).modules[name] == declared


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("3", [3]),
        ("-1", [11]),
        ("0-5", [0, 1, 2, 3, 4, 5]),
        ("9-", [9, 10, 11]),
        ("last 3", [9, 10, 11]),
        ("every 4", [0, 4, 8]),
    ],
)
def test_a_selector_names_blocks(text: str, blocks: list[int]) -> None:
    assert list(select(text, 12)) == blocks


def test_dim_is_for_the_blocks_that_no_selector_names() -> None:
    space = of("lora: {dim: [1], blocks: {every 2: [0, 4]}}")
    assert space.parts["lora"].choices == ((0, 4), (1,)) * 6
    alone = of("lora: {blocks: {last 2: [4]}}")
    assert [gene.name for gene in alone.genes] == ["lora.depth", "lora.dim.10", "lora.dim.11"]
    assert alone.largest.dims("lora") == (0,) * 10 + (4, 4)


def test_a_depth_counts_from_either_end_and_a_fraction_is_of_the_backbone() -> None:
    space = of("lora: {dim: [1, 2], depth: [1/4, all], from: last}")
    assert space.parts["lora"].depths == (3, 12)
    assert space.bind(blocks=4).parts["lora"].depths == (1, 4)
    assert space.decode([0] + [1] * 12).dims("lora") == (0,) * 9 + (2,) * 3


def test_a_tie_makes_one_gene_of_a_group_and_an_attribute_is_one_gene_unless_told() -> None:
    names = [g.name for g in of("gate: {dim: [1, 2], tie: thirds, alpha: [1, 2]}").genes]
    assert names == [
        "gate.depth",
        "gate.dim.0-3",
        "gate.dim.4-7",
        "gate.dim.8-11",
        "gate.alpha",
    ]
    tied = of("gate: {dim: [1, 2], tie: all, alpha: {choices: [1, 2], tie: pairs}}").genes
    assert [g.name for g in tied][1:3] == ["gate.dim", "gate.alpha.0-1"]
    partly = of("lora: {dim: [1, 2], tie: pairs, depth: [3, 4]}").bind(blocks=4)
    assert partly.decode([0, 0, 1]).dims("lora") == (1, 1, 2, 0)


def test_an_attribute_at_its_default_is_not_stated() -> None:
    space = of("gate: {dim: [1, 2], sides: [one, both]}").bind(blocks=2)
    plain = space.decode([0, 0, 1, 0])
    assert set(plain["gate"]) == {"dim"}
    assert space.decode([0, 0, 1, 1])["gate"]["sides"] == ("both", "both")
    from noahnas import Arch

    stated = Arch(gate={"dim": (1, 2), "sides": ("one", "one")})
    assert space.canonical(stated) == plain
    assert stated in space
    assert space.encode(stated) == space.encode(plain)
    assert not of("gate: {dim: [1, 2], sides: both}").bind(blocks=2).contains(plain)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("params: 0.64M", (0, 640_000)),
        ("params: {max: 640k, min: 1k}", (1000, 640_000)),
        ("params: {min: 1k}", (1000, None)),
        ("params: 0.5% of backbone", (0, 428_993)),  # of 85 798 656
        ("params: 40% of dearest", (0, 14_745)),  # of 12 × 4 × 768
        ("params: {max: 100k, head: true}", (0, 100_000 - 10 * 769)),
    ],
)
def test_a_budget_on_parameters(text: str, limits: tuple[int, int | None]) -> None:
    space = of("lora: {dim: [0, 1]}", f"budget: {{{text}}}").bind(classes=10)
    assert space.limits == limits


def test_a_share_of_the_backbone_is_of_its_own_parameters(backbone: Any) -> None:
    space = of("lora: {dim: [0, 1]}", "budget: {params: 10% of backbone}").bind(backbone.model)
    head = sum(p.numel() for p in backbone.model.head.parameters())
    whole = sum(p.numel() for p in backbone.model.parameters()) - head
    assert space.limits == (0, whole // 10)
    mlp = backbone.model.blocks[0].mlp.fc1.out_features
    assert (space.hidden, space.tokens) == (mlp, backbone.model.pos_embed.shape[1])


def test_flops_are_limited_relative_to_the_frozen_backbone() -> None:
    """A gate of dim h adds 2·N·D·h to each block's 8·N·D² + 4·N²·D + 4·N·D·H."""
    text = "gate: {dim: [1, 2]}"
    space = of(text, "budget: {flops: 1.02x}").bind(blocks=2, width=4, hidden=8, tokens=3)
    frozen = 2 * 2 * (4 * 3 * 16 + 2 * 9 * 4 + 2 * 3 * 4 * 8)
    extra = int(0.02 * frozen)
    feasible = [a for a in space.enumerate() if 2 * 3 * 4 * sum(a.dims("gate")) <= extra]
    assert [a for a in space.enumerate() if space.feasible(a)] == feasible
    assert not feasible
    with pytest.raises(SpaceError, match=r"no architecture meets the budget of 1.02x FLOPs"):
        space.check_budget()
    wider = of(text, "budget: {flops: 1.05x}").bind(blocks=2, width=4, hidden=8, tokens=3)
    assert [a.dims("gate") for a in wider.enumerate() if wider.feasible(a)] == [
        (1, 1), (1, 2), (2, 1),
    ]  # fmt: skip
    with pytest.raises(SpaceError, match="a budget on flops is not counted"):
        wider.count()
    draws = wider.sample(np.random.default_rng(0), 300)
    assert {a.dims("gate") for a in draws} == {(1, 1), (1, 2), (2, 1)}
    assert wider.exact.acceptance == pytest.approx(0.75, abs=0.1)
    assert check(wider).feasible is None


def test_latency_is_limited_by_what_is_measured() -> None:
    space = of("lora: {dim: [0, 1, 2]}", "budget: {latency: 1.5x}").bind(blocks=2)
    assert all(space.feasible(arch) for arch in space.enumerate())  # nothing measures yet
    asked = []

    def measured(arch: Any) -> float:
        asked.append(arch)
        return 2.0 + sum(arch.dims("lora"))  # ms

    timed = space.timed(measured)
    dims = {a.dims("lora") for a in timed.enumerate() if timed.feasible(a)}
    assert dims == {(), (0, 1), (1, 0)}
    assert len(asked) == len(set(asked)) == 9
    assert {a.dims("lora") for a in timed.sample(np.random.default_rng(0), 50)} == dims
    assert timed.exact.reason == "a budget on latency is not counted"


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (params_amount, "5 apples"),
        (params_amount, "101% of dearest"),
        (params_amount, "1.5"),
        (params_amount, "20ms"),
        (flops_amount, "5%"),
        (latency_amount, "0ms"),
        (latency_amount, "1e3ms"),
    ],
)
def test_what_is_no_amount_is_refused(read: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read(text)


# --- extends ---------------------------------------------------------------------------------


def test_a_space_extends_another_key_by_key_and_null_drops_a_part(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "one.yaml").write_text(
        "name: one\nextends: noah-vtab\nrules: [lora.dim <= 5]"
    )
    (tmp_path / "two.yaml").write_text(
        "name: two\nextends: base/one.yaml\nbudget: null\n"
        "modules: {adapter: null, vpt: {dim: [0, 2], depth: null}}"
    )
    space = Space.load(tmp_path / "two.yaml")
    lora = ModuleSpace((1, 5, 10), (3, 6, 9, 12))
    assert space == Space(
        "two", {"lora": lora, "vpt": ModuleSpace((0, 2))}, rules=["lora.dim <= 5"]
    )


def test_a_fault_that_shows_when_bound_keeps_the_place_of_what_was_extended(
    tmp_path: Path,
) -> None:
    (tmp_path / "base.yaml").write_text("name: b\nmodules:\n  lora: {dim: [1], depth: [9]}\n")
    (tmp_path / "own.yaml").write_text("name: o\nextends: base.yaml\nmodules: {vpt: {dim: 1}}\n")
    with pytest.raises(SpaceError) as caught:
        Space.load(tmp_path / "own.yaml").bind(blocks=4)
    assert str(caught.value).startswith(f"{tmp_path}/base.yaml:3:27: lora.depth 9 exceeds")


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "device", "chain", "bytes"])
def test_what_extends_leads_to_must_be_a_file_in_the_folder(tmp_path: Path, kind: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    there = home / "base.yaml"
    if kind == "link":
        (tmp_path / "secret.yaml").write_text("name: s\nmodules: {lora: {dim: 1}}")
        there.symlink_to(tmp_path / "secret.yaml")
    elif kind == "fifo":
        os.mkfifo(there)
    elif kind == "directory":
        there.mkdir()
    elif kind == "device":
        there.symlink_to("/dev/zero")
    elif kind == "bytes":
        there.write_bytes(b"name: \xff")
    else:
        for i in range(40):
            (home / f"c{i}.yaml").write_text(f"name: c\nextends: c{i + 1}.yaml\n")
        there.write_text("name: c\nextends: c0.yaml\n")
    (home / "own.yaml").write_text("name: o\nextends: base.yaml\n")
    message = {
        "link": "own.yaml:2:10: extends takes a path to a .yaml file in this file's folder",
        "fifo": "own.yaml:2:10: extends: 'base.yaml' is no regular file",
        "directory": "own.yaml:2:10: extends: 'base.yaml' is no regular file",
        "device": "own.yaml:2:10: extends takes a path",
        "chain": "c17.yaml:2:10: more than 20 spaces extend each other",
        "bytes": "base.yaml:1:1: not UTF-8",
    }[kind]
    with pytest.raises(SpaceError) as caught:
        Space.load(home / "own.yaml")
    assert message in str(caught.value)


def test_text_without_a_folder_extends_shipped_spaces_alone() -> None:
    assert parse_space("name: x\nextends: tiny").modules == Space.load("tiny").modules
    with pytest.raises(SpaceError, match="no folder"):
        parse_space("name: x\nextends: ./tiny.yaml")


# --- printing --------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
dims = st.lists(st.integers(0, 60), min_size=1, max_size=3, unique=True)
depths = st.lists(
    st.integers(0, 12) | st.sampled_from([Fraction(1, 4), Fraction(2, 3), "all"]),
    max_size=3,
    unique=True,
)
ties = st.sampled_from(["none", "all", "pairs", "thirds"])
counts = st.integers(1, 10**9) | st.sampled_from(["0.5% of backbone", "12.5% of dearest"])
budgets = st.none() | st.builds(
    Budget,
    params=st.none() | counts,
    least=st.none() | counts,
    head=st.booleans(),
    flops=st.none() | st.sampled_from(["1.05x", "2x"]),
    latency=st.none() | st.sampled_from(["20ms", "1.25x"]),
).filter(lambda b: bool(b.limits) and (not b.head or b.params is not None or b.least is not None))
scales = st.none() | st.integers(0, 9) | st.sampled_from([0.5, 0.1])
attributes = st.fixed_dictionaries(
    {},
    optional={
        "sides": st.builds(Choices, st.sampled_from([("one",), ("both", "one")]), ties),
        "alpha": st.builds(
            Choices,
            st.lists(
                st.none() | st.integers(0, 9) | st.sampled_from([0.5, 0.1]),
                min_size=1,
                max_size=3,
                unique=True,
            ).map(tuple),
            ties,
        ),
        "bias": st.just(Choices((False, True))),
    },
)
selectors = st.dictionaries(
    st.sampled_from(["0-5", "6-", "-1", "7", "last 3", "every 2"]), dims, min_size=1, max_size=2
)
RULES = [
    "at most 2 modules per block",
    "gate.dim non-decreasing",
    "gate.depth == all",
    "gate.depth > 1/3",
    "if gate.depth <= 4 then gate.dim <= 3",
    "gate.dim <= gate.dim",
]


@st.composite
def declared(draw: st.DrawFn) -> Space:
    modules: dict[str, ModuleSpace] = {}
    for name in ["gate", *draw(st.lists(st.sampled_from(["lora", "vpt"]), unique=True))]:
        by_block = draw(st.just({}) | selectors)
        modules[name] = ModuleSpace(
            draw(dims) if not by_block else draw(st.just([]) | dims),
            draw(depths),
            draw(st.sampled_from(["first", "last"])),
            draw(ties),
            by_block,
            draw(attributes) if name == "gate" else {},
        )
    rules = draw(st.lists(st.sampled_from(RULES), unique=True, max_size=3))
    return Space("s" + draw(words), modules, draw(words), draw(budgets), rules)


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


@settings(max_examples=200)
@given(declared())
def test_parse_undoes_print(space: Space) -> None:
    validator = _validator()
    text = format_space(space)
    again = parse_space(text)
    assert again == space
    assert hash(again) == hash(space)
    assert format_space(again) == text
    validator.validate(yaml.safe_load(text))


@pytest.mark.parametrize("text", RULES)
def test_a_rule_prints_as_it_reads(text: str) -> None:
    assert str(parse_rule(text)) == text
    assert parse_rule(text.replace(" ", "  ").replace("<=", "<= ")) == parse_rule(text)


# --- what editors read -----------------------------------------------------------------------


def test_shipped_spaces_name_the_schema_that_is_shipped_and_fit_it() -> None:
    schema = json.loads((SHIPPED / "space.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for name in shipped():
        text = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
        assert text.startswith("# yaml-language-server: $schema=space.schema.json\n")
        validator.validate(yaml.safe_load(text))
    assert not validator.is_valid({"name": "x", "modules": {"lora": {"dims": 3}}})
    assert not validator.is_valid({"name": "x", "modules": {"lora": {"dim": -1}}})


# --- broken files ----------------------------------------------------------------------------


def told(arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> str:
    """What `noahnas space check` says of a file that it refuses."""
    monkeypatch.setattr(sys, "argv", ["noahnas", "space", "check", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    shown = capsys.readouterr()
    assert left.value.code == 2
    assert shown.out == ""
    assert "Traceback" not in shown.err
    return shown.err.removeprefix("error: ")


@pytest.mark.parametrize("file", sorted(BROKEN.glob("*.yaml")), ids=lambda f: f.stem)
def test_a_broken_file_gets_the_messages_written_in_it(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first lines say `# expect: FILE:LINE:COLUMN: part of the message`, one for each fault."""
    lines = file.read_text(encoding="utf-8").splitlines()
    expected = [x.removeprefix("# expect: ") for x in lines if x.startswith("# expect: ")]
    options = [x.removeprefix("# args: ").split() for x in lines if x.startswith("# args: ")]
    monkeypatch.chdir(BROKEN)
    found = told(
        [f"./{file.name}", *(options[0] if options else [])], capsys, monkeypatch
    ).splitlines()
    assert expected
    assert len(found) == len(expected), found
    for line, part in zip(found, expected, strict=True):
        assert part in line


CLASSES = [
    "unknown-keys",
    "wrong-types",
    "booleans",
    "negative-dims",
    "empty-lists",
    "duplicate-keys",
    "tabs",
    "huge-numbers",
    "beyond-the-backbone",
    "infeasible-budget",
    "extends-cycle",
    "extends-path",
    "anchors",
    "aliases",
    "tags",
    "merge-keys",
    "rules",
]


@pytest.mark.parametrize("kind", CLASSES)
def test_each_kind_of_fault_has_three_files(kind: str) -> None:
    assert len(list(BROKEN.glob(f"{kind}-*.yaml"))) >= 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: \xff\xfe", "not UTF-8 (byte 6)"),
        ("name: é\n".encode("latin-1"), "not UTF-8"),
        ("name: x\n".encode("utf-16"), "not UTF-8"),
        (b"name: x\x00y", "special characters are not allowed"),
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"x" * 1_000_001, "larger than 1000000 bytes"),
        (b"name: x\n---\nname: y\n", "but found another document"),
    ],
)
def test_a_file_that_is_no_text_is_named(
    content: bytes, message: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(content)
    found = told([str(path)], capsys, monkeypatch)
    assert message in found
    assert found.startswith(str(path))


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ("{}/no.yaml", "no such file"),
        ("{}/no/such/space.yaml", "no such file"),
        ("{}/" + "x" * 300 + ".yaml", "cannot be read"),
        ("{}/", "is a directory; name a file"),
        ("{}/folder.yaml", "is a directory; name a file"),
        ("/dev", "is a directory; name a file"),
        ("/dev/zero", "is no regular file"),
        ("noah-vtb", "unknown space 'noah-vtb'; did you mean 'noah-vtab'?"),
    ],
)
def test_what_is_no_file_is_told(
    given_: str, message: str, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert message in told([given_.format(tmp_path)], capsys, monkeypatch)


# --- fuzzing ---------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 13)
    | st.sampled_from([10**6, 10**12, 10**30, 0.5, -1.5, 1e300, float("nan"), float("inf")])
    | st.sampled_from(["all", "1/4", "1/5", "last", "pairs", "0.64M", "40% of dearest", "1.05x"])
    | st.sampled_from(["noah-vtab", "x.yaml", "both", "one", "12 blocks", ""])
    | st.sampled_from(
        [*RULES, "if lora.dim > 1 then vpt.depth < 1/2", "at most 0 modules per block"]
    )
)
keys = st.sampled_from(
    [
        "name",
        "description",
        "extends",
        "modules",
        "budget",
        "rules",
        "adapter",
        "lora",
        "vpt",
        "gate",
        "dim",
        "depth",
        "from",
        "to",
        "step",
        "factor",
        "tie",
        "blocks",
        "choices",
        "sides",
        "alpha",
        "bias",
        "params",
        "flops",
        "latency",
        "max",
        "min",
        "head",
        "0-5",
        "6-",
        "last",
    ]
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
few = st.lists(st.integers(0, 70), min_size=1, max_size=6)
span = st.fixed_dictionaries(
    {"from": st.integers(0, 5), "to": st.integers(0, 10**7)},
    optional={"step": st.integers(0, 100), "factor": st.integers(0, 3)},
)
module = st.fixed_dictionaries(
    {},
    optional={
        "dim": few | span | anything,
        "depth": depths.map(lambda d: [x if isinstance(x, int) else str(x) for x in d]) | anything,
        "from": st.sampled_from(["first", "last"]) | scalars,
        "tie": ties | scalars,
        "blocks": selectors | anything,
        "alpha": few | span | anything,
        "sides": st.just(["one", "both"]) | anything,
    },
)
documents = st.fixed_dictionaries(
    {
        "name": st.just("x") | scalars,
        "modules": st.dictionaries(st.sampled_from(["gate", "lora", "vpt", "adapter"]), module)
        | anything,
    },
    optional={
        "budget": st.fixed_dictionaries({"params": counts | anything}) | anything,
        "rules": st.lists(st.sampled_from(RULES) | scalars, max_size=4) | anything,
        "extends": st.just("noah-vtab") | scalars,
    },
)


def large(blocks: int) -> st.SearchStrategy[dict[str, Any]]:
    """Ranges of which five are just within what a space may offer over so many blocks."""
    return st.builds(
        lambda start, count, step: {"from": start, "to": start + count * step, "step": step},
        st.integers(0, 3),
        st.integers(1, 1960 // blocks),
        st.integers(1, 40),
    )


LARGE_RULES = [
    "at most 1 modules per block",
    "at most 2 modules per block",
    *(
        f"{m}.dim {order}"
        for m in ("lora", "vpt")
        for order in ("non-decreasing", "non-increasing")
    ),
    "lora.dim <= vpt.dim",
    "vpt.dim <= adapter.dim",
    "lora.depth <= vpt.depth",
    "adapter.depth != lora.depth",
    "if vpt.depth == all then adapter.dim <= 16",
    "if lora.dim > 20 then vpt.dim < 9",
]


@st.composite
def legal(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """Large files: ranges, ties, attributes, depths from both ends, rules, budgets, many blocks."""
    blocks = draw(st.sampled_from([4, 12, 48, 96]))
    modules: dict[str, Any] = {}
    for name in ("adapter", "lora", "vpt"):
        modules[name] = {
            "dim": draw(large(blocks)),
            "from": draw(st.sampled_from(["first", "last"])),
        }
        modules[name]["tie"] = draw(ties)
        if draw(st.booleans()):
            modules[name]["depth"] = {"from": 1, "to": blocks, "step": 1}
    if draw(st.booleans()):
        scale = {"choices": list(range(1, 2 + 980 // blocks)), "tie": draw(ties)}
        modules["adapter"] |= {"scale": scale}
        modules["adapter"] |= {"placement": {"choices": ["mlp", "attention"], "tie": draw(ties)}}
    if draw(st.booleans()):
        alpha = {"choices": list(range(1, 2 + 980 // blocks)), "tie": draw(ties)}
        modules["lora"] |= {"alpha": alpha}
        modules["lora"] |= {"targets": {"choices": ["qkv", "q+v", "fc1"], "tie": draw(ties)}}
    file: dict[str, Any] = {"name": "x", "modules": modules}
    rules = draw(st.lists(st.sampled_from(LARGE_RULES), unique=True, max_size=4))
    if rules:
        file["rules"] = rules
    limits = [{"params": "1M"}, {"params": {"max": "40% of dearest", "min": "10k"}}]
    limits += [{"flops": "1.01x"}, {"params": "10M", "flops": "1.1x"}]
    if budget := draw(st.none() | st.sampled_from(limits)):
        file["budget"] = budget
    return file, blocks


def tried(text: str, blocks: int = 12) -> None:
    """Everything that a user may do with a file; each takes less than a second."""

    def printed(space: Space) -> None:
        assert parse_space(format_space(space)).bind(blocks=blocks, width=64, classes=3) == space
        notes(space)

    def drawn(space: Space) -> None:
        space.sample(np.random.default_rng(0), 2)

    for command in (printed, check, drawn):
        gc.disable()  # a long test session has more to look through than a command
        began = time.process_time()
        try:
            with contextlib.suppress(NoahnasError):
                command(parse_space(text).bind(blocks=blocks, width=64, classes=3))
        finally:
            took = time.process_time() - began
            gc.enable()
        assert within(took, 1), command


def test_whatever_the_grammar_is_filled_with_no_traceback_and_no_long_run() -> None:
    Space.load("noah-vtab").check_budget()  # imports are not what is timed

    @settings(max_examples=300, deadline=None)
    @given(documents)
    def fuzz(document: Any) -> None:
        tried(yaml.safe_dump(document, allow_unicode=True, sort_keys=False))

    fuzz()


def test_large_legal_files_take_less_than_a_second() -> None:
    Space.load("noah-vtab").check_budget()  # imports are not what is timed

    @settings(max_examples=25, deadline=None)
    @given(legal())
    def fuzz(file: tuple[dict[str, Any], int]) -> None:
        tried(yaml.safe_dump(file[0], sort_keys=False), file[1])

    fuzz()


@settings(max_examples=400, deadline=1000)
@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_whatever_bytes_a_file_holds_the_fault_is_a_space_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content)
    with contextlib.suppress(SpaceError):
        Space.load(path)


@settings(max_examples=200, deadline=1000)
@given(st.integers(0, 10**6), st.integers(0, 255), st.integers(0, 40))
def test_a_shipped_file_with_a_changed_byte_loads_or_is_refused(
    place: int, byte: int, cut: int
) -> None:
    content = bytearray((SHIPPED / "noah-vtab.yaml").read_bytes())
    place %= len(content)
    content[place : place + cut] = bytes([byte])
    with contextlib.suppress(SpaceError):
        parse_space(content.decode("utf-8", "replace"))


@pytest.mark.parametrize("depth", [30, 5000, 100_000])
@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_nesting_without_end_is_refused_at_once(opening: str, depth: int) -> None:
    began = time.process_time()
    with pytest.raises(SpaceError):
        parse_space("name: x\nmodules: \n  " + opening * depth)
    assert within(time.process_time() - began, 1)
