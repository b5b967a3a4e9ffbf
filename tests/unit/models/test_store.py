import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest

from facerec.checks import InputError
from facerec.models.store import BARE_SOURCE, ModelStore, resolve_model, store_home
from facerec.models.weights import external_files, hash_model, read_artefact


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def net(tmp_path, recogniser):
    path = tmp_path / "net.onnx"
    onnx.save(recogniser(slope=[0.1, 0.25, 0.5, 0.9]), str(path))
    return path


@pytest.fixture
def net_with_data(tmp_path, recogniser):
    path = tmp_path / "outside" / "big.onnx"
    path.parent.mkdir()
    onnx.save(
        recogniser(),
        str(path),
        save_as_external_data=True,
        location="big.onnx.data",
        size_threshold=100,
    )
    return path


def test_home_is_the_environment_variable(private_home):
    assert store_home() == private_home
    assert ModelStore().folder == private_home / "models"


def test_add_copies_and_measures(net):
    store = ModelStore()
    artefact = store.add(net, "small", licence="MIT", mean=0.0, std=1.0, channel_order="bgr")
    info = artefact.info
    assert (info.embedding_dim, info.input_height, info.input_width) == (8, 16, 16)
    assert (info.mean, info.std, info.channel_order, info.licence) == (0.0, 1.0, "bgr", "MIT")
    assert store.names() == ["small"]
    assert artefact.graph.read_bytes() == net.read_bytes()
    assert read_artefact(store.path("small")) == artefact
    net.unlink()
    assert store.verify("small") == artefact


def test_external_data_comes_along(net_with_data):
    artefact = ModelStore().add(net_with_data, "big")
    assert [file.name for file in external_files(artefact.graph)] == ["big.onnx.data"]
    shutil.rmtree(net_with_data.parent)
    assert ModelStore().verify("big").info.embedding_dim == 8


def test_hash_covers_external_data(net_with_data):
    before = hash_model(net_with_data)
    data = net_with_data.with_name("big.onnx.data")
    changed = bytearray(data.read_bytes())
    changed[7] ^= 1
    data.write_bytes(changed)
    assert hash_model(net_with_data) != before


def test_missing_external_data(net_with_data):
    net_with_data.with_name("big.onnx.data").unlink()
    with pytest.raises(InputError, match=r"needs its external data big\.onnx\.data beside it"):
        ModelStore().add(net_with_data, "big")
    assert names_in(ModelStore().folder) == []


def test_external_data_outside_the_folder_is_refused(net_with_data):
    model = onnx.load(str(net_with_data), load_external_data=False)
    for tensor in model.graph.initializer:
        if not tensor.external_data:
            continue
        tensor.external_data[0].value = "../../etc/secret"
    onnx.save(model, str(net_with_data))
    with pytest.raises(InputError, match="outside its folder"):
        ModelStore().add(net_with_data, "big")


def test_taken_name_needs_force(net):
    store = ModelStore()
    store.add(net, "small")
    with pytest.raises(InputError, match=r"already has 'small'.*--force"):
        store.add(net, "small")
    assert store.add(net, "small", force=True, mean=1.0).info.mean == 1.0
    assert names_in(store.folder) == ["small"]


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "-dash", "a b", "x" * 81, "é"])
def test_unsafe_names(net, name):
    with pytest.raises(InputError, match="a store name must be"):
        ModelStore().add(net, name)


def test_artefact_folder_keeps_its_description(net):
    store = ModelStore()
    first = store.add(net, "first", licence="MIT", training_data="nobody", mean=3.0)
    second = store.add(store.path("first"), "second", mean=4.0)
    assert second.info.name == "second" and second.info.training_data == "nobody"
    assert (first.info.mean, second.info.mean) == (3.0, 4.0)
    assert second.info.sha256 == first.info.sha256


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_height": 32}, "takes images of 16x16"),
        ({"embedding_dim": 9}, "gives 8 dimensions"),
        ({"std": 0.0}, "std"),
        ({"channel_order": "gbr"}, "channel_order"),
        ({"task": "detection"}, "must be a YuNet detector"),
    ],
)
def test_broken_contract_leaves_nothing(net, fields, message):
    with pytest.raises(InputError, match=message):
        ModelStore().add(net, "small", **fields)
    assert names_in(ModelStore().folder) == []


def broken_weights(model, value):
    for tensor in model.graph.initializer:
        if tensor.name in ("w2", "w1"):
            tensor.raw_data = np.full(list(tensor.dims), value, np.float32).tobytes()
    return model


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN or infinity"), (0.0, "same embedding for every image")]
)
def test_useless_weights(tmp_path, recogniser, value, message):
    path = tmp_path / "bad.onnx"
    onnx.save(broken_weights(recogniser(), value), str(path))
    with pytest.raises(InputError, match=message):
        ModelStore().add(path, "bad")


def test_not_a_model(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\xff\xff")
    with pytest.raises(InputError, match="must be an ONNX file"):
        ModelStore().add(tmp_path / "a.onnx", "a")
    with pytest.raises(InputError, match="is not a file; give"):
        ModelStore().add(tmp_path / "b.onnx", "b")


@pytest.mark.parametrize("field", ["mean", "std"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_preprocessing_must_be_finite(net, field, value):
    with pytest.raises(InputError, match=rf"{field}: .*finite"):
        ModelStore().add(net, "small", **{field: value})
    assert ModelStore().names() == []


def test_no_detector_is_one_sentence_and_opencv_is_silent(net, capfd):
    with pytest.raises(InputError, match="must be a YuNet detector") as caught:
        ModelStore().add(net, "small", task="detection")
    assert "OpenCV(" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_corruption_is_seen(net):
    store = ModelStore()
    artefact = store.add(net, "small")
    data = bytearray(artefact.graph.read_bytes())
    data[-200] ^= 4
    artefact.graph.write_bytes(data)
    with pytest.raises(InputError, match=r"weights were changed|cannot be parsed"):
        store.verify("small")
    assert store.list()[0].info == artefact.info, "listing does not hash"


def test_list_shows_what_cannot_be_read(net):
    store = ModelStore()
    folder = store.add(net, "small").graph.parent
    (folder / "model.json").write_text("{}")
    entry = store.list()[0]
    assert entry.info is None and "name" in entry.problem


def test_remove(net):
    store = ModelStore()
    store.add(net, "small")
    store.remove("small")
    assert store.names() == [] and names_in(store.folder) == []
    with pytest.raises(InputError, match="no model 'small'"):
        store.remove("small")


def test_half_a_copy_is_never_listed(net):
    """A process killed in the middle of `add` leaves nothing that counts."""
    program = (
        "import os, sys; from pathlib import Path; from facerec.models import store\n"
        "store.check_contract = lambda artefact: os._exit(9)\n"
        "store.ModelStore().add(Path(sys.argv[1]), 'small')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(net)], check=False)
    assert done.returncode == 9
    store = ModelStore()
    assert len(names_in(store.folder)) == 1, "the test must have left a half copy"
    assert store.names() == [] and store.list() == []
    assert store.add(net, "small").info.embedding_dim == 8


def test_resolve_name_folder_and_file(net, tmp_path, monkeypatch):
    store = ModelStore()
    kept = store.add(net, "small", mean=1.0)
    assert resolve_model("small") == kept
    assert resolve_model(store.path("small")) == kept
    bare = resolve_model(str(net))
    assert bare.graph == net and bare.info.source == BARE_SOURCE
    assert (bare.info.mean, bare.info.std, bare.info.input_height) == (127.5, 127.5, 16)
    assert bare.info.sha256 == kept.info.sha256
    (tmp_path / "small").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_model("small") == kept, "a store name wins over a folder"
    with pytest.raises(InputError, match=r"has no model\.json"):
        resolve_model("./small")


def test_resolve_says_what_there_is(net):
    with pytest.raises(InputError, match=r"the store is empty.*models add.*models fetch"):
        resolve_model("small")
    ModelStore().add(net, "small")
    with pytest.raises(InputError, match=r"did you mean 'small'.*the store has small"):
        resolve_model("smal")


def test_resolve_checks_the_task(net):
    ModelStore().add(net, "small")
    with pytest.raises(InputError, match="is a recognition model, but a detection model"):
        resolve_model("small", task="detection")
    assert resolve_model(net, task="detection").info.task == "detection"


def run(*arguments):
    from facerec.cli.main import main

    return main(["models", *map(str, arguments)])


def test_commands(net, tmp_path, capsys):
    assert run("list") == 0
    assert "is empty" in capsys.readouterr().out
    answer = tmp_path / "answer.json"
    assert run("add", net, "--name", "small", "--mean", "1", "--json", answer) == 0
    assert json.loads(answer.read_text())["info"]["mean"] == 1.0
    capsys.readouterr()
    assert run("list") == 0 and "8-d" in capsys.readouterr().out
    assert run("show", "small") == 0 and "embedding_dim" in capsys.readouterr().out
    assert run("verify") == 0 and "small: sound" in capsys.readouterr().out
    assert run("add", net, "--name", "small") == 2
    assert run("add", net, "--name", "other", "--input-size", "16x32") == 2
    assert "16x16" in capsys.readouterr().err
    graph = ModelStore().path("small") / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-9])
    assert run("verify", "small") == 2
    captured = capsys.readouterr()
    assert "sound" not in captured.out and "small" in captured.err
    assert run("remove", "small") == 0 and ModelStore().names() == []
    assert run("show", "small") == 2
