"""The base of every classification head: compare with class centres, apply margins, scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from facerec.checks import InputError, check_one_of, check_range, check_whole

SMALLEST_NORM = 1e-12
_INITIAL_STD = 0.01


@dataclass(frozen=True)
class Rows:
    """What a head's steps know of a batch; n rows, c columns.

    A column is a class, or one of the sampled classes of a PartialFC head.

    Attributes:
        cosine: (n, c) float32 or float64, cosines of embeddings and class centres.
        target: (n, 1), the cosine of each row's own class, in [-1, 1].
        labels: (n,) int64, class numbers.
        columns: (n,) int64, where each row's own class stands, -1 where it is not among them.
        norms: (n, 1) raw norms of the embeddings, None when the caller has none.
    """

    cosine: Tensor
    target: Tensor
    labels: Tensor
    columns: Tensor
    norms: Tensor | None = None

    def target_mask(self) -> Tensor:
        """Return bool (n, c): True at each row's own class."""
        every = torch.arange(self.cosine.shape[1], device=self.cosine.device)
        return self.columns[:, None] == every


@dataclass(frozen=True)
class Scores:
    """What a head says of a batch.

    Attributes:
        rows: the batch, with its cosines before any margin.
        logits: (n, c) scaled, after margins.
        scale: s, by which plain cosines are multiplied.
        penalty: scalar that the head adds to the loss, None when it has none.
        classes: (c,) int64, the class of each column; None when column j is class j.
    """

    rows: Rows
    logits: Tensor
    scale: float
    penalty: Tensor | None = None
    classes: Tensor | None = None

    def losses(self) -> Tensor:
        """Return the cross entropy of each row (n,), with margins."""
        return cross_entropy(self.logits, self.rows.columns, reduction="none")

    def plain_losses(self) -> Tensor:
        """Return the cross entropy of each row (n,) without margins, detached (NormFace)."""
        plain = self.rows.cosine.detach() * self.scale
        return cross_entropy(plain, self.rows.columns, reduction="none")

    def target_cosine(self) -> Tensor:
        """Return each row's cosine with its own class (n,), detached."""
        return self.rows.target.detach()[:, 0]

    def target_logits(self) -> Tensor:
        """Return each row's logit of its own class (n,), margin and scale included, detached."""
        return self.logits.detach().gather(1, self.rows.columns[:, None])[:, 0]

    def hardest_negative(self) -> tuple[Tensor, Tensor]:
        """Return (cosine (n,), class number (n,)) of the most similar other class, detached."""
        others = self.rows.cosine.detach().masked_fill(self.rows.target_mask(), -torch.inf)
        value, column = others.max(dim=1)
        return value, self.class_of(column)

    def predictions(self, margins: bool = True) -> Tensor:
        """Return the class number of each row's largest logit (n,), with or without margins."""
        values = self.logits if margins else self.rows.cosine
        return self.class_of(values.detach().argmax(dim=1))

    def class_of(self, columns: Tensor) -> Tensor:
        """Return the class numbers of columns (n,)."""
        return columns if self.classes is None else self.classes[columns]


class Head(nn.Module):
    """Class centres and logits `scale * cos`; a margin head overrides one of the steps.

    The steps, in their order: `compare` (embeddings to cosines), `observe` (running statistics,
    in training only), `modify_target`, `modify_negatives`, `penalty`. `forward` is final.

    Everything here runs in float32 (float64 stays float64), also under autocast: embeddings may
    come in half precision, but their norms and angles do not survive it (METHODS 0.1).

    Args:
        num_classes: c, at least 2.
        embedding_dim: d.
        scale: s, the norm that replaces that of the embedding.
        grad: "exact" differentiates the margins; "straight_through" treats each as a constant
            shift, so that a logit's gradient with respect to its cosine is s (the
            arcface_torch behaviour).
        sub_centers: K centres a class, of which the most similar counts (Deng et al. 2020).
        filter_cosine: negatives with a larger cosine get the constant logit 0, because a class
            that looks like the target is often the same person (inter-class filtering,
            METHODS 1); None filters nothing.

    Raises:
        InputError: an argument out of range.
    """

    bounded = True
    """Whether `compare` gives cosines; False for plain inner products."""
    whole_row = False
    """Whether a step looks at all columns of a row at once, so that no rank sees enough alone."""

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        scale: float = 64.0,
        grad: str = "exact",
        sub_centers: int = 1,
        filter_cosine: float | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise InputError(
                f"num_classes must be at least 2, got {num_classes}; "
                "a head needs two identities to tell apart"
            )
        check_range(scale, "scale", 1e-3, 1e4)
        check_one_of(grad, "grad", ("exact", "straight_through"))
        if filter_cosine is not None:
            check_range(filter_cosine, "filter_cosine", -1, 1)
        self.num_classes = num_classes
        self.embedding_dim = embedding_dim
        self.scale: float | Tensor = scale
        self.grad = grad
        self.sub_centers = check_whole(sub_centers, "sub_centers", 1, 16)
        self.filter_cosine = filter_cosine
        self.weight = nn.Parameter(torch.empty(num_classes * self.sub_centers, embedding_dim))
        nn.init.normal_(self.weight, std=_INITIAL_STD)

    @final  # type: ignore[misc] # to mypy nn.Module.forward is an attribute
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return scaled logits (n, c) from raw embeddings (n, d) and labels (n,) int64.

        Raises:
            InputError: a shape or a label that does not fit.
        """
        return self.score(embeddings, labels).logits

    def score(self, embeddings: Tensor, labels: Tensor) -> Scores:
        """Return logits with all that losses, mining and logs ask of them.

        In training mode the head's running statistics are updated first.

        Args:
            embeddings: (n, d), raw.
            labels: (n,) int64 in [0, num_classes).

        Raises:
            InputError: a shape or a label that does not fit.
        """
        self.check_embeddings(embeddings)
        with torch.autocast(embeddings.device.type, enabled=False):
            exact = promote(embeddings)
            norms = torch.linalg.vector_norm(exact, dim=1)
            cosine = self.compare(exact, self.weight)
            rows = self.build_rows(cosine, labels, norms)
            if self.training:
                with torch.no_grad():
                    self.observe(rows)
            return Scores(rows, self.transform(rows), float(self.scale), self.penalty(rows))

    def logits(self, cosine: Tensor, labels: Tensor, norms: Tensor | None = None) -> Tensor:
        """Return scaled logits (n, c); no running statistic is changed.

        Args:
            cosine: (n, c), cosines of embeddings and class centres; half precision is widened.
            labels: (n,) int64 in [0, c).
            norms: (n,), raw norms of the embeddings; only quality-aware heads read them.

        Raises:
            InputError: a shape or a label that does not fit.
        """
        with torch.autocast(cosine.device.type, enabled=False):
            return self.transform(self.build_rows(promote(cosine), labels, norms))

    def transform(self, rows: Rows) -> Tensor:
        """Return scaled logits (n, c): the margins applied to both sides of each row."""
        shifted = self.pass_through(self.modify_target(rows), rows.target)
        values = self.pass_through(self.modify_negatives(rows, shifted), rows.cosine)
        if self.filter_cosine is not None:
            values = values.masked_fill(rows.cosine > self.filter_cosine, 0.0)
        return self.scale * put_targets(values, rows.columns, shifted)

    def compare(self, embeddings: Tensor, weight: Tensor) -> Tensor:
        """Return cosines (n, c) of raw embeddings (n, d) with the centres (c * K, d)."""
        directions = nn.functional.normalize(embeddings, dim=1, eps=SMALLEST_NORM)
        centres = nn.functional.normalize(weight, dim=1, eps=SMALLEST_NORM)
        cosine = directions @ centres.to(directions.dtype).T
        return pool_sub_centers(cosine, self.sub_centers)

    def observe(self, rows: Rows) -> None:
        """Update running statistics from a training batch; here there are none."""

    def modify_target(self, rows: Rows) -> Tensor:
        """Return the target column (n, 1) after the margin; here unchanged."""
        return rows.target

    def modify_negatives(self, rows: Rows, shifted: Tensor) -> Tensor:
        """Return the matrix (n, c) after what the head does to negatives; here unchanged.

        What is returned in the target's own place does not matter.

        Args:
            rows: the batch.
            shifted: (n, 1), what `modify_target` returned.
        """
        return rows.cosine

    def penalty(self, rows: Rows) -> Tensor | None:
        """Return a scalar to add to the loss, None when the head has none."""
        return None

    def pass_through(self, changed: Tensor, original: Tensor) -> Tensor:
        """Return `changed`, with the gradient of `original` when grad is straight_through."""
        if self.grad == "exact" or changed is original:
            return changed
        # The value of `changed` bit for bit: original - original is exactly zero.
        return changed.detach() + (original - original.detach())

    def build_rows(self, cosine: Tensor, labels: Tensor, norms: Tensor | None) -> Rows:
        """Return the batch whose column j is class j.

        Raises:
            InputError: a shape or a label that does not fit.
        """
        _check_labels(cosine, labels)
        if norms is not None:
            if norms.shape != labels.shape:
                raise InputError(
                    f"norms must have shape ({len(labels)},), one for each label, "
                    f"got {tuple(norms.shape)}"
                )
            norms = norms[:, None].to(cosine.dtype)
        target = cosine.gather(1, labels[:, None])
        if self.bounded:
            # Rounding can leave [-1, 1] by a few units in the last place; angles cannot.
            target = target.clamp(-1, 1)
        return Rows(cosine, target, labels, labels, norms)

    def check_embeddings(self, embeddings: Tensor) -> None:
        """Raise InputError unless embeddings are (n, d)."""
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_dim:
            raise InputError(
                f"embeddings must have shape (n, {self.embedding_dim}), "
                f"got {tuple(embeddings.shape)}"
            )

    def extra_repr(self) -> str:
        """Name the sizes and settings in the module's text form."""
        return f"{self.num_classes} classes, d {self.embedding_dim}, scale {float(self.scale):g}"


def promote(values: Tensor) -> Tensor:
    """Return float64 as it is and anything else as float32."""
    return values if values.dtype == torch.float64 else values.float()


def pool_sub_centers(cosine: Tensor, sub_centers: int) -> Tensor:
    """Return (n, c) from cosines (n, c * K): each class's most similar centre counts."""
    if sub_centers == 1:
        return cosine
    # max, not amax: of equal centres only one may get the gradient.
    grouped = cosine.view(len(cosine), cosine.shape[1] // sub_centers, sub_centers)
    return grouped.max(dim=2).values


def put_targets(values: Tensor, columns: Tensor, shifted: Tensor) -> Tensor:
    """Return a copy of `values` (n, c) with `shifted` (n, 1) at `columns` (n,), -1 skipped."""
    here = columns >= 0
    if columns.device.type == "cpu" and bool(here.all()):
        return values.scatter(1, columns[:, None], shifted)
    place = columns.clamp_min(0)[:, None]
    kept = torch.where(here[:, None], shifted.to(values.dtype), values.gather(1, place))
    return values.scatter(1, place, kept)


def _check_labels(cosine: Tensor, labels: Tensor) -> None:
    if cosine.ndim != 2 or labels.shape != cosine.shape[:1]:
        raise InputError(
            f"cosine must have shape (n, c) and labels (n,), "
            f"got {tuple(cosine.shape)} and {tuple(labels.shape)}"
        )
    # On an accelerator the look would stall the queue; there the kernel itself asserts.
    if labels.device.type == "cpu" and labels.numel() and not torch.compiler.is_compiling():
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= cosine.shape[1]:
            raise InputError(
                f"labels must lie in [0, {cosine.shape[1]}), got {low if low < 0 else high}"
            )
