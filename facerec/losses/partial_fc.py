"""A head of which a step sees only some classes, on one process or divided among several."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from facerec import dist
from facerec.checks import InputError, check_one_of, check_range, check_whole
from facerec.losses.head import Head, Rows, Scores, promote
from facerec.losses.sharding import (
    ShardedScores,
    find_nearest_classes,
    gather_shards,
    gather_with_gradient,
    shard_range,
    slice_shard,
    sum_with_gradient,
    take_own_rows,
)

SAMPLINGS = ("random", "hard_prototypes")


class PartialFC(nn.Module):
    """A head whose softmax runs over sampled classes (An et al. 2022, METHODS 11).

    In training mode a step compares with the classes of its batch and some others:

    - "random": as many more, drawn at random, as make up `sample_rate` of the classes; the
      classes of the batch alone where they are more than that.
    - "hard_prototypes": the `neighbours` classes most similar to each class of the batch
      (Liu et al. 2019, METHODS 2.3), found anew every `refresh_steps` steps.

    The weight then gets a sparse gradient of those classes' rows, which adds up over micro
    batches; with `facerec.training.sgd.SGD` no other row moves. In evaluation mode all classes
    count. With sample_rate 1 and one process it is the head itself, bit for bit.

    With `shard` and several processes each holds a contiguous range of the classes, and the
    parameter says so by `facerec_sharded`: its gradient is complete, and summing it over ranks
    would be wrong. A batch is that of all ranks, and scores speak of the rank's own rows; see
    `facerec.losses.sharding` for what that asks of the caller. Each rank draws from its own
    range, at least one class.

    Which classes are drawn depends on the seed, the number of batches scored in training mode
    (the buffer `step`), the rank and the kind of device, on nothing else.

    Args:
        head: built for all classes; with `shard` its weight is replaced by this rank's rows.
        sample_rate: share of the classes in (0, 1] that take part in a step; for "random" only.
        sampling: "random" or "hard_prototypes".
        neighbours: h, similar classes kept for each class; for "hard_prototypes" only.
        refresh_steps: batches after which they are found anew; for "hard_prototypes" only.
        seed: of the draws, not negative.
        shard: divide the classes among the processes; in one process it changes nothing.

    Attributes:
        head: the head, whose steps are used.
        first_class: number of the first class that this process holds.
        own_classes: how many it holds.
        sharded: whether other processes hold the others.
        sampled: whether training steps see only some classes.

    Raises:
        InputError: an argument out of range, or a head that cannot be sampled or divided.
    """

    step: Tensor
    nearest: Tensor | None

    def __init__(
        self,
        head: Head,
        sample_rate: float = 1.0,
        sampling: str = "random",
        neighbours: int = 16,
        refresh_steps: int = 500,
        seed: int = 0,
        shard: bool = False,
    ) -> None:
        super().__init__()
        check_range(sample_rate, "sample_rate", 1e-6, 1)
        check_one_of(sampling, "sampling", SAMPLINGS)
        check_whole(seed, "seed", 0, 2**63 - 1)
        if not isinstance(shard, bool):  # any text would count as true
            raise InputError(f"shard must be true or false, got {shard!r}")
        hard = sampling == "hard_prototypes"
        if hard:
            check_whole(neighbours, "neighbours", 1, head.num_classes - 1)
            check_whole(refresh_steps, "refresh_steps", 1, 10**9)
            if sample_rate != 1:
                raise InputError(
                    f"sample_rate must be 1 with sampling hard_prototypes, got {sample_rate}; "
                    "set neighbours, which says how many classes take part"
                )
        self.head = head
        self.sample_rate = sample_rate
        self.sampling = sampling
        self.neighbours = neighbours
        self.refresh_steps = refresh_steps
        self.seed = seed
        self.sampled = hard or sample_rate < 1
        self.sharded = shard and dist.world_size() > 1
        self.first_class, self.own_classes = 0, head.num_classes
        if self.sharded:
            self._take_shard()
        elif self.sampled and dist.world_size() > 1:
            raise InputError(
                f"shard must be true where {dist.world_size()} processes sample classes, "
                "got false; set it, or sample_rate=1 with sampling random"
            )
        step = torch.zeros((), dtype=torch.int64, device=head.weight.device)
        self.register_buffer("step", step)
        # Filled at step 0, which is a refresh.
        nearest = step.new_zeros(self.own_classes, neighbours) if hard else None
        self.register_buffer("nearest", nearest)

    @property
    def num_classes(self) -> int:
        """Return the number of classes, of all ranks."""
        return self.head.num_classes

    @property
    def embedding_dim(self) -> int:
        """Return d."""
        return self.head.embedding_dim

    @property
    def scale(self) -> float:
        """Return s, by which cosines are multiplied."""
        return float(self.head.scale)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scaled logits of `score`.

        Raises:
            InputError: a shape or a label that does not fit.
        """
        return self.score(embeddings, labels).logits

    def score(self, embeddings: Tensor, labels: Tensor) -> Scores:
        """Return what the head says of a batch, over the classes that take part.

        In training mode the head's running statistics are updated, and the classes of the next
        call are others.

        Args:
            embeddings: (n, d) raw, of this rank; n may differ between ranks.
            labels: (n,) int64 in [0, num_classes).

        Returns:
            Scores, whose `classes` says which class each column is (None for all of them), or
            ShardedScores.

        Raises:
            InputError: a shape or a label that does not fit.
        """
        if not self.sharded and not (self.sampled and self.training):
            return self.head.score(embeddings, labels)
        self.head.check_embeddings(embeddings)
        self._check_labels(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            exact = promote(embeddings)
            counts = dist.count_rows(len(labels)) if self.sharded else [len(labels)]
            if self.sharded:
                exact = gather_with_gradient(exact, counts)
                labels = dist.gather_rows(labels, counts)
            chosen = self._choose_classes(labels) if self.sampled and self.training else None
            rows = self._build_rows(exact, labels, chosen)
            # Statistics and penalties are of a rank's own rows, as where it holds all classes.
            own = take_own_rows(rows, counts) if self.sharded else rows
            if self.training:
                with torch.no_grad():
                    self.head.observe(own)
            logits, penalty = self.head.transform(rows), self.head.penalty(own)
        if chosen is None:
            chosen = torch.arange(self.own_classes, device=labels.device)
        classes = chosen + self.first_class
        if self.sharded:
            return ShardedScores(rows, logits, self.scale, penalty, classes, tuple(counts))
        return Scores(rows, logits, self.scale, penalty, classes)

    @torch.no_grad()
    def refresh_neighbours(self) -> None:
        """Find the most similar classes anew; nothing to do for random sampling."""
        if self.nearest is not None:
            self.nearest.copy_(
                find_nearest_classes(
                    self.head.weight, self.num_classes, self.head.sub_centers, self.neighbours
                )
            )

    def full_state(self) -> dict[str, Tensor]:
        """Return a state dict of all classes, on any number of processes the same.

        All ranks must call it. What is gathered lies on the CPU.
        """
        state: dict[str, Tensor] = self.state_dict()
        return {n: self.gather(v) if self._is_divided(n) else v for n, v in state.items()}

    def load_full_state(self, state: dict[str, Tensor]) -> None:
        """Load what `full_state` returned, on any number of processes.

        Raises:
            InputError: it was written for another number of classes.
            RuntimeError: names or shapes do not fit.
        """
        own = {n: self.slice(v) if self._is_divided(n) else v for n, v in state.items()}
        self.load_state_dict(own)

    def gather(self, own: Tensor) -> Tensor:
        """Return the rows of all classes from those of this rank's; all ranks must call it.

        Args:
            own: (c_own * k, ...), such as the momentum of the class weight.
        """
        return gather_shards(own, self.num_classes) if self.sharded else own

    def slice(self, whole: Tensor) -> Tensor:
        """Return the rows of this rank's classes from those of all; undoes `gather`.

        Args:
            whole: (c * k, ...).

        Raises:
            InputError: the number of rows is no multiple of the number of classes.
        """
        return slice_shard(whole, self.num_classes) if self.sharded else whole

    def extra_repr(self) -> str:
        """Name the settings in the module's text form."""
        drawn = f"rate {self.sample_rate:g}" if self.sampling == "random" else self.sampling
        last = self.first_class + self.own_classes - 1
        return f"{drawn}, classes {self.first_class} to {last} of {self.num_classes}"

    def _take_shard(self) -> None:
        """Keep only this rank's rows of the class weight."""
        head, classes = self.head, self.head.num_classes
        name = type(head).__name__
        if head.whole_row:
            raise InputError(
                f"shard must be false with the head {name}, which looks at all classes of a row "
                "at once, got true; take another head"
            )
        owned = [
            key
            for key, value in head.named_parameters()
            if key != "weight" and value.ndim and len(value) in (classes, len(head.weight))
        ]
        if owned:
            raise InputError(
                f"shard must be false with the head {name}, which learns {owned[0]} for each "
                "class, got true; take another head"
            )
        if classes < dist.world_size():
            raise InputError(
                f"shard needs at least one class a process, got {classes} classes for "
                f"{dist.world_size()} processes; start fewer processes"
            )
        first, last = shard_range(classes)
        self.first_class, self.own_classes = first, last - first
        head.weight = nn.Parameter(slice_shard(head.weight.detach(), classes))
        head.weight.facerec_sharded = True  # type: ignore[attr-defined]

    def _is_divided(self, name: str) -> bool:
        return self.sharded and name in ("head.weight", "nearest")

    @torch.no_grad()
    def _choose_classes(self, labels: Tensor) -> Tensor:
        """Return the classes of this rank that take part, counted from its first, sorted."""
        if self.nearest is not None and int(self.step) % self.refresh_steps == 0:
            self.refresh_neighbours()
        present = torch.unique(labels)
        if self.nearest is None:
            chosen = self._draw_classes(self._keep_own(present))
        else:
            near = self.nearest[self._keep_own(present)].flatten()
            near = dist.gather_rows(near) if self.sharded else near
            chosen = self._keep_own(torch.unique(torch.cat([present, near])))
            if not len(chosen):  # a rank without columns could take no part in the softmax
                chosen = chosen.new_zeros(1)
        self.step.add_(1)
        return chosen

    def _draw_classes(self, positives: Tensor) -> Tensor:
        """Return the sorted positives (p,) and random others, up to the quota."""
        entropy = [self.seed, int(self.step), dist.rank() if self.sharded else 0]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        device = positives.device
        generator = torch.Generator(device).manual_seed(seed)
        order = torch.randperm(self.own_classes, generator=generator, device=device)
        free = torch.ones(self.own_classes, dtype=torch.bool, device=device)
        free[positives] = False
        quota = max(1, round(self.sample_rate * self.own_classes))
        others = order[free[order]][: max(0, quota - len(positives))]
        return torch.cat([positives, others]).sort().values

    def _keep_own(self, numbers: Tensor) -> Tensor:
        """Return those class numbers that this rank holds, counted from its first."""
        local = numbers - self.first_class
        return local[(local >= 0) & (local < self.own_classes)]

    def _build_rows(self, embeddings: Tensor, labels: Tensor, chosen: Tensor | None) -> Rows:
        """Return the batch against the chosen classes of this rank, None for all it holds."""
        head = self.head
        norms = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
        cosine = head.compare(embeddings, self._read_centres(chosen))
        columns = self._find_columns(labels, chosen)
        target = cosine.gather(1, columns.clamp_min(0)[:, None])
        if self.sharded:
            # One rank holds the class; the others add nothing, and get no gradient.
            target = sum_with_gradient(torch.where(columns[:, None] >= 0, target, 0.0))
        if head.bounded:
            target = target.clamp(-1, 1)
        return Rows(cosine, target, labels, columns, norms)

    def _read_centres(self, chosen: Tensor | None) -> Tensor:
        """Return the rows of the weight, k a class, with a sparse gradient if not all."""
        if chosen is None:
            return self.head.weight
        each = torch.arange(self.head.sub_centers, device=chosen.device)
        rows = (chosen[:, None] * self.head.sub_centers + each).flatten()
        return embedding(rows, self.head.weight, sparse=True)

    def _find_columns(self, labels: Tensor, chosen: Tensor | None) -> Tensor:
        """Return the column of each row's own class (n,), -1 where it has none here."""
        local = labels - self.first_class
        if chosen is None:
            return local.where((local >= 0) & (local < self.own_classes), -1)
        place = torch.searchsorted(chosen, local).clamp_max(len(chosen) - 1)
        return place.where(chosen[place] == local, -1)

    def _check_labels(self, embeddings: Tensor, labels: Tensor) -> None:
        shape = embeddings.shape[:1]
        if labels.shape != shape:
            raise InputError(f"labels must have shape {tuple(shape)}, got {tuple(labels.shape)}")
        # On an accelerator the look would stall the queue.
        if labels.device.type == "cpu" and labels.numel():
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.num_classes:
                raise InputError(
                    f"labels must lie in [0, {self.num_classes}), got {low if low < 0 else high}"
                )
