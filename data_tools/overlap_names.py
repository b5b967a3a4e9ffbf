"""Names of identities in two sets that are spelled alike: exactly, or nearly and for review."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_range, require

_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "\u0131": "i"}
)
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_BREAKS = re.compile(r"[\W_]+")
_SUFFIX = re.compile(r" \d+$")
MIDDLE_NAME = 0.95
"""Likeness of two names of which one has all words of the other."""
_LEAST_LETTERS = 5
_LEAST_GRAMS = 0.4
_BLOCK = 256


@dataclass(frozen=True)
class NamePairs:
    """Pairs of identities with like names.

    Attributes:
        pairs: int64 (p, 2), identity of the first set, of the second; sorted.
        scores: float64 (p,), 1 for the same words, below it for nearly the same.
    """

    pairs: NDArray[np.int64]
    scores: NDArray[np.float64]


def normalise_names(names: Sequence[str]) -> list[str]:
    """Return each name as plain lower-case words, sorted, so that spellings of one name agree.

    Accents, brackets with what is in them, and everything between words go. A number at the end
    goes too, unless the names of this set are told apart by it.

    Args:
        names: of the identities of one set.
    """
    plain = [_spell(name) for name in names]
    short = [_SUFFIX.sub("", name) for name in plain]
    shared = Counter(short)
    kept = [s if shared[s] == 1 else p for s, p in zip(short, plain, strict=True)]
    return [" ".join(sorted(name.split())) for name in kept]


def compare_names(
    names: Sequence[str], others: Sequence[str], *, least: float = 0.85, most: int = 5
) -> NamePairs:
    """Return the pairs of identities of two sets whose names are the same or nearly.

    A score is the share of letters in common runs (Ratcliff and Obershelp) of the words in order,
    0.95 where all of at least two words of one name are among the other's (a middle name). Names
    that differ in a number, or of under five letters, are never nearly the same.

    Args:
        names: of the identities of the first set.
        others: of the second, the smaller one.
        least: the least score of a pair, in [0.5, 1]; 1 for the same words only.
        most: nearly same names listed for each of `others`, the nearest.
    """
    check_range(least, "least", 0.5, 1.0)
    one, two = normalise_names(names), normalise_names(others)
    found: dict[tuple[int, int], float] = {}
    places: dict[str, list[int]] = {}
    for number, name in enumerate(one):
        places.setdefault(name, []).append(number)
    for number, name in enumerate(two):
        for place in places.get(name, ()) if name else ():
            found[place, number] = 1.0
    if least < 1:
        for number, near in enumerate(_find_candidates(one, two, 4 * most)):
            scored = [(_rate(one[place], two[number]), place) for place in near]
            fits = sorted((-score, place) for score, place in scored if least <= score < 1)
            for score, place in fits[:most]:
                found[place, number] = -score
    pairs = sorted(found)
    return NamePairs(
        np.array(pairs, np.int64).reshape(-1, 2),
        np.array([found[pair] for pair in pairs], np.float64),
    )


def _spell(name: str) -> str:
    spread = unicodedata.normalize("NFKD", name).casefold().translate(_LETTERS)
    bare = "".join(letter for letter in spread if not unicodedata.combining(letter))
    outside = _BREAKS.sub(" ", _BRACKETS.sub(" ", bare)).strip()
    return outside or _BREAKS.sub(" ", bare).strip()


def _find_candidates(one: Sequence[str], two: Sequence[str], most: int) -> list[list[int]]:
    """Return, for each name of `two`, the names of `one` that share the most runs of 3 letters."""
    usable = [number for number, name in enumerate(one) if _count_letters(name) >= _LEAST_LETTERS]
    wanted = [number for number, name in enumerate(two) if _count_letters(name) >= _LEAST_LETTERS]
    near: list[list[int]] = [[] for _ in two]
    if not usable or not wanted:
        return near
    text = require("sklearn.feature_extraction.text")
    grams = text.TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), dtype=np.float32)
    rows = grams.fit_transform([one[number] for number in usable])
    columns = rows.T.tocsr()
    queries = grams.transform([two[number] for number in wanted])
    for first in range(0, len(wanted), _BLOCK):
        block = (queries[first : first + _BLOCK] @ columns).tocsr()
        for place in range(block.shape[0]):
            part = slice(block.indptr[place], block.indptr[place + 1])
            alike, where = block.data[part], block.indices[part]
            kept = alike >= _LEAST_GRAMS
            best = np.lexsort((where[kept], -alike[kept]))[:most]
            near[wanted[first + place]] = [usable[number] for number in where[kept][best]]
    return near


def _count_letters(name: str) -> int:
    return sum(letter.isalpha() for letter in name)


def _rate(one: str, two: str) -> float:
    """Return how alike two names are, in [0, 1]; 1 only for the same words."""
    words, others = one.split(), two.split()
    if [w for w in words if w.isdigit()] != [w for w in others if w.isdigit()]:
        return 0.0
    if re.sub(r"\D", "", one) != re.sub(r"\D", "", two):
        return 0.0
    score = SequenceMatcher(None, one, two, autojunk=False).ratio()
    fewer, more = sorted((set(words), set(others)), key=len)
    if len(fewer) >= 2 and fewer < more:
        return max(score, MIDDLE_NAME)
    return score
