from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facerec.checks import InputError
from facerec.data.embedding_cache import EmbeddingCache
from facerec.embedder import Embedder, embed_cached, embed_pictures
from facerec.models.store import ModelStore, read_bare

SIDE = 112


@pytest.fixture
def probe_net(tmp_path):
    """A linear net whose 4 outputs are: mean of R, of G, of B, and of R in the left half."""

    def build(batch="n", side=SIDE, scale=1.0):
        weight = np.zeros((4, 3, side, side), np.float32)
        for channel in range(3):
            weight[channel, channel] = scale / side**2
        weight[3, 0, :, : side // 2] = scale / side**2
        graph = helper.make_graph(
            [
                helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[side, side]),
                helper.make_node("Flatten", ["c"], ["y"]),
            ],
            "means",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, side, side])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
            [numpy_helper.from_array(weight, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path = tmp_path / f"means{side}{scale}.onnx"
        onnx.save(model, str(path))
        return path

    return build


def embedder(path, runtime="onnxruntime", **options):
    fields = {k: options.pop(k) for k in ("mean", "std", "channel_order") if k in options}
    artefact = read_bare(path)
    info = artefact.info.model_copy(update={"mean": 0.0, "std": 1.0, **fields})
    return Embedder(type(artefact)(artefact.graph, info), runtime, threads=1, **options)


def chips_of(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)


def plain_chip(red, green, blue):
    return np.broadcast_to(np.array([red, green, blue], np.uint8), (1, SIDE, SIDE, 3)).copy()


def raw(found):
    return found.vectors * found.norms[:, None]


def test_colour_order_mean_and_std(probe_net):
    chip = plain_chip(200, 100, 50)
    path = probe_net()
    np.testing.assert_allclose(raw(embedder(path).embed(chip))[0, :3], [200, 100, 50], rtol=1e-4)
    swapped = embedder(path, channel_order="bgr").embed(chip)
    np.testing.assert_allclose(raw(swapped)[0, :3], [50, 100, 200], rtol=1e-4)
    scaled = embedder(path, mean=127.5, std=64.0).embed(chip)
    expected = (np.array([200, 100, 50]) - 127.5) / 64
    np.testing.assert_allclose(raw(scaled)[0, :3], expected, rtol=1e-3)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch", ["n", 1])
def test_unit_vectors_and_norms_for_any_number(probe_net, runtime, batch):
    model = embedder(probe_net(batch), runtime, batch_size=5)
    chips = chips_of(12)
    found = model.embed(chips)
    means = chips.reshape(12, -1, 3).mean(axis=1)
    np.testing.assert_allclose(raw(found)[:, :3], means, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    assert found.vectors.dtype == found.norms.dtype == np.float32 and len(found) == 12
    for n in (0, 1, 5, 6):
        part = model.embed(chips[:n])
        assert part.vectors.shape == (n, 4) and part.norms.shape == (n,)
        np.testing.assert_allclose(part.vectors, found.vectors[:n], atol=1e-6)


def test_order_of_chips_does_not_matter(probe_net):
    model = embedder(probe_net(), batch_size=4)
    chips, order = chips_of(9), np.random.default_rng(1).permutation(9)
    np.testing.assert_allclose(
        model.embed(chips[order]).vectors, model.embed(chips).vectors[order], atol=1e-6
    )


def test_flip_averages_the_mirror_image(probe_net):
    path = probe_net()
    chips = chips_of(2)
    chips[:, :, : SIDE // 2] //= 4
    plain, flipped = embedder(path), embedder(path, flip=True)
    mirror = np.ascontiguousarray(chips[:, :, ::-1])
    expected = (raw(plain.embed(chips)) + raw(plain.embed(mirror))) / 2
    np.testing.assert_allclose(raw(flipped.embed(chips)), expected, rtol=1e-4)
    np.testing.assert_allclose(
        flipped.embed(chips).vectors, flipped.embed(mirror).vectors, atol=1e-6
    )


def test_other_input_size_averages_areas(probe_net):
    model = embedder(probe_net(side=56))
    assert model.info.input_height == 56
    chips = chips_of(2)
    means = chips.reshape(2, -1, 3).mean(axis=1)
    np.testing.assert_allclose(raw(model.embed(chips))[:, :3], means, atol=0.6)


def test_zero_embedding_is_zero_not_nan(probe_net):
    found = embedder(probe_net()).embed(plain_chip(0, 0, 0))
    assert (found.vectors == 0).all() and found.norms[0] == 0


def test_infinite_embedding_is_refused(probe_net):
    model = embedder(probe_net(scale=1e38))
    with pytest.raises(InputError, match="NaN or infinity for chip 1"):
        model.embed(np.concatenate([plain_chip(0, 0, 0), plain_chip(255, 255, 255)]))


@pytest.mark.parametrize(
    "chips",
    [
        np.zeros((2, 112, 112, 3), np.float32),
        np.zeros((112, 112, 3), np.uint8),
        np.zeros((1, 96, 96, 3), np.uint8),
    ],
)
def test_wrong_chips(probe_net, chips):
    with pytest.raises(InputError, match="chips must"):
        embedder(probe_net()).embed(chips)


def test_info_that_contradicts_the_graph(probe_net):
    artefact = read_bare(probe_net())
    info = artefact.info.model_copy(update={"embedding_dim": 512})
    with pytest.raises(InputError, match=r"gives 4 dimensions.*says 512"):
        Embedder(type(artefact)(artefact.graph, info), "onnxruntime")
    with pytest.raises(InputError, match="batch_size"):
        Embedder(artefact, batch_size=0)


def test_model_hash_tells_what_makes_an_embedding(probe_net):
    path = probe_net()
    standard = Embedder(path, "onnxruntime")
    assert standard.model_hash == standard.info.sha256, "the standard is the file's own hash"
    hashes = {
        standard.model_hash,
        Embedder(path, "onnxruntime", flip=True).model_hash,
        embedder(path).model_hash,
        embedder(path, channel_order="bgr").model_hash,
        embedder(path, channel_order="bgr", flip=True).model_hash,
    }
    assert len(hashes) == 5 and all(len(one) == 64 for one in hashes)
    assert Embedder(path, "openvino", batch_size=3).model_hash == standard.model_hash


def test_store_name_and_folder(probe_net):
    ModelStore().add(probe_net(), "means", mean=0.0, std=1.0)
    by_name = Embedder("means", "onnxruntime")
    by_folder = Embedder(ModelStore().path("means"), "onnxruntime")
    assert by_name.dim == 4 and by_name.info == by_folder.info
    assert by_name.runtime_name == "onnxruntime" and by_name.note == ""


def test_a_batch_that_stays_at_one_is_said(probe_net, monkeypatch, caplog):
    from facerec.models import sessions

    Embedder(probe_net(), "onnxruntime")
    assert caplog.text == ""
    built = sessions.GraphSession.__init__

    def fixed(self, *arguments):
        built(self, *arguments)
        self.note = "the graph keeps its batch of one"

    monkeypatch.setattr(sessions.GraphSession, "__init__", fixed)
    Embedder(probe_net(), "onnxruntime")
    assert "the graph keeps its batch of one" in caplog.text


@pytest.mark.parametrize("counts", [[0, 3, 1, 0, 7, 2], [], [0, 0], [4]])
def test_pictures_keep_their_order_and_their_chips(probe_net, counts):
    model = embedder(probe_net(), batch_size=4)
    chips = chips_of(sum(counts))
    stops = np.cumsum(counts)
    parts = np.split(chips, stops[:-1].astype(int)) if counts else []
    pictures = [SimpleNamespace(chips=part, name=i) for i, part in enumerate(parts)]
    everything = model.embed(chips)
    found = list(embed_pictures(model, iter(pictures)))
    assert [picture.name for picture, _ in found] == list(range(len(counts)))
    assert [len(one) for _, one in found] == counts
    if counts:
        joined = np.concatenate([one.vectors for _, one in found])
        np.testing.assert_allclose(joined, everything.vectors, atol=1e-6)


def cached(model, folder):
    return EmbeddingCache(folder, model.model_hash, model.dim)


def test_cache_is_asked_first_and_resumed(probe_net, tmp_path):
    model = embedder(probe_net())
    chips = chips_of(10)
    ids = [f"face{i}-0" for i in range(10)]
    loaded = []

    def load(positions):
        loaded.extend(positions)
        if len(loaded) > 7:
            raise KeyboardInterrupt
        return chips[positions]

    with pytest.raises(KeyboardInterrupt):
        embed_cached(model, cached(model, tmp_path), ids, load, shard=3)
    assert cached(model, tmp_path).has(ids).tolist() == [True] * 6 + [False] * 4
    loaded.clear()
    vectors, norms = embed_cached(model, cached(model, tmp_path), ids, load, shard=3)
    assert loaded == [6, 7, 8, 9]
    direct = model.embed(chips)
    np.testing.assert_allclose(vectors, direct.vectors, atol=1e-6)
    np.testing.assert_allclose(norms, direct.norms, rtol=1e-5)
    again, _ = embed_cached(model, cached(model, tmp_path), ids[::-1], load)
    assert len(loaded) == 4, "nothing is embedded twice"
    np.testing.assert_array_equal(again, vectors[::-1])


def test_one_id_twice_is_embedded_once(probe_net, tmp_path):
    model = embedder(probe_net())
    chips = chips_of(1)
    calls = []

    def load(positions):
        calls.append(positions)
        return chips[[0] * len(positions)]

    vectors, _ = embed_cached(model, cached(model, tmp_path), ["a-0", "a-0"], load)
    assert calls == [[0]] and (vectors[0] == vectors[1]).all()


def test_cache_of_another_model_is_refused(probe_net, tmp_path):
    model, flipped = embedder(probe_net()), embedder(probe_net(), flip=True)
    with pytest.raises(InputError, match="open another cache"):
        embed_cached(flipped, cached(model, tmp_path), ["a-0"], lambda _: chips_of(1))


@pytest.mark.real
def test_shared_recogniser(real_data):
    """Its batch of one becomes free, runtimes agree, and people are told apart."""
    import cv2

    people = sorted((real_data / "aligned").glob("glint_*"))[:4]
    files = [file for person in people for file in sorted(person.iterdir())[:4]]
    chips = np.stack([cv2.imread(str(file))[:, :, ::-1] for file in files])
    models = [
        Embedder(real_data / "weights" / "MobileFaceNet.onnx", runtime)
        for runtime in ("onnxruntime", "openvino")
    ]
    first, second = (model.embed(chips).vectors for model in models)
    assert all(model.note == "" and model.dim == 128 for model in models)
    assert np.abs(first - second).max() < 1e-4
    one_by_one = np.concatenate([models[0].embed(chip[None]).vectors for chip in chips])
    assert np.abs(first - one_by_one).max() < 1e-5
    same = np.kron(np.eye(4), np.ones((4, 4))).astype(bool)
    scores = first @ first.T
    genuine = scores[same & ~np.eye(16, dtype=bool)]
    assert genuine.mean() > 0.4 > scores[~same].mean() + 0.2


def test_one_black_chip_does_not_spoil_its_shard(probe_net, tmp_path):
    model = embedder(probe_net())
    cache = EmbeddingCache(tmp_path / "cache", model.model_hash, model.dim)
    chips = np.concatenate([plain_chip(1, 2, 3), plain_chip(0, 0, 0), plain_chip(9, 9, 9)])
    vectors, norms = embed_cached(model, cache, ["a", "b", "c"], lambda rows: chips[rows])
    assert norms[1] == 0 and not vectors[1].any()
    np.testing.assert_allclose(np.linalg.norm(vectors[[0, 2]], axis=1), 1, atol=1e-6)
    assert cache.has(["a", "b", "c"]).all()


def test_a_raw_embedding_too_small_to_have_a_direction_counts_as_zero(probe_net):
    found = embedder(probe_net(scale=1e-15)).embed(plain_chip(1, 1, 1))
    assert found.norms.tolist() == [0] and not found.vectors.any()
