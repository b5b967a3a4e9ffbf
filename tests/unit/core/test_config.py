import pytest
import yaml
from pydantic import Field

from facerec.checks import InputError
from facerec.config import Section, load_config, save_config


class Optim(Section):
    lr: float = 0.1
    warmup_steps: int = 0


class Settings(Section):
    seed: int = 1
    optim: Optim = Optim()


def write(path, text):
    path.write_text(text)
    return path


def test_base_recipe_and_override_are_overlaid_in_that_order(tmp_path):
    write(tmp_path / "base.yaml", "seed: 2\noptim: {lr: 0.2, warmup_steps: 5}\n")
    recipe = write(tmp_path / "recipe.yaml", "base: base.yaml\noptim: {lr: 0.3}\n")
    settings = load_config(Settings, recipe, ["optim.warmup_steps=7"])
    assert settings == Settings(seed=2, optim=Optim(lr=0.3, warmup_steps=7))


def test_saved_settings_load_as_the_same(tmp_path):
    settings = Settings(seed=9, optim=Optim(lr=0.5))
    save_config(settings, tmp_path / "config.yaml")
    assert load_config(Settings, tmp_path / "config.yaml") == settings
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["optim"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("sead: 1", [], "unknown key 'sead'; did you mean 'seed'"),
        ("optim: {warm_steps: 1}", [], "'optim.warm_steps'; did you mean 'warmup_steps'"),
        ("seed: ten", [], "seed: .* got 'ten'"),
        ("[1, 2]", [], "must hold keys and values"),
        ("a: [", [], "must be a YAML file"),
        ("base: recipe.yaml", [], "its own base"),
        ("base: none.yaml", [], "does not exist"),
        ("seed: 1", ["seed"], "must read key=value"),
        ("seed: 1", ["seed.x=1"], "is a value, not a section"),
        ("seed: 1", ["optim.lrr=1"], "did you mean 'lr'"),
    ],
)
def test_bad_settings_are_one_sentence(tmp_path, text, overrides, message):
    recipe = write(tmp_path / "recipe.yaml", text)
    with pytest.raises(InputError, match=message) as caught:
        load_config(Settings, recipe, overrides)
    assert "\n" not in str(caught.value)


class Loose(Section):
    params: dict[str, object] = Field(default_factory=dict)


@pytest.mark.parametrize("text", ["1e-3", "1E+2", "-2e5", "1.5e3", ".5e1", "1.e2"])
def test_numbers_with_an_exponent_are_numbers_wherever_they_stand(tmp_path, text):
    recipe = write(tmp_path / "recipe.yaml", f"params: {{a: {text}}}\n")
    found = load_config(Loose, recipe, [f"params.b={text}", "params.c=e3", "params.d=1e3x"])
    assert found.params == {"a": float(text), "b": float(text), "c": "e3", "d": "1e3x"}
