"""Losses that are added to the head's own, each a mean over rows with a weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from facerec.losses.center import CenterLoss
from facerec.losses.distill import FeatureAdapter, TeacherHead, distill_features, distill_logits
from facerec.losses.pairwise import batch_hard_triplet, soft_weighted_triplet
from facerec.losses.rejection import admit, reject_unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facerec.data.loader import Batch
    from facerec.training.net import Net, Pass
    from facerec.training.settings import CenterSettings, DistillSettings, TripletSettings
    from facerec.training.teacher import TeacherEmbeddings
    from facerec.training.unlabelled import Admission

CENTERS, ADAPTER = "centers", "adapter"


class Term:
    """One extra loss.

    Args:
        name: in logs.
        weight: by which its value is multiplied.
    """

    def __init__(self, name: str, weight: float) -> None:
        self.name = name
        self.weight = weight

    def prepare(self, net: Net) -> list[nn.Module]:
        """Return modules with parameters to train, after putting them into `net.extras`."""
        return []

    def compute(self, number: int, net: Net, passes: Sequence[Pass], batch: Batch) -> Tensor:
        """Return the mean over rows, a scalar, of net `number` (passes[number] is its own)."""
        raise NotImplementedError


class CenterTerm(Term):
    """Center loss; centres move by the paper's own rule after each batch."""

    def __init__(self, settings: CenterSettings, num_classes: int) -> None:
        super().__init__("center", settings.weight)
        self.alpha = settings.alpha
        self.num_classes = num_classes

    def prepare(self, net: Net) -> list[nn.Module]:
        """Give the net its centres; no optimiser moves them."""
        net.extras[CENTERS] = CenterLoss(self.num_classes, net.head.embedding_dim, self.alpha)
        return []

    def compute(self, number: int, net: Net, passes: Sequence[Pass], batch: Batch) -> Tensor:
        """Return half the mean squared distance to the own centre, and move the centres."""
        centers, made = net.extras[CENTERS], passes[number]
        assert isinstance(centers, CenterLoss)
        value: Tensor = centers(made.known, made.labels)
        centers.update(made.known.detach(), made.labels)
        return value


class TripletTerm(Term):
    """Triplets inside a batch; wants several chips of an identity in it (sampler pk)."""

    def __init__(self, settings: TripletSettings) -> None:
        super().__init__("triplet", settings.weight)
        self.kind = settings.kind
        self.margin = settings.margin

    def compute(self, number: int, net: Net, passes: Sequence[Pass], batch: Batch) -> Tensor:
        """Return the mean triplet loss of the labelled rows."""
        made = passes[number]
        if self.kind == "batch_hard":
            return batch_hard_triplet(made.known, made.labels, self.margin)
        return soft_weighted_triplet(made.known, made.labels)


class RejectTerm(Term):
    """Unknown identity rejection: unlabelled faces are pushed away from every known centre.

    A row whose largest cosine has come to pass the admission bound since the last refresh may be
    a known person after all: it counts nothing (METHODS section 7).
    """

    def __init__(self, weight: float, form: str, admission: Admission) -> None:
        super().__init__("uir", weight)
        self.form = form
        self.admission = admission

    def compute(self, number: int, net: Net, passes: Sequence[Pass], batch: Batch) -> Tensor:
        """Return the mean over unlabelled rows that are still admitted, 0 when there are none."""
        unknown = passes[number].unknown
        if not len(unknown):
            return unknown.sum()
        with torch.autocast(unknown.device.type, enabled=False):
            cosine = net.compare_all(unknown)
            kept = admit(cosine.detach().amax(dim=1), self.admission.bound)
            losses = reject_unknown(float(net.head.scale) * cosine, self.form)
            return (losses * kept).sum() / kept.sum().clamp_min(1)


class DistillTerm(Term):
    """The student's embeddings, or its cosines to class centres, follow those of a teacher."""

    def __init__(
        self, settings: DistillSettings, teacher: TeacherEmbeddings, head: TeacherHead | None
    ) -> None:
        super().__init__("distill", settings.weight)
        self.kind = settings.kind
        self.temperature = settings.temperature
        self.teacher = teacher
        self.head = head

    def prepare(self, net: Net) -> list[nn.Module]:
        """Give the net a linear map into the teacher's space where dimensions differ."""
        student, teacher = net.head.embedding_dim, self.teacher.embedding_dim
        if self.kind not in ("cosine", "l2") or student == teacher:
            return []
        net.extras[ADAPTER] = FeatureAdapter(student, teacher)
        return [net.extras[ADAPTER]]

    def compute(self, number: int, net: Net, passes: Sequence[Pass], batch: Batch) -> Tensor:
        """Return the mean distance to the teacher over labelled rows."""
        made = passes[number]
        taught = torch.from_numpy(self.teacher.lookup(batch.indices)).to(made.known.device)
        if self.kind == "logits":
            assert self.head is not None
            scale, classes = float(net.head.scale), made.scores.classes
            student = scale * made.scores.rows.cosine
            wanted = self.head(taught, scale, made.scores.rows.columns, classes)
            return distill_logits(student, wanted, self.temperature, scale)
        known = made.known
        if ADAPTER in net.extras:
            known = net.extras[ADAPTER](known)
        return distill_features(known, taught, self.kind)
