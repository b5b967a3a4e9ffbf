import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from facerec.checks import InputError
from facerec.losses.distill import (
    FEATURE_KINDS,
    FeatureAdapter,
    TeacherHead,
    average_classes,
    distill_features,
    distill_logits,
)
from facerec.losses.margins import ArcFace


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def logits(n=6, c=5, seed=0, scale=48.0):
    return scale * draw(n, c, seed=seed).tanh()


def test_logit_loss_is_the_scaled_divergence_by_loops():
    student, teacher = logits(seed=1), logits(seed=2)
    total = 0.0
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        p_s, p_t = ([math.exp(v / 24) for v in z] for z in (z_s, z_t))
        p_s, p_t = ([v / sum(p) for v in p] for p in (p_s, p_t))
        total += sum(t * math.log(t / s) for s, t in zip(p_s, p_t, strict=True))
    expected = (24 / 48) ** 2 * total / 6
    assert distill_logits(student, teacher, 24.0, 48.0).item() == pytest.approx(expected)
    assert distill_logits(student, teacher, 24.0, 1.0).item() == pytest.approx(48**2 * expected)


def test_the_mix_at_its_ends_is_cross_entropy_or_divergence():
    """(1 - a) CE + a KL, as a trainer adds it."""
    student, teacher, labels = logits(seed=1), logits(seed=2), torch.arange(6) % 5

    def mix(share):
        return (1 - share) * cross_entropy(student, labels) + share * distill_logits(
            student, teacher, 24.0, 48.0
        )

    assert torch.equal(mix(0.0), cross_entropy(student, labels))
    assert torch.equal(mix(1.0), distill_logits(student, teacher, 24.0, 48.0))
    # T -> 0: the teacher's soft target becomes its decision, without the factor (T/s)².
    cold = distill_logits(student, teacher, 0.02, 0.02).item()
    hard = cross_entropy(student / 0.02, teacher.argmax(dim=1)).item()
    assert cold == pytest.approx(hard, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_student_like_its_teacher_has_nothing_to_learn(dtype):
    same = logits().to(dtype).requires_grad_()
    value = distill_logits(same, same, 24.0, 48.0)
    value.backward()
    assert value.item() == 0 and same.grad.abs().max() < 1e-7
    for kind in FEATURE_KINDS:
        rows = draw(6, 4, dtype=dtype).requires_grad_()
        value = distill_features(rows, rows, kind)
        value.backward()
        assert value.item() == 0 and rows.grad.abs().max() < 1e-6


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 24.0, 200.0]))
def test_divergence_is_positive_and_blind_to_a_common_shift(seed, temperature):
    student, teacher = logits(seed=seed), logits(seed=seed + 1)
    value = distill_logits(student, teacher, temperature, 48.0)
    assert value > 0
    shifted = distill_logits(student + 7, teacher - 3, temperature, 48.0)
    torch.testing.assert_close(shifted, value)


def test_at_high_temperature_it_is_half_the_mean_square_of_cosine_differences():
    student, teacher = logits(seed=1), logits(seed=2)
    student = (student - student.mean(1, keepdim=True)).requires_grad_()
    teacher = teacher - teacher.mean(1, keepdim=True)
    found = distill_logits(student, teacher, 1e5, 48.0)
    limit = ((student - teacher) / 48).square().mean() / 2
    assert found.item() == pytest.approx(limit.item(), rel=1e-3)
    gradient = torch.autograd.grad(found, student)[0]
    torch.testing.assert_close(
        gradient, torch.autograd.grad(limit, student)[0], rtol=1e-2, atol=1e-8
    )


def test_no_gradient_reaches_the_teacher():
    student, teacher = (logits(seed=s).requires_grad_() for s in (1, 2))
    distill_logits(student, teacher, 24.0, 48.0).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    for kind in FEATURE_KINDS:
        own, fixed = (draw(5, 4, seed=s).requires_grad_() for s in (1, 2))
        distill_features(own, fixed, kind).backward()
        assert fixed.grad is None and own.grad.abs().sum() > 0


def test_gradcheck():
    teacher = logits(seed=2)
    assert torch.autograd.gradcheck(
        lambda z: distill_logits(z, teacher, 24.0, 48.0), logits(seed=1).requires_grad_()
    )
    for kind in FEATURE_KINDS:
        fixed, rows = draw(5, 4, seed=2), draw(5, 4, seed=1).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, f=fixed, k=kind: distill_features(x, f, k), rows)


def test_feature_kinds_by_their_definitions():
    student, teacher = draw(5, 4, seed=1), draw(5, 4, seed=2)
    own, fixed = normalize(student, dim=1), normalize(teacher, dim=1)
    cosine = (1 - (own * fixed).sum(1)).mean().item()
    assert distill_features(student, teacher).item() == pytest.approx(cosine)
    assert distill_features(student, teacher, "l2").item() == pytest.approx(2 * cosine)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    other = normalize(draw(5, 9, seed=3), dim=1)
    relational = sum(float(own[i] @ own[j] - other[i] @ other[j]) ** 2 for i, j in pairs) / 20
    found = distill_features(student, 3 * other, "relational").item()
    assert found == pytest.approx(relational)


def test_relational_sees_likeness_only():
    teacher = draw(6, 4)
    turn, _ = torch.linalg.qr(draw(4, 4, seed=5))
    assert distill_features(2 * teacher @ turn, teacher, "relational").item() < 1e-25
    assert distill_features(teacher @ turn, teacher, "cosine").item() > 0.1
    for n in (0, 1):  # no pair
        rows = torch.zeros(n, 4, requires_grad=True)
        value = distill_features(rows, torch.zeros(n, 3), "relational")
        value.backward()
        assert value.item() == 0 and rows.grad.abs().sum() == 0


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_a_row_on_which_the_teacher_is_silent_counts_nothing(kind):
    student, teacher = draw(6, 4, seed=1), draw(6, 4, seed=2)
    silent = teacher.clone()
    silent[[1, 4]] = 0
    heard = torch.tensor([0, 2, 3, 5])
    expected = distill_features(student[heard], teacher[heard], kind)
    rows = student.clone().requires_grad_()
    found = distill_features(rows, silent, kind)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert rows.grad[[1, 4]].abs().max() == 0
    nothing = distill_features(rows, torch.zeros_like(teacher), kind)
    nothing.backward()
    assert nothing.item() == 0


def test_silent_rows_of_logits_count_nothing():
    student, teacher = logits(seed=1).requires_grad_(), logits(seed=2)
    teacher[2] = 0
    heard = torch.tensor([0, 1, 3, 4, 5])
    found = distill_logits(student, teacher, 24.0, 48.0)
    torch.testing.assert_close(found, distill_logits(student[heard], teacher[heard], 24.0, 48.0))
    found.backward()
    assert student.grad[2].abs().max() == 0
    assert distill_logits(student[:0], teacher[:0], 24.0, 48.0).item() == 0


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(half):
    rows = torch.full((4, 512), 30.0, dtype=half)  # the square norm passes what float16 holds
    rows[1] *= -1
    rows = rows.requires_grad_()
    fixed = draw(4, 512, dtype=torch.float32)
    head = TeacherHead(draw(7, 512, seed=4, dtype=torch.float32))
    adapter = FeatureAdapter(512, 512)
    with torch.autocast("cpu", torch.bfloat16):
        values = [distill_features(rows, fixed, kind) for kind in FEATURE_KINDS]
        values.append(distill_features(adapter(rows), fixed))
        scores = head(fixed.to(half), 64.0)
        values.append(distill_logits(64 * draw(4, 7).to(half), scores, 24.0, 64.0))
    assert all(v.dtype == torch.float32 and torch.isfinite(v) for v in values)
    assert scores.dtype == torch.float32
    sum(values).backward()
    assert torch.isfinite(rows.grad).all()


def test_adapter_joins_unequal_dimensions_and_learns():
    torch.manual_seed(0)
    student, teacher = draw(8, 4, seed=1), draw(8, 6, seed=2)
    adapter = FeatureAdapter(4, 6)
    assert torch.equal(adapter.weight, _again(lambda: FeatureAdapter(4, 6)).weight)
    mapped = adapter(student)
    assert mapped.shape == (8, 6) and mapped.dtype == torch.float64
    # It starts as an isometry: cosines of the student survive.
    torch.testing.assert_close(mapped @ mapped.T, student @ student.T, rtol=1e-4, atol=1e-5)
    before = distill_features(mapped, teacher)
    before.backward()
    with torch.no_grad():
        adapter.weight -= 0.1 * adapter.weight.grad
    assert distill_features(adapter(student), teacher) < before
    assert "4 to 6" in repr(adapter)


def _again(build):
    torch.manual_seed(0)
    return build()


def test_centres_are_mean_directions_whatever_the_parts():
    embeddings, labels = draw(20, 4, dtype=torch.float32), torch.arange(20) % 3
    whole = average_classes([(embeddings, labels)], 4)
    for j in range(3):
        mean = normalize(embeddings[labels == j], dim=1).mean(0)
        torch.testing.assert_close(whole[j], normalize(mean, dim=0))
    assert whole[3].abs().max() == 0
    parts = [(embeddings[i : i + 7], labels[i : i + 7]) for i in range(0, 20, 7)]
    torch.testing.assert_close(average_classes(iter(parts), 4), whole)
    with pytest.raises(InputError, match="at least one batch"):
        average_classes([], 3)
    with pytest.raises(InputError, match="centre of class 3 has no direction"):
        TeacherHead(whole)


def test_teacher_head_gives_scaled_cosines_of_the_classes_asked_for():
    centres = draw(5, 4, seed=1)
    head = TeacherHead(5 * centres)
    rows = draw(3, 4, seed=2).requires_grad_()
    expected = 32 * normalize(rows, dim=1) @ normalize(centres, dim=1).T
    found = head(rows, 32.0)
    torch.testing.assert_close(found, expected.detach())
    assert not found.requires_grad and not list(head.parameters())
    sampled = torch.tensor([4, 1])
    torch.testing.assert_close(head(rows, 32.0, classes=sampled), found[:, sampled])
    assert head(torch.zeros(2, 4), 32.0).abs().max() == 0


def test_teacher_margin_deflates_the_own_class_as_arcface_does():
    centres, labels = draw(5, 4, seed=1), torch.tensor([0, 3, 4])
    rows = draw(3, 4, seed=2)
    head = TeacherHead(centres, margin=0.5)
    arcface = ArcFace(5, 4, scale=32.0, margin=0.5).double()
    arcface.weight.data = centres
    torch.testing.assert_close(head(rows, 32.0, labels), arcface(rows, labels).detach())
    # Among sampled classes a row whose own is missing keeps plain cosines.
    columns, sampled = torch.tensor([1, -1, 0]), torch.tensor([4, 0])
    plain = TeacherHead(centres)(rows, 32.0, classes=sampled)
    found = head(rows, 32.0, columns, sampled)
    full = head(rows, 32.0, labels)
    torch.testing.assert_close(found[0], torch.stack([plain[0, 0], full[0, 0]]))
    torch.testing.assert_close(found[1], plain[1])
    torch.testing.assert_close(found[2], torch.stack([full[2, 4], plain[2, 1]]))
    assert head(torch.zeros(1, 4), 32.0, labels[:1]).abs().max() == 0
    with pytest.raises(InputError, match="give columns"):
        head(rows, 32.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distill_logits(logits(), logits(c=4), 24.0, 48.0), r"\(6, 5\) and \(6, 4\)"),
        (lambda: distill_logits(logits(), logits(), 0.0, 48.0), "temperature must lie in"),
        (lambda: distill_logits(logits(), logits(), 24.0, 0.0), "scale must lie in"),
        (lambda: distill_features(draw(3, 4), draw(3, 4), "cosin"), "did you mean 'cosine'"),
        (lambda: distill_features(draw(3, 4), draw(2, 4)), r"\(3, 4\) and \(2, 4\)"),
        (lambda: distill_features(draw(3, 4), draw(3, 6), "l2"), "FeatureAdapter or take kind"),
        (lambda: FeatureAdapter(0, 4), "student_dim must lie in"),
        (lambda: TeacherHead(draw(4)), r"centres must have shape \(c, d\)"),
        (lambda: TeacherHead(draw(4, 3), margin=2.0), "margin must lie in"),
        (lambda: TeacherHead(draw(4, 3))(draw(2, 5)), r"shape \(n, 3\), got \(2, 5\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
