"""Files of NOAH's original code, as `noahnas space import` reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from noahnas import Arch, NoahnasError, Space
from noahnas.interop.noah_yaml import load_noah, parse_noah

from .conftest import invoke


def numbers(key: str, values: list[int], indent: int = 2) -> str:
    """A block list with a blank after the colon, as those files have it."""
    lines = [f"{' ' * indent}{key}: ", *(f"{' ' * (indent + 2)}- {v}" for v in values)]
    return "\n".join(lines) + "\n"


def supernet(dims: list[int], depths: list[int], blocks: int = 12, prefix: int = 0) -> str:
    parts = ("VISUAL_PROMPT", "LORA", "ADAPTER")
    text = f"MODEL_NAME: vit_base_patch16_224_in21k\nSUPERNET:\n  DEPTH: {blocks}\n"
    text += "".join(f"  {part}_DIM: 100\n" for part in parts)
    text += f"  PREFIX_DIM: {prefix}\n  PROMPT_DEPTH: {blocks}\nSEARCH_SPACE:\n"
    text += "".join(numbers(f"{part}_DIM", dims) for part in parts)
    text += numbers("PREFIX_DIM", [prefix]) + numbers("PREFIX_DEPTH", [prefix])
    return text + "".join(numbers(f"{part}_DEPTH", depths) for part in parts)


def subnet(vpt: list[int], lora: list[int], adapter: list[int]) -> str:
    """Its SEARCH_SPACE is stale, as in the published ones."""
    text = supernet([10, 50, 100], [3], blocks=len(vpt)) + "RETRAIN: \n"
    text += numbers("PREFIX_DIM", [0] * len(vpt)) + numbers("VISUAL_PROMPT_DIM", vpt)
    return text + numbers("LORA_DIM", lora) + numbers("ADAPTER_DIM", adapter) + "\n"


# The published winner for Caltech101 (NOAH's experiments/NOAH/subnet/VTAB).
VPT = [5, 10, 1, 5, 10, 1, 10, 1, 10, 1, 10, 1]
LORA = [1, 10, 10, 10, 5, 10, 10, 10, 5, 1, 10, 1]
ADAPTER = [10, 1, 5, 10, 10, 1, 5, 5, 10, 1, 5, 10]


def test_the_supernet_of_vtab_becomes_the_shipped_space(tmp_path: Path) -> None:
    (tmp_path / "supernet-B_prompt_VPT.yaml").write_text(supernet([1, 5, 10], [3, 6, 9, 12]))
    code, printed, error = invoke("space", "import", str(tmp_path / "supernet-B_prompt_VPT.yaml"))
    assert code == 0, error
    (tmp_path / "mine.yaml").write_text(printed)
    found = Space.load(tmp_path / "mine.yaml")
    assert found.modules == Space.load("noah-vtab").modules
    assert found.name == "supernet-B_prompt_VPT"
    assert found.budget is None
    assert "--budget 0.64M" in error


def test_a_published_subnet_becomes_an_architecture(tmp_path: Path) -> None:
    (tmp_path / "subnet.yaml").write_text(subnet(VPT, LORA, ADAPTER))
    found = load_noah(tmp_path / "subnet.yaml")
    assert found == Arch(vpt=VPT, lora=LORA, adapter=ADAPTER)
    assert isinstance(found, Arch)
    assert Space.load("noah-vtab").misfit(found) is None


def test_an_imported_architecture_is_retrained(tmp_path: Path) -> None:
    given = subnet([2, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0])
    (tmp_path / "subnet.yaml").write_text(given)
    arch = tmp_path / "arch.yaml"
    code, _, error = invoke("space", "import", str(tmp_path / "subnet.yaml"), "--out", str(arch))
    assert code == 0, error
    assert Arch.load(arch) == Arch(vpt=(2, 1, 0, 0), lora=(1, 0, 0, 0))
    code, printed, error = invoke(
        "retrain", "--arch", str(arch), "--data", "digits", "--backbone", "vit-digits",
        "--retrain-epochs", "1", "--out", str(tmp_path / "run"), "--json",
    )  # fmt: skip
    assert code == 0, error
    assert '"params": 336' in printed  # 3 tokens of width 48, and 4·48
    code, _, error = invoke("space", "import", str(tmp_path / "subnet.yaml"), "--out", str(arch))
    assert (code, "exists; choose another --out" in error) == (2, True)


def test_a_module_of_dim_or_depth_0_is_left_out() -> None:
    text = supernet([4, 8], [2, 4], blocks=4)
    text = text.replace("LORA_DIM: \n    - 4\n    - 8\n", "LORA_DIM: \n    - 0\n")
    text = text.replace("ADAPTER_DEPTH: \n    - 2\n    - 4\n", "ADAPTER_DEPTH: \n    - 0\n")
    found = parse_noah(text, "f.yaml", "f")
    assert isinstance(found, Space)
    assert set(found.modules) == {"vpt"}


GOOD = subnet([2, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 4])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("RETRAIN", "RETRIAN"), "f.yaml:32:1: unknown key 'RETRIAN'; did you mean"),
        (GOOD.replace("    - 2\n    - 1", "    - two\n    - 1"), "a whole number, not 'two'"),
        (GOOD.replace("    - 2\n    - 1", "    - 200\n    - 1"), "DIM exceeds SUPERNET"),
        (GOOD.replace("    - 2\n    - 1", "    - 1"), "has 3 dims, SUPERNET.DEPTH is 4"),
        (GOOD.replace("DIM: \n    - 0\n    - 0", "DIM: \n    - 0\n    - 9", 1), "prefixes are not"),
        (supernet([4], [2, 5], blocks=4), "LORA_DEPTH exceeds SUPERNET.DEPTH, 4"),
        (supernet([4, 4], [2], blocks=4), "names 4 twice"),
        (supernet([4], [2], blocks=4, prefix=3), "SEARCH_SPACE.PREFIX_DIM: prefixes are not"),
        (supernet([0], [2], blocks=4), "f.yaml:1:1: holds no prompt module"),
        ("SUPERNET: {DEPTH: 4}\n", "neither SEARCH_SPACE (a supernet file) nor RETRAIN"),
        ("MODEL_NAME: x\nRETRAIN: {LORA_DIM: [1]}\n", "'SUPERNET' is missing"),
        ("name: tiny\nmodules: {}\n", "unknown key 'name'"),
        ("- 1\n", "a NOAH file must be a mapping"),
    ],
)  # fmt: skip
def test_a_fault_has_its_line_and_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(NoahnasError) as caught:
        parse_noah(text, "f.yaml", "f")
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    code, _, error = invoke("space", "import", str(tmp_path / "no.yaml"))
    assert (code, "no.yaml: no such file" in error) == (2, True)
