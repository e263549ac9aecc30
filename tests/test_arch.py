from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noahnas import Arch
from noahnas.errors import ArchError, ArchFileError


def test_an_arch_is_equal_and_hashable_by_value() -> None:
    assert Arch(vpt=(1, 0), lora=(2, 2)) == Arch(lora=[2, 2], vpt=[1, 0])
    assert len({Arch(vpt=(1, 0)), Arch(vpt=[1, 0]), Arch(vpt=(0, 1))}) == 2


def test_an_absent_module_changes_neither_value_nor_digest() -> None:
    with_zeros = Arch(lora=(4, 4), vpt=(0, 0))
    assert with_zeros == Arch(lora=(4, 4))
    assert with_zeros.digest == Arch(lora=(4, 4)).digest
    assert with_zeros.modules == ("lora",)


def test_the_digest_is_fixed_across_versions() -> None:
    assert Arch(lora=(4, 0), vpt=(1, 2)).digest == "0cd0314683b3963d"


def test_where_dim_is_zero_every_other_attribute_is_none() -> None:
    one = Arch(lora={"dim": (4, 0), "alpha": (2.0, 8.0)})
    assert one["lora"]["alpha"] == (2.0, None)
    assert one == Arch(lora={"dim": (4, 0), "alpha": (2.0, 3.0)})
    assert one != Arch(lora={"dim": (4, 0), "alpha": (1.0, 8.0)})


values = st.integers(0, 1000)
parts = st.integers(1, 6).flatmap(
    lambda n: st.dictionaries(
        st.sampled_from(["adapter", "lora", "vpt", "my_module"]),
        st.lists(values, min_size=n, max_size=n)
        | st.fixed_dictionaries(
            {
                "dim": st.lists(values, min_size=n, max_size=n),
                "alpha": st.lists(st.floats(0, 9) | st.text(max_size=3), min_size=n, max_size=n),
            }
        ),
    )
)


@given(parts)
def test_reading_undoes_writing(modules: dict) -> None:
    arch = Arch(**modules)
    assert Arch.from_yaml(arch.to_yaml()) == arch
    assert Arch.from_dict(arch.to_dict()) == arch


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"lora": (1, -1)}, "lora: a dim is a whole number of at least 0, not -1"),
        ({"lora": (1, True)}, "not True"),
        ({"lora": (1,), "vpt": (1, 1)}, "modules differ in their number of blocks: lora 1, vpt 2"),
        ({"lora": {"alpha": (1, 1)}}, "lora has no 'dim'"),
        ({"lora": {"dim": (1, 1), "alpha": (1,)}}, "lora.alpha has 1 values for 2 blocks"),
    ],
)
def test_a_malformed_arch_is_refused_with_the_reason(modules: dict, message: str) -> None:
    with pytest.raises(ArchError) as caught:
        Arch(**modules)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora: [1, two]\n", "arch.yaml:1:11: lora.dim must be a whole number, not 'two'"),
        ("lora: 3\n", "arch.yaml:1:7: lora.dim must be a list with one value per block"),
        ("- 3\n", "arch.yaml:1:1: an architecture must be a mapping"),
        ("lora: [1]\nvpt: [1, 2]\n", "modules differ in their number of blocks"),
        ("", "the file is empty"),
    ],
)
def test_a_broken_file_is_named_with_line_and_column(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "arch.yaml"
    path.write_text(text)
    with pytest.raises(ArchFileError) as caught:
        Arch.load(path)
    assert message in str(caught.value)
