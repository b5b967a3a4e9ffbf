import numpy as np
import pytest

from eval.pairs import identities_of, read_pairs
from facerec.checks import InputError

HEAD = "fold,same,image_a,image_b\n"
ROWS = "1,1,a/1.jpg,a/2.jpg\n2,0,a/1.jpg,b/1.jpg\n"


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "An_A/An_A_0001.png", "An_A/An_A_0012.png",
                 "Bo/Bo_0003.png"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write(folder, text, name="pairs.csv"):
    path = folder / name
    path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        HEAD + ROWS,
        "\ufeff" + HEAD + ROWS,
        (HEAD + ROWS).replace("\n", "\r\n"),
        "image_b,image_a, same,fold\na/2.jpg,a/1.jpg,1,1\nb/1.jpg, a/1.jpg ,0 ,2\n",
    ],
)
def test_csv_is_read(tmp_path, images, text):
    pairs = read_pairs(write(tmp_path, text), images)
    assert (pairs.image_a, pairs.image_b) == (["a/1.jpg"] * 2, ["a/2.jpg", "b/1.jpg"])
    assert pairs.same.tolist() == [True, False]
    assert pairs.folds.tolist() == [1, 2]
    assert pairs.images() == ["a/1.jpg", "a/2.jpg", "b/1.jpg"]
    assert len(pairs) == 2


def test_lfw_form_is_read_and_takes_the_suffix_of_the_folder(tmp_path, images):
    for folder in ("a", "b"):
        for file in (images / folder).iterdir():
            file.unlink()
    fold = "An_A\t1\t12\nAn_A\t12\tBo\t3\n"
    pairs = read_pairs(write(tmp_path, "2\t1\n" + fold + fold + "\n", "pairs.txt"), images)
    assert pairs.image_a == ["An_A/An_A_0001.png", "An_A/An_A_0012.png"] * 2
    assert pairs.image_b == ["An_A/An_A_0012.png", "Bo/Bo_0003.png"] * 2
    assert pairs.same.tolist() == [True, False] * 2
    assert pairs.folds.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (HEAD, "holds no pair"),
        ("fold,same,image_a,image_c\n", "unknown column 'image_c'; did you mean 'image_"),
        ("fold,same,image_a\n", "one column 'image_b', got 0"),
        ("fold,same,same,image_a,image_b\n", "one column 'same', got 2"),
        (HEAD + "1,2,a/1.jpg,a/2.jpg\n", "line 2: same must be 0 or 1, got '2'"),
        (HEAD + "1,yes,a/1.jpg,a/2.jpg\n", "same must be 0 or 1"),
        (HEAD + "one,1,a/1.jpg,a/2.jpg\n", "fold must be a whole number, got 'one'"),
        (HEAD + "1,1,a/1.jpg\n", "line 2: expected 4 values"),
        (HEAD + "1,1,a/1.jpg,a/2.jpg,x\n", "line 2: expected 4 values"),
        (HEAD + '1,1,"a/1.jpg,a/2.jpg\n', "not CSV"),
        (HEAD + ROWS.replace("2,0", "1,0"), "at least 2 folds, got 1"),
        (HEAD + ROWS.replace("2,0", "2,1"), "holds no non-mated pair"),
        (HEAD + ROWS.replace("1,1", "1,0"), "holds no mated pair"),
        (HEAD + "1,1,a/1.jpg,a/1.jpg\n" + ROWS, "compares a/1.jpg with itself in pair 1"),
        (HEAD + ROWS + "1,0,/etc/x.jpg,a/1.jpg\n", "below the folder"),
        (HEAD + ROWS + "1,0,a/../../x.jpg,a/1.jpg\n", "below the folder"),
        (HEAD + ROWS + "1,0,,a/1.jpg\n", "below the folder"),
        ("2\t300\nAn_A\t1\t12\n", "announces 2 folds of 600 pairs .* holds 1 pairs"),
        ("1 2 3\n", "announces"),
        ("2\t1\nAn_A 1 12\nAn_A 1\nAn_A 1 12\nAn_A 1 Bo 3\n", "line 3: expected `name n1 n2`"),
        ("2\t1\nAn_A 1 x\nAn_A 1 Bo 3\nAn_A 1 12\nAn_A 1 Bo 3\n", "line 2: the picture's number"),
        ("1\nAn_A 1 12\nAn_A 1 Bo 3\n", "at least 2 folds"),
        (b"\xff\xfe\x00", "must be a text file"),
    ],
)
def test_bad_files_are_refused_with_a_sentence(tmp_path, images, text, message):
    for file in [*(images / "a").iterdir(), *(images / "b").iterdir()]:
        # So that the LFW form finds .png; the CSV forms fail before files are looked for.
        file.rename(file.with_suffix(".png"))
    with pytest.raises(InputError, match=message):
        read_pairs(write(tmp_path, text), images)


def test_missing_pictures_are_counted_and_the_first_named(tmp_path, images):
    rows = "".join(f"2,0,a/1.jpg,c/{i}.jpg\n" for i in range(5))
    path = write(tmp_path, HEAD + ROWS + rows)
    with pytest.raises(InputError) as caught:
        read_pairs(path, images)
    assert "5 of 8 pictures" in str(caught.value)
    assert "c/0.jpg, c/1.jpg, c/2.jpg and 2 more" in str(caught.value)


def test_missing_places_are_named(tmp_path, images):
    with pytest.raises(InputError, match=r"nowhere must be the folder"):
        read_pairs(write(tmp_path, HEAD + ROWS), tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"none\.csv does not exist"):
        read_pairs(tmp_path / "none.csv", images)
    with pytest.raises(InputError, match="must be a text file"):
        read_pairs(images, images)


def test_identity_is_the_folder():
    assert identities_of(["a/1.jpg", "set/b/2.jpg"]) == ["a", "b"]
    with pytest.raises(InputError, match=r"1\.jpg lies in none"):
        identities_of(["1.jpg"])


def test_folds_may_be_any_numbers(tmp_path, images):
    text = HEAD + ROWS.replace("\n1", "\n-7").replace("2,0", "40,0")
    assert np.unique(read_pairs(write(tmp_path, text), images).folds).tolist() == [1, 40]
