import numpy as np
import pytest

from facerec.checks import (
    InputError,
    MissingPackageError,
    check_chips,
    check_embeddings,
    check_image,
    check_one_of,
    check_range,
    require,
)


def unit_rows(n, d, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_require_names_the_pip_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingPackageError, match="pip install faiss-cpu"):
        require("faiss")


def test_require_returns_a_module_that_is_there():
    assert require("json").loads("[1]") == [1]


def test_one_of_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'largest'"):
        check_one_of("larges", "policy", ("largest", "central"))


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.1])
def test_range_refuses(value):
    with pytest.raises(InputError, match=r"share must lie in \[0, 1\]"):
        check_range(value, "share", 0, 1)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        [[1]],
    ],
)
def test_image_refuses(image):
    with pytest.raises(InputError, match="image must"):
        check_image(image)


@pytest.mark.parametrize("shape", [(112, 112, 3), (2, 56, 56, 3)])
def test_chips_refuse_other_shapes(shape):
    with pytest.raises(InputError, match="112, 112, 3"):
        check_chips(np.zeros(shape, np.uint8))


def test_embeddings_pass_through_untouched():
    rows = unit_rows(5, 8)
    assert check_embeddings(rows, dim=8) is rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(np.float64), "float32"),
        (lambda x: x[0], "float32"),
        (lambda x: x[:, :7], "8 dimensions, got 7"),
        (lambda x: x * 2, "row 0 has norm 2"),
        (lambda x: x * 0, "row 0 has norm 0"),
        (lambda x: np.where(np.arange(5)[:, None] == 3, np.float32(np.nan), x), "row 3"),
    ],
)
def test_embeddings_refuse(change, message):
    with pytest.raises(InputError, match=message):
        check_embeddings(change(unit_rows(5, 8)), dim=8)


@pytest.mark.parametrize("value", ["big", [1], None])
def test_range_names_what_is_no_number(value):
    with pytest.raises(InputError, match=r"margin must be a number in \[0, 1\], got"):
        check_range(value, "margin", 0, 1)
    assert check_range(np.float32(0.5), "margin", 0, 1) == 0.5
