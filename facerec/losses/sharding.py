"""Classes divided among processes: who holds which, and softmax and gradients across them.

Every rank sees the rows of all ranks (n in all, in rank order) against its own classes. Gradients
follow one rule: that of a tensor on one rank is the derivative of the sum over all ranks of what
each of them runs backward. So a tensor which travelled to all ranks gets the sum of what comes
back from them, and the weight of a rank's classes needs no further summing.

Whatever talks to other ranks has to be called by all of them, in the same order; so has
`backward`, also by a rank that has no rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize

from facerec import dist
from facerec.checks import InputError
from facerec.losses.head import SMALLEST_NORM, Rows, Scores, pool_sub_centers

_BLOCK_VALUES = 1 << 24


def shard_range(num_classes: int, rank: int | None = None) -> tuple[int, int]:
    """Return (first, last + 1) of the classes that a rank holds; lower ranks take the remainder.

    Args:
        num_classes: c, in all.
        rank: of whom, None for this process.
    """
    rank = dist.rank() if rank is None else rank
    share, rest = divmod(num_classes, dist.world_size())
    first = rank * share + min(rank, rest)
    return first, first + share + (rank < rest)


def iter_shards(own: Tensor, num_classes: int) -> Iterator[tuple[int, Tensor]]:
    """Yield (first class, rows (c_rank * k, ...)) of every rank's part, in rank order.

    All ranks get all parts, one at a time, so that no device has to hold the whole.

    Args:
        own: (c_own * k, ...), k rows for each class of this rank.
        num_classes: c, of all ranks.
    """
    first, last = shard_range(num_classes)
    per_class = len(own) // (last - first)
    for rank in range(dist.world_size()):
        first, last = shard_range(num_classes, rank)
        mine = rank == dist.rank()
        part = own if mine else own.new_empty((last - first) * per_class, *own.shape[1:])
        yield first, dist.broadcast_from(part.detach(), rank)


def gather_shards(own: Tensor, num_classes: int) -> Tensor:
    """Return the rows of all classes (c * k, ...) on the CPU, the same on every rank.

    Args:
        own: (c_own * k, ...), a class weight, its momentum or another tensor with k rows a class.
        num_classes: c, of all ranks.
    """
    return torch.cat([part.cpu() for _, part in iter_shards(own, num_classes)])


def slice_shard(whole: Tensor, num_classes: int) -> Tensor:
    """Return a copy of the rows of this rank's classes; undoes `gather_shards`.

    Args:
        whole: (c * k, ...).
        num_classes: c.

    Raises:
        InputError: the number of rows is no multiple of c.
    """
    per_class, rest = divmod(len(whole), num_classes)
    if rest:
        raise InputError(
            f"a state for {num_classes} classes must have a multiple of {num_classes} rows, "
            f"got {len(whole)}; it was written for another set of identities"
        )
    first, last = shard_range(num_classes)
    return whole[first * per_class : last * per_class].clone()


@torch.no_grad()
def find_nearest_classes(own: Tensor, num_classes: int, sub_centers: int, count: int) -> Tensor:
    """Return the numbers of the classes most similar to each class of this rank.

    Two classes are as similar as their most similar centres. Work and memory go in blocks.

    Args:
        own: (c_own * k, d), the centres of this rank's classes.
        num_classes: c, of all ranks.
        sub_centers: k.
        count: h in [1, c - 1].

    Returns:
        (c_own, h) int64, the most similar first; never the class itself.
    """
    offset = shard_range(num_classes)[0]
    centres = normalize(own, dim=1, eps=SMALLEST_NORM)
    classes = len(own) // sub_centers
    best = centres.new_empty(classes, 0)
    nearest = torch.empty(classes, 0, dtype=torch.int64, device=own.device)
    for first, part in iter_shards(centres, num_classes):
        others = torch.arange(first, first + len(part) // sub_centers, device=own.device)
        step = max(1, _BLOCK_VALUES // (len(part) * sub_centers))
        values, columns = [], []
        for start in range(0, classes, step):
            block = centres[start * sub_centers : (start + step) * sub_centers]
            cosine = pool_sub_centers(block @ part.T, sub_centers)
            cosine = cosine.view(-1, sub_centers, len(others)).amax(dim=1)
            itself = torch.arange(len(cosine), device=own.device) + start + offset
            cosine.masked_fill_(itself[:, None] == others, -torch.inf)
            value, column = cosine.topk(min(count, len(others)), dim=1)
            values.append(value)
            columns.append(column)
        best = torch.cat([best, torch.cat(values)], dim=1)
        nearest = torch.cat([nearest, others[torch.cat(columns)]], dim=1)
        best, order = best.topk(min(count, best.shape[1]), dim=1)
        nearest = nearest.gather(1, order)
    return nearest


def take_own_rows(rows: Rows, counts: Sequence[int]) -> Rows:
    """Return those rows of a batch of all ranks that are this rank's own.

    Args:
        rows: of all ranks.
        counts: rows of every rank.
    """
    own = _own_rows(counts)
    norms = None if rows.norms is None else rows.norms[own]
    return Rows(rows.cosine[own], rows.target[own], rows.labels[own], rows.columns[own], norms)


def gather_with_gradient(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the rows of all ranks (n, ...), in rank order; differentiable.

    Args:
        rows: (n_own, ...).
        counts: rows of every rank.
    """
    gathered: Tensor = _GatherRows.apply(rows, counts)
    return gathered


def sum_with_gradient(tensor: Tensor) -> Tensor:
    """Return the sum over ranks, of the same shape on each; differentiable."""
    total: Tensor = _SumOverRanks.apply(tensor)
    return total


def sharded_cross_entropy(logits: Tensor, columns: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the cross entropy of this rank's own rows (n_own,) over the classes of all ranks.

    Args:
        logits: (n, c_own), the rows of all ranks against the classes of this one.
        columns: (n,) int64, where each row's own class stands here, -1 where another rank has it.
        counts: rows of every rank; n is their sum.
    """
    losses: Tensor = _ShardedCrossEntropy.apply(logits, columns, counts)
    return losses


@dataclass(frozen=True)
class ShardedScores(Scores):
    """Scores whose answers speak of this rank's own rows (n_own,), over the classes of all ranks.

    `rows` and `logits` are those of all ranks' rows (n in all) against the classes of this rank,
    and `rows.columns` is -1 where another rank has the class. Every method but `target_cosine`
    and `class_of` talks to the other ranks: all must call it.

    Attributes:
        counts: rows of every rank.
    """

    counts: tuple[int, ...] = ()

    def losses(self) -> Tensor:
        """Return the cross entropy of each own row (n_own,), with margins."""
        return sharded_cross_entropy(self.logits, self.rows.columns, self.counts)

    def plain_losses(self) -> Tensor:
        """Return the cross entropy of each own row (n_own,) without margins, detached."""
        plain = self.rows.cosine.detach() * self.scale
        return sharded_cross_entropy(plain, self.rows.columns, self.counts)

    def target_cosine(self) -> Tensor:
        """Return each own row's cosine with its own class (n_own,), detached."""
        return self.rows.target.detach()[_own_rows(self.counts), 0]

    def target_logits(self) -> Tensor:
        """Return each own row's logit of its own class (n_own,), detached."""
        columns = self.rows.columns
        place = columns.clamp_min(0)[:, None]
        held = self.logits.detach().gather(1, place)[:, 0]
        return dist.sum_over_ranks(torch.where(columns >= 0, held, 0.0))[_own_rows(self.counts)]

    def hardest_negative(self) -> tuple[Tensor, Tensor]:
        """Return (cosine (n_own,), class number (n_own,)) of the most similar other class."""
        others = self.rows.cosine.detach().masked_fill(self.rows.target_mask(), -torch.inf)
        return self._find_largest(others)

    def predictions(self, margins: bool = True) -> Tensor:
        """Return the class number of each own row's largest logit (n_own,)."""
        values = self.logits if margins else self.rows.cosine
        return self._find_largest(values.detach())[1]

    def _find_largest(self, values: Tensor) -> tuple[Tensor, Tensor]:
        largest, column = values.max(dim=1)
        # NaN is the largest value to max, but not to a collective.
        largest = largest.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        numbers = self.class_of(column)
        overall = dist.max_over_ranks(largest)
        # Of equal values the lowest class number counts, as in one process.
        unlikely = torch.iinfo(numbers.dtype).max
        lowest = -dist.max_over_ranks(-numbers.where(largest == overall, unlikely))
        own = _own_rows(self.counts)
        return overall[own], lowest[own]


def _own_rows(counts: Sequence[int]) -> slice:
    start = sum(counts[: dist.rank()])
    return slice(start, start + counts[dist.rank()])


class _GatherRows(torch.autograd.Function):
    """Forward: the rows of all ranks; backward: the sum over ranks, own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: Sequence[int]) -> Tensor:
        ctx.counts = counts
        return dist.gather_rows(rows, list(counts))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return dist.sum_over_ranks(gradient)[_own_rows(ctx.counts)], None


class _SumOverRanks(torch.autograd.Function):
    """Forward and backward: the sum over ranks."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return dist.sum_over_ranks(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return dist.sum_over_ranks(gradient)


class _ShardedCrossEntropy(torch.autograd.Function):
    """Forward: log of the sum of exponentials of all ranks' columns; backward: softmax."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, columns: Tensor, counts: Sequence[int]) -> Tensor:
        values = logits - dist.max_over_ranks(logits.amax(dim=1))[:, None]
        here = columns >= 0
        target = values.gather(1, columns.clamp_min(0)[:, None])[:, 0]
        target = torch.where(here, target, 0.0)
        values.exp_()
        total, target = dist.sum_over_ranks(torch.stack([values.sum(dim=1), target])).unbind()
        ctx.counts = counts
        ctx.save_for_backward(values.div_(total[:, None]), columns)
        own = _own_rows(counts)
        return total[own].log() - target[own]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # Each rank weighs its own rows; the columns here answer for the rows of all.
        probability, columns = ctx.saved_tensors
        weight = dist.gather_rows(gradient, list(ctx.counts))
        change = probability * weight[:, None]
        share = torch.where(columns >= 0, weight, 0.0)
        change.scatter_add_(1, columns.clamp_min(0)[:, None], -share[:, None])
        return change, None, None
