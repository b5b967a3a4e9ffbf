"""The house as it is drawn: every module has its layer and its words, recipes stay short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("facerec", "data_tools", "eval")
PICTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def read_layers(text):
    return re.findall(r"facerec\.\w+|data_tools|eval", text)


def test_every_part_of_facerec_has_a_layer():
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("layers = [")[1]
    named = read_layers(contract)
    parts = {
        f"facerec.{path.stem}"
        for path in (ROOT / "facerec").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    } - {"facerec.__init__"}
    assert sorted(named) == sorted(parts | {"data_tools", "eval"})
    drawn = PICTURE.split("    L13  ")[1].split("setup.py")[0]
    assert read_layers(drawn) == named  # the picture has the same order


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_in_the_picture(package):
    words = set(re.findall(r"\w+", PICTURE))
    modules = {path.stem for path in (ROOT / package).rglob("*.py")} - {"__init__"}
    assert modules <= words, f"name them in docs/architecture.md: {sorted(modules - words)}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_a_recipe_lists_only_what_differs(path):
    text = path.read_text(encoding="utf-8")
    if path.name != "base.yaml":
        assert "base: base.yaml" in text and len(text.splitlines()) <= 15
    assert text.startswith("# ")
