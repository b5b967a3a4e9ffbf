import numpy as np
import pytest

from facerec.checks import InputError
from facerec.gallery import index_ladder
from facerec.gallery.index_compressed import CompressedIndex
from facerec.gallery.index_ladder import (
    build_index,
    choose_rung,
    find_available_memory,
    list_rungs,
    make_index,
)

GIGA = 10**9


@pytest.mark.parametrize(
    ("rows", "memory", "name", "fits", "words"),
    [
        (0, GIGA, "flat", True, "scanned whole"),
        (100_000, GIGA, "flat", True, "100,000 rows"),
        (1_000_000, 4 * GIGA, "rabitq+exact", True, "too many to scan whole"),
        (1_000_000, 2_090_000_000, "flat", True, "leaves none for codes"),
        (1_000_000, GIGA, "flat", False, "qdrant"),
    ],
)
def test_the_rung_follows_size_and_memory(monkeypatch, rows, memory, name, fits, words):
    monkeypatch.setattr(index_ladder, "_count_gpus", lambda: 0)
    choice = choose_rung(rows, 512, memory)
    assert (choice.name, choice.fits) == (name, fits)
    assert words in choice.explanation and "gpu" not in choice.explanation.lower()
    assert fits == (choice.memory_bytes <= memory)
    assert "of 7 people" in choose_rung(rows, 512, memory, people=7).explanation


def test_a_gpu_is_offered_where_there_is_one(monkeypatch):
    monkeypatch.setattr(index_ladder, "_count_gpus", lambda: 2)
    assert choose_rung(1_000_000, 512, 4 * GIGA).name == "gpu" and "gpu" in list_rungs()
    monkeypatch.setattr(index_ladder, "_count_gpus", lambda: 0)
    assert "gpu" not in list_rungs()


def test_the_machine_has_memory():
    assert 10**8 < find_available_memory() < 10**15


@pytest.mark.parametrize("name", [*list_rungs(), "auto"])
def test_every_rung_is_built_by_name(name):
    rows = np.eye(16, dtype=np.float32)
    index = build_index(name, np.arange(16), rows, np.arange(16), threads=1, floor=0.4)
    assert len(index) == 16 and index.dim == 16
    assert index.name == ("flat" if name == "auto" else name)
    assert index.search(rows[3:4], 1).owners.tolist() == [[3]]
    if isinstance(index, CompressedIndex):
        assert index.floor == 0.4
    index.close()


def test_an_unknown_rung_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'rabitq\\+exact'"):
        make_index("rabitq", 16)
    with pytest.raises(InputError, match="index must be one of auto, flat"):
        build_index("fastest", np.arange(1), np.eye(16, dtype=np.float32)[:1], np.arange(1))
