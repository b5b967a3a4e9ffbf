"""A VectorIndex in a few lines of numpy: what searches are tested against."""

import numpy as np

from facerec.gallery.index import Ranked


class PlainIndex:
    """All rows in one matrix, every answer by scoring everybody; counts the rows asked for."""

    name, exact = "plain", True

    def __init__(self, vectors, owners, ids=None):
        self.vectors, self.owners = vectors.astype(np.float64), np.asarray(owners, np.int64)
        self.ids = np.arange(len(vectors)) if ids is None else np.asarray(ids)
        self.dim = vectors.shape[1]
        self.widths = []

    def __len__(self):
        return len(self.owners)

    def search(self, queries, k, *, exact=False, people=None):
        self.widths.append(k)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        owners, ids = np.full((len(queries), k), -1), np.full((len(queries), k), -1)
        cosines = (queries.astype(np.float64) @ self.vectors.T).astype(np.float32)
        for row, line in enumerate(cosines):
            seen = set()
            for place in np.lexsort((self.ids, self.owners, -line)):
                owner = int(self.owners[place])
                if owner in seen or (people is not None and owner not in people):
                    continue
                if len(seen) == k:
                    break
                scores[row, len(seen)], owners[row, len(seen)] = line[place], owner
                ids[row, len(seen)] = self.ids[place]
                seen.add(owner)
        return Ranked(scores, owners, ids)
