import os
import pickle
import pickletools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.checks import InputError
from facerec.data.bins import load_bin_pairs, read_bin, write_bin
from facerec.data.chip_dataset import ChipDataset


def picture(value, suffix=".png"):
    return cv2.imencode(suffix, np.full((16, 16, 3), value, np.uint8))[1].tobytes()


def save(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@given(
    pairs=st.lists(st.tuples(st.binary(), st.binary(), st.booleans()), min_size=1, max_size=6),
    protocol=st.integers(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_packs_of_every_protocol_read_back(tmp_path_factory, pairs, protocol):
    path = tmp_path_factory.mktemp("bin") / "a.bin"
    images = [image for first, second, _ in pairs for image in (first, second)]
    same = [flag for *_, flag in pairs]
    save(path, (images, same), protocol)
    pack = read_bin(path)
    assert pack.images == images and pack.same.tolist() == same and pack.same.dtype == bool
    write_bin(path, images, np.array(same))
    assert pickle.loads(path.read_bytes()) == (images, same)
    assert read_bin(path).images == images


@pytest.mark.parametrize("protocol", range(6))
def test_numpy_pictures_and_flags_are_taken(tmp_path, protocol):
    images = [np.frombuffer(picture(n), np.uint8) for n in range(4)]
    objects = np.empty(4, object)
    objects[:] = [bytes(image) for image in images]
    for pictures in (images, [bytearray(image) for image in images], objects):
        for same in (np.array([True, False]), [np.True_, np.False_], [1, 0], (True, False)):
            pack = read_bin(save(tmp_path / "a.bin", [pictures, same], protocol))
            assert pack.images == [bytes(image) for image in images]
            assert pack.same.tolist() == [True, False]


def test_a_pack_written_by_python_2_is_read(tmp_path):
    # Protocol 2 of Python 2: byte strings as SHORT_BINSTRING and BINSTRING, flags as NEWTRUE.
    long = bytes(range(256)) * 2
    data = (
        b"\x80\x02]q\x00(U\x03ab\xffT"
        + len(long).to_bytes(4, "little")
        + long
        + b"e]q\x01\x88a\x86."
    )
    (tmp_path / "a.bin").write_bytes(data)
    pack = read_bin(tmp_path / "a.bin")
    assert pack.images == [b"ab\xff", long] and pack.same.tolist() == [True]
    # The same with an array, whose bytes Python 2 wrote as a string.
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I3\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
        b"I00\nS'xyz'\ntb"
    )
    (tmp_path / "a.bin").write_bytes(b"((l" + array + b"aS'b'\na(lI01\nat.")
    pack = read_bin(tmp_path / "a.bin")
    assert pack.images == [b"xyz", b"b"] and pack.same.tolist() == [True]


class Call:
    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("where", ["image", "flag", "whole"])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path, protocol, where):
    trap = tmp_path / "ran"
    evil = Call(os.mkdir, str(trap))
    value = {
        "image": ([evil, b""], [True]),
        "flag": ([b"", b""], [evil]),
        "whole": evil,
    }[where]
    path = save(tmp_path / "a.bin", value, protocol)
    with pytest.raises(InputError, match=r"asks for \w+\.mkdir, which a pack never needs"):
        read_bin(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
        (b"cbuiltins\nbytes\n(I100000000000000\ntR.", "bytes.. with arguments"),
        (b"cbuiltins\nbytearray\n(I100000000000000\ntR.", "bytes are expected, got int"),
        (b"cnumpy\nndarray\n(I9\ntR.", "calls numpy.ndarray"),
        (b"cnumpy\nndarray\n}S'x'\nI1\nsb.", "changes a function"),
        (b"c_codecs\nencode\n(S'x'\nS'zip'\ntR.", "another way than latin1"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "class argument"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(tRI5\nb.", "not as NumPy writes it"),
        (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\ntRS'x'\ntR.", "neither a flag"),
        (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'b1'\ntRS'xx'\ntR.", "not one byte"),
        (b"cnumpy.core.numeric\n_frombuffer\n(S'x'\nI1\ntR.", "no dtype"),
        (b"]r\xff\xff\xff\x7f.", "memory"),
        (b"]p99999999\n.", "memory"),
        (b"P1\n.", "persistent"),
        (b"\x82\x01.", "extension"),
        (b"", "exhausted"),
        (b"\x80\x04nonsense", "not readable"),
        (b"\x80\x04]", "not readable"),
        (b"\xff" * 20, "not readable"),
    ],
)
def test_hostile_and_damaged_packs_are_refused(tmp_path, data, said):
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.bin must be a verification pack.*" + said):
        read_bin(tmp_path / "a.bin")


@given(st.binary(max_size=60), st.data())
@settings(max_examples=150, deadline=None)
def test_no_bytes_make_reading_fail_in_another_way(tmp_path_factory, noise, data):
    whole = pickle.dumps(([np.frombuffer(b"abc", np.uint8), b"d"], [np.True_]), 2)
    place = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path_factory.mktemp("bin") / "a.bin"
    path.write_bytes(whole[:place] + noise + whole[place + len(noise) :])
    try:
        read_bin(path)
    except InputError as error:
        assert str(error).startswith(str(path))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "two lists, pictures and flags, got list"),
        (5, "got int"),
        (([b"a"], [True]), "two pictures for each flag, got 1 pictures and 1 flags"),
        (([], []), "two pictures for each flag"),
        ((b"ab", True), "got 0 pictures and 0 flags"),
        (([b"a", "b"], [True]), "picture 1 must be an encoded picture as bytes, got str"),
        (([b"a", np.zeros(2, np.float32)], [True]), "picture 1 must be .* got Array"),
        (([b"a", b"b"], [2]), "flag 0 must be true or false, got '2'"),
        (([b"a", b"b"], ["yes"]), "flag 0 must be true or false, got 'yes'"),
    ],
)
def test_packs_of_another_form_are_named(tmp_path, value, said):
    with pytest.raises(InputError, match=said):
        read_bin(save(tmp_path / "a.bin", value))


def test_files_and_numbers_that_do_not_fit(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_bin(tmp_path / "a.bin")
    for images, same in (([b"a"], [True]), ([], [])):
        with pytest.raises(InputError, match="needs two pictures for each flag"):
            write_bin(tmp_path / "a.bin", images, same)
    assert not list(tmp_path.iterdir())


def test_pairs_are_chips_that_a_dataset_reads(tmp_path):
    images = [picture(10 * n) for n in range(5)] + [b"damaged"]
    write_bin(tmp_path / "lfw.bin", images, [True, False, True])
    pairs = load_bin_pairs(tmp_path / "lfw.bin")
    assert pairs.first.tolist() == [0, 2, 4] and pairs.second.tolist() == [1, 3, 5]
    assert pairs.same.tolist() == [True, False, True]
    dataset = ChipDataset(pairs.chips, 8)
    assert [int(dataset.read(n).mean()) for n in range(5)] == [0, 10, 20, 30, 40]
    with pytest.raises(InputError, match=r"lfw\.bin#5 must be a picture"):
        dataset.read(5)
    part = pairs.chips.take(np.array([5, 1]))
    assert part.name(0) == "lfw.bin#5" and part.read_bytes(1) == images[1]
    assert part.digest() != pairs.chips.digest()


def test_written_packs_need_no_globals(tmp_path):
    write_bin(tmp_path / "a.bin", [b"a", bytearray(b"b")], np.array([True]))
    names = {op.name for op, _, _ in pickletools.genops((tmp_path / "a.bin").read_bytes())}
    assert not names & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}
