"""Distillation: a student follows a teacher's features or logits (METHODS section 12).

The teacher is a constant: no gradient reaches it. A row of zeros from the teacher says nothing
(a chip that it could not read) and counts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax, normalize

from facerec.checks import InputError, check_one_of, check_range
from facerec.losses.angles import add_angle
from facerec.losses.head import SMALLEST_NORM, promote, put_targets

FEATURE_KINDS = ("cosine", "l2", "relational")


def distill_logits(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, scale: float
) -> Tensor:
    """Return (T/s)² mean KL(softmax(z_t / T) ‖ softmax(z_s / T)) over rows.

    Logits are s * cos, so z / T = (s / T) cos: the softmax sees cosines at the inverse temperature
    s / T. The gradient with respect to a cosine shrinks as (s / T)² when T grows, and the factor
    (T/s)² undoes that: at large T the loss is half the variance over classes of the difference
    of cosines, whatever T and s. METHODS 12 has T = 24 with s = 48. The
    mix with the cross entropy is the caller's.

    Args:
        student_logits: (n, c) s * cos; half precision is widened, float64 stays.
        teacher_logits: (n, c) of the same classes at the same scale, such as `TeacherHead` gives.
        temperature: T.
        scale: s, by which the cosines of both were multiplied; 1 gives the T² of other
            classifiers.

    Returns:
        A scalar; 0 with a gradient of 0 where the teacher says nothing.

    Raises:
        InputError: shapes that differ, or an argument out of range.
    """
    check_range(temperature, "temperature", 1e-3, 1e6)
    check_range(scale, "scale", 1e-3, 1e4)
    if student_logits.ndim != 2 or student_logits.shape != teacher_logits.shape:
        raise InputError(
            "logits of student and teacher must have one shape (n, c), got "
            f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}; "
            "ask the teacher's head for the same classes"
        )
    with torch.autocast(student_logits.device.type, enabled=False):
        fixed = promote(teacher_logits.detach())
        teacher = log_softmax(fixed / temperature, dim=1)
        student = log_softmax(promote(student_logits) / temperature, dim=1)
        rows = (teacher.exp() * (teacher - student)).sum(dim=1)
        return (temperature / scale) ** 2 * _average(rows, (fixed != 0).any(dim=1))


def distill_features(student: Tensor, teacher: Tensor, kind: str = "cosine") -> Tensor:
    """Return how far a student's embeddings are from a teacher's, of the same n chips.

    * "cosine": mean 1 - cos(f_s, f_t).
    * "l2": mean ‖f̂_s - f̂_t‖², twice that.
    * "relational": mean over pairs i ≠ j of (cos(s_i, s_j) - cos(t_i, t_j))²: the student sees
      the same likeness between chips, in a space of its own and of any dimension.

    Args:
        student: (n, d), raw; half precision is widened, float64 stays.
        teacher: (n, d2), raw or unit; d2 must be d but for "relational".
        kind: "cosine", "l2" or "relational".

    Returns:
        A scalar; 0 with a gradient of 0 where the teacher says nothing.

    Raises:
        InputError: an unknown kind, or shapes that do not fit.
    """
    check_one_of(kind, "kind", FEATURE_KINDS)
    _check_features(student, teacher, kind)
    with torch.autocast(student.device.type, enabled=False):
        own = normalize(promote(student), dim=1, eps=SMALLEST_NORM)
        fixed = normalize(promote(teacher.detach()), dim=1, eps=SMALLEST_NORM)
        told = (fixed != 0).any(dim=1)
        if kind == "relational":
            pairs = told[:, None] & told & ~torch.eye(len(told), dtype=torch.bool).to(told.device)
            return _average((own @ own.T - (fixed @ fixed.T).to(own.dtype)).square(), pairs)
        # ½‖a - b‖² = 1 - cos for unit vectors, and exact where they nearly agree.
        half = (own - fixed).square().sum(dim=1) / 2
        return _average(half, told) * (2 if kind == "l2" else 1)


class FeatureAdapter(nn.Module):
    """A linear map of student embeddings into the space of a teacher of another dimension.

    It is trained with the student and thrown away after. It starts as an isometry where the
    teacher's dimension is the larger one, drawn from torch's generator, so that the student's
    cosines survive; it has no bias, so that the length of an embedding does not matter.

    Args:
        student_dim: d.
        teacher_dim: d2.

    Raises:
        InputError: a dimension below 1.
    """

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        check_range(student_dim, "student_dim", 1, 10**5)
        check_range(teacher_dim, "teacher_dim", 1, 10**5)
        self.weight = nn.Parameter(torch.empty(teacher_dim, student_dim))
        nn.init.orthogonal_(self.weight)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return (n, d2), float32 or float64, from raw embeddings (n, d)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            exact = promote(embeddings)
            return linear(exact, self.weight.to(exact.dtype))

    def extra_repr(self) -> str:
        """Name the dimensions in the module's text form."""
        teacher, student = self.weight.shape
        return f"d {student} to {teacher}"


class TeacherHead(nn.Module):
    """The teacher's logits from its embeddings: s * cosine with its class centres.

    It stands for the teacher's own classifier, of which an artefact has none. Nothing in it is
    trained.

    Args:
        centres: (c, d2), one a class in label order; see `average_classes`.
        margin: teacher_margin, radians in [0, π/2], added to the angle with the row's own class.
            It deflates the own class in the soft targets, as where a teacher's margin head is
            asked with labels; 0, none, is the default.

    Raises:
        InputError: centres of another shape or without direction, or a margin out of range.
    """

    centres: Tensor

    def __init__(self, centres: Tensor, margin: float = 0.0) -> None:
        super().__init__()
        if centres.ndim != 2:
            raise InputError(f"centres must have shape (c, d), got {tuple(centres.shape)}")
        norms = torch.linalg.vector_norm(promote(centres.detach()), dim=1, keepdim=True)
        usable = norms.isfinite() & (norms > SMALLEST_NORM)
        if not bool(usable.all()):
            row = int((~usable).nonzero()[0, 0])
            raise InputError(
                f"the teacher's centre of class {row} has no direction; it needs at least one "
                "chip of each class that the teacher can embed"
            )
        self.margin = check_range(margin, "margin", 0, torch.pi / 2)
        self.register_buffer("centres", promote(centres.detach()) / norms)

    @torch.no_grad()
    def forward(
        self,
        embeddings: Tensor,
        scale: float = 64.0,
        columns: Tensor | None = None,
        classes: Tensor | None = None,
    ) -> Tensor:
        """Return logits (n, k), without gradient.

        Args:
            embeddings: (n, d2), raw or unit, of the teacher. A row of zeros gets zeros.
            scale: s, that of the student's head.
            columns: (n,) int64, the column of each row's own class, -1 where it is not among them
                (`Rows.columns`); needed with a margin only.
            classes: (k,) int64, the class of each column (`Scores.classes`); None takes all c.

        Raises:
            InputError: another shape, or a margin without columns.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.centres.shape[1]:
            raise InputError(
                f"teacher embeddings must have shape (n, {self.centres.shape[1]}), "
                f"got {tuple(embeddings.shape)}"
            )
        if self.margin and columns is None:
            raise InputError("a teacher margin needs each row's own class; give columns")
        with torch.autocast(embeddings.device.type, enabled=False):
            unit = normalize(promote(embeddings), dim=1, eps=SMALLEST_NORM)
            centres = self.centres if classes is None else self.centres[classes]
            cosine = unit @ centres.to(unit.dtype).T
            if self.margin and columns is not None:
                target = cosine.gather(1, columns.clamp_min(0)[:, None]).clamp(-1, 1)
                told = (unit != 0).any(dim=1, keepdim=True)
                cosine = put_targets(cosine, columns, add_angle(target, self.margin) * told)
            return scale * cosine

    def extra_repr(self) -> str:
        """Name the sizes and the margin in the module's text form."""
        classes, dim = self.centres.shape
        return f"{classes} classes, d {dim}, margin {self.margin:g}"


def average_classes(batches: Iterable[tuple[Tensor, Tensor]], num_classes: int) -> Tensor:
    """Return class centres: the direction of the mean of each class's unit embeddings.

    Args:
        batches: (embeddings (n, d), labels (n,) int64 in [0, num_classes)), any number.
        num_classes: c.

    Returns:
        float32 (c, d), unit norm; 0 for a class without embedding or whose mean is 0.

    Raises:
        InputError: no batch at all.
    """
    sums: Tensor | None = None
    for embeddings, labels in batches:
        unit = normalize(embeddings.detach().float(), dim=1, eps=SMALLEST_NORM)
        if sums is None:
            sums = unit.new_zeros(num_classes, unit.shape[1])
        sums.index_add_(0, labels, unit)
    if sums is None:
        raise InputError("class centres need at least one batch of embeddings, got none")
    return normalize(sums, dim=1, eps=SMALLEST_NORM)


def _average(losses: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `losses` over `mask`, 0 where it is empty."""
    return torch.where(mask, losses, 0).sum() / mask.sum().clamp_min(1)


def _check_features(student: Tensor, teacher: Tensor, kind: str) -> None:
    if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher):
        raise InputError(
            "embeddings of student and teacher must have shapes (n, d) and (n, d2), got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if kind != "relational" and student.shape != teacher.shape:
        raise InputError(
            f"distillation of kind {kind!r} needs one dimension, got {student.shape[1]} of the "
            f"student and {teacher.shape[1]} of the teacher; pass the student's through a "
            "FeatureAdapter or take kind='relational'"
        )
