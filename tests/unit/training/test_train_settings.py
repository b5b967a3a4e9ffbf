from pathlib import Path

import pytest
import yaml

from facerec.checks import InputError
from facerec.config import load_config
from facerec.losses import build_head
from facerec.models import build_backbone
from facerec.training.settings import TrainSettings, find_change

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
RECIPES = sorted(path for path in CONFIGS.glob("*.yaml") if path.name != "base.yaml")


def test_base_lists_every_key_with_its_default_and_a_comment():
    values = yaml.safe_load((CONFIGS / "base.yaml").read_text())
    assert values == TrainSettings().model_dump(mode="json")
    for line in (CONFIGS / "base.yaml").read_text().splitlines():
        key = line.split("#")[0].strip()
        plain = ("momentum", "gamma", "manifest", "folder", "split", "every_epochs", "weight")
        assert "#" in line or not key or key.endswith(":") or key.split(":")[0] in plain, line


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_short_and_buildable(path):
    assert len(path.read_text().splitlines()) <= 15
    settings = load_config(TrainSettings, path)
    import torch

    with torch.device("meta"):
        net = build_backbone(settings.backbone.name, **settings.backbone.args)
        build_head(
            settings.head.name,
            num_classes=3,
            embedding_dim=net.embedding_dim,
            **settings.head.params,
        )


def test_overrides_and_unknown_keys():
    path = CONFIGS / "demo.yaml"
    settings = load_config(TrainSettings, path, ["optim.lr=0.5", "backbone.args.width=1.0"])
    assert settings.optim.lr == 0.5 and settings.backbone.args["width"] == 1.0
    with pytest.raises(InputError, match="did you mean 'warmup_epochs'"):
        load_config(TrainSettings, path, ["optim.warmup_epoch=1"])
    with pytest.raises(InputError, match=r"optim\.lr"):
        load_config(TrainSettings, path, ["optim.lr=-1"])


def test_a_change_that_matters_is_found_and_a_neutral_one_is_not():
    old = TrainSettings().model_dump(mode="json")
    changed = TrainSettings.model_validate({"optim": {"lr": 0.2}}).model_dump(mode="json")
    assert find_change(old, changed) == "optim.lr"
    args = TrainSettings.model_validate({"backbone": {"args": {"width": 2}}})
    assert find_change(old, args.model_dump(mode="json")) == "backbone.args.width"
    neutral = {"run": "x", "device": "cpu", "log_every_steps": 1, "data": {"workers": 0}}
    assert find_change(old, TrainSettings.model_validate(neutral).model_dump(mode="json")) is None
