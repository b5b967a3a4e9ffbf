import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facerec.checks import InputError
from facerec.data.sources import SourceItem, open_source, scan_source
from facerec.registry import SOURCES


@pytest.fixture
def tree(tmp_path):
    """Two people, a picture without one, names to be skipped, and things that are no pictures."""
    for name in (
        "bob/2.jpg",
        "bob/10.JPG",
        "anna/album/x.png",
        "anna/a.webp",
        "loose.jpeg",
        ".hidden.jpg",
        ".git/x.jpg",
        "bob/.DS_Store",
        "bob/notes.txt",
        "list.json",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_the_registry_holds_the_three_sources():
    assert SOURCES.names() == ["folder", "list", "loose"]


def test_folder_per_identity(tree):
    source = scan_source(tree)
    assert source.kind == "folder" and source.root == tree and source.ignored == 2
    assert [(item.key, item.identity) for item in source.items] == [
        ("anna/a.webp", "anna"),
        ("anna/album/x.png", "anna"),
        ("bob/10.JPG", "bob"),
        ("bob/2.jpg", "bob"),
        ("loose.jpeg", ""),
    ]
    assert all(item.path == tree / item.key and item.split == "" for item in source.items)


def test_loose_pictures_have_no_identity(tree):
    assert {item.identity for item in open_source(tree, "loose")} == {""}
    flat = scan_source(tree / "anna" / "album")
    assert flat.kind == "loose" and [item.key for item in flat.items] == ["x.png"]


def test_one_picture_is_a_source(tree):
    source = scan_source(tree / "bob" / "2.jpg")
    assert source.items == [SourceItem(tree / "bob" / "2.jpg", "2.jpg")]
    assert source.root == tree / "bob"


def write_list(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_list(tree):
    path = write_list(
        tree / "list.csv",
        'path,identity,split,extra\nbob/2.jpg,007,test,1\n./anna/a.webp,"Anna, B.",train,2\n',
    )
    source = scan_source(path)
    assert source.kind == "list"
    assert source.items == [
        SourceItem(tree / "anna/a.webp", "anna/a.webp", "Anna, B.", "train"),
        SourceItem(tree / "bob/2.jpg", "bob/2.jpg", "007", "test"),
    ]


def test_list_root_and_missing_files(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists")
    path = write_list(elsewhere / "l.csv", "identity,path\nbob,bob/2.jpg\nbob,bob/gone.jpg\n")
    items = open_source(path, root=tree)
    assert [item.path for item in items] == [tree / "bob/2.jpg", tree / "bob/gone.jpg"]


def test_parquet_list(tree):
    table = pa.table({"path": ["bob/2.jpg", "bob/10.JPG"], "identity": pa.array([7, None])})
    pq.write_table(table, tree / "list.parquet")
    items = open_source(tree / "list.parquet")
    assert [(item.key, item.identity) for item in items] == [("bob/10.JPG", ""), ("bob/2.jpg", "7")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,identity\na.jpg,x\n", "'path' is missing"),
        ("path\na.jpg\n", "'identity' is missing"),
        ("path,identity\n,x\n", "row 0: path"),
        ("path,identity\na.jpg,x\n/etc/b.jpg,x\n", "row 1: path must be relative"),
        ("path,identity\n../b.jpg,x\n", "row 0: path must be relative"),
        ("path,identity\na.jpg,x\n./a.jpg,y\n", "row 1: path './a.jpg' stands in an earlier row"),
        ("path,identity\na.jpg,x,too,many\n", "cannot be read as a list"),
        ("path,identity\n", "holds no picture"),
        ("", "cannot be read as a list"),
    ],
)
def test_broken_lists_are_named(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        open_source(write_list(tmp_path / "l.csv", text))
    assert message in str(caught.value) and "l.csv" in str(caught.value)


def test_user_mistakes_are_one_sentence(tree):
    (tree / "text.parquet").write_text("no")
    for path, kind, message in (
        (tree / "nowhere", "auto", "does not exist"),
        (tree / "empty", "auto", "holds no picture"),
        (tree, "foldr", "did you mean 'folder'"),
        (tree, "list", "must end in .csv or .parquet"),
        (tree / "bob/2.jpg", "folder", "must be a folder"),
        (tree / "list.json", "auto", "must be a folder, a .csv"),
        (tree / "text.parquet", "auto", "cannot be read as a list"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            open_source(path, kind)
        assert "\n" not in str(caught.value)


def test_links_are_followed_but_not_in_circles(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "o.jpg").write_bytes(b"x")
    (tree / "linked").symlink_to(outside)
    (tree / "bob" / "up").symlink_to(tree)
    (outside / "self").symlink_to(outside)
    (tree / "bob" / "gone.jpg").symlink_to(tree / "nothing")
    keys = [item.key for item in open_source(tree)]
    assert "linked/o.jpg" in keys and "bob/gone.jpg" in keys
    assert not any("up/" in key or "self/" in key for key in keys)


def test_every_picture_name_is_an_item_whatever_it_holds(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.jpg" / "in.png").touch()
    (tmp_path / "text.jpg").write_text("hello")
    keys = [item.key for item in open_source(tmp_path)]
    assert keys == ["folder.jpg/in.png", "pipe.jpg", "text.jpg"]


def test_names_that_are_no_utf8_get_a_key(tmp_path):
    (tmp_path / os.fsdecode(b"a\xff.jpg")).write_bytes(b"x")
    (item,) = open_source(tmp_path)
    assert item.key == "a\\xff.jpg" and item.path.read_bytes() == b"x"
    item.key.encode("utf-8")


def test_list_with_two_columns_of_one_name_or_no_root_is_refused(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path,identity,path\na.jpg,x,b.jpg\n")
    with pytest.raises(InputError, match="several columns called 'path'"):
        open_source(table)
    table.write_text("path,identity\na.jpg,x\n")
    with pytest.raises(InputError, match=r"root .* must be a folder"):
        open_source(table, root=tmp_path / "nowhere")
