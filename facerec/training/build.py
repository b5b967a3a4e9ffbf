"""What a recipe asks for, built: nets, loader, extra losses and hooks of a run."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from facerec import dist
from facerec.checks import InputError, check_known
from facerec.data.bins import load_bin_pairs
from facerec.data.chip_dataset import ChipDataset
from facerec.data.datasets import ChipSet, read_unlabelled
from facerec.data.degrade import build_degradation
from facerec.data.loader import ChipLoader, Unlabelled, Variation
from facerec.data.samplers import Sampler, build_sampler
from facerec.data.transforms import Augmentation, build_photometric
from facerec.losses import build_head
from facerec.losses.distill import TeacherHead, average_classes
from facerec.losses.head import Head
from facerec.losses.partial_fc import PartialFC
from facerec.models import build_backbone
from facerec.models.cost import measure_cost
from facerec.training.averaging import Averaging, build_average
from facerec.training.hooks import Checkpoint, Feedback, NaNGuard, ShowProgress, Validate
from facerec.training.initial import load_artefact_weights, set_centroids
from facerec.training.log import Log
from facerec.training.loop import Hook
from facerec.training.method import Method, build_method
from facerec.training.mining import refuse_contradictions
from facerec.training.net import Net
from facerec.training.optim import build_optimizer
from facerec.training.settings import TrainSettings
from facerec.training.state import Part, TrainState, choose_device
from facerec.training.teacher import TeacherEmbeddings, load_teacher
from facerec.training.terms import CenterTerm, DistillTerm, RejectTerm, Term, TripletTerm
from facerec.training.unlabelled import Admission
from facerec.training.validation import PairValidator, Validator

TEACHER_CACHE = "teacher"
_PART = 4096
# Compiling takes a minute or two on a CPU, and saves half of the arithmetic afterwards.
_COMPILE_FROM_MACS = {"cpu": 1e13, "cuda": 1e16}


@dataclass
class Run:
    """All that `fit` takes.

    Attributes:
        state: nets and position.
        loader: batches.
        method: which rows count.
        terms: extra losses.
        hooks: in their order.
    """

    state: TrainState
    loader: ChipLoader
    method: Method
    terms: list[Term]
    hooks: list[Hook]


def build_run(
    settings: TrainSettings, chips: ChipSet, held_out: ChipSet | None, folder: Path
) -> Run:
    """Return a fresh run; initial weights are drawn from torch's generator, set by the seed.

    Raises:
        InputError: a name, parameter or combination that does not fit.
    """
    refuse_contradictions(
        mining=settings.mining.name,
        noise=settings.noise.name,
        sampler=settings.data.sampler.name,
        head=settings.head.name,
    )
    _refuse_unfit(settings)
    device = choose_device(settings.device)
    if settings.precision == "fp16" and device.type == "cpu":
        raise InputError("precision must be fp32 or bf16 on the CPU, got 'fp16'; set it to fp32")
    if settings.precision == "tf32":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(settings.seed)
    backbone = build_backbone(settings.backbone.name, **settings.backbone.args)
    size = int(backbone.input_size)  # type: ignore[arg-type]
    unlabelled = _build_unlabelled(settings, size)
    loader = build_loader(settings, chips, size, unlabelled)
    method = build_method(settings, chips)
    admission = None
    if unlabelled is not None:
        admission = Admission(
            settings.unlabelled, unlabelled, loader.dataset, folder, settings.channels_last
        )
    terms = build_terms(settings, chips, admission, folder)
    nets = [_build_net(settings, backbone, chips, device, terms)]
    for _ in range(1, method.nets):
        other = build_backbone(settings.backbone.name, **settings.backbone.args)
        nets.append(_build_net(settings, other, chips, device, terms))
    for number, net in enumerate(nets):
        _initialise(settings, net, loader.dataset, device, apart=number > 0)
        _compile(settings, net, loader, device)
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
    state = TrainState(nets, device, chips.digest(), scaler)
    if settings.average.kind != "none":
        state.average = build_average(backbone)
    # From here on each process draws its own random numbers (dropout).
    if dist.rank():
        torch.manual_seed(settings.seed + 7919 * dist.rank())
    hooks = build_hooks(settings, folder, state, loader, held_out, method)
    if admission is not None:
        hooks.insert(1, admission)
    parts: dict[str, Part | None] = {
        "method": method,
        "sampler": loader.sampler,
        "averaging": next((hook for hook in hooks if isinstance(hook, Averaging)), None),
        "admission": admission,
    }
    state.parts = {name: part for name, part in parts.items() if part is not None}
    return Run(state, loader, method, terms, hooks)


def _refuse_unfit(settings: TrainSettings) -> None:
    """Raise InputError where a loss cannot work with the head or its division."""
    strangers = settings.unlabelled.folder or settings.unlabelled.manifest
    logits = settings.loss.distill.weight and settings.loss.distill.kind == "logits"
    if settings.head.name == "softmax" and (strangers or logits):
        raise InputError(
            "unlabelled faces and loss.distill.kind=logits need cosines, but head softmax gives "
            "inner products; take normface or a margin head"
        )
    if settings.head.partial.get("shard") and (strangers or logits):
        raise InputError(
            "unlabelled faces and loss.distill.kind=logits need all classes in one process, but "
            "head.partial.shard divides them; set it to false"
        )
    if settings.head.partial.get("shard") and settings.mining.name == "importance":
        raise InputError(
            "mining.name=importance needs all classes in one process, but head.partial.shard "
            "divides them; set one of the two otherwise"
        )
    if strangers and settings.mining.name == "importance":
        raise InputError(
            "mining.name=importance draws labelled rows only, so unlabelled faces would never be "
            "seen; set one of the two otherwise"
        )
    sampled = settings.head.partial and not settings.head.partial.get("shard")
    if sampled and dist.world_size() > 1:
        raise InputError(
            "head.partial under torchrun needs each class in one process only; "
            "set head.partial.shard=true"
        )


def build_loader(
    settings: TrainSettings, chips: ChipSet, input_size: int, unlabelled: Unlabelled | None = None
) -> ChipLoader:
    """Return the loader of varied batches."""
    data = settings.data
    variation = Variation(
        Augmentation(data.flip, data.brightness, data.contrast, data.blur),
        build_photometric(**data.photometric) if data.photometric else None,
        build_degradation(data.degrade.preset, data.degrade.severity, **data.degrade.params),
    )
    dataset = ChipDataset(chips, input_size, data.cache, data.max_corrupt)
    rows = settings.batch_size
    if settings.mining.name == "importance":
        rows = round(rows * settings.mining.presample)
    sampler = build_sampler(
        data.sampler.name, chips.labels, rows, settings.seed, **data.sampler.params
    )
    return ChipLoader(
        dataset,
        rows,
        settings.seed,
        variation,
        data.workers,
        sampler,
        settings.epochs,
        unlabelled,
    )


def _build_unlabelled(settings: TrainSettings, size: int) -> Unlabelled | None:
    asked = settings.unlabelled
    if asked.folder is None and asked.manifest is None:
        return None
    strangers = read_unlabelled(folder=asked.folder, manifest=asked.manifest)
    dataset = ChipDataset(strangers, size, settings.data.cache, settings.data.max_corrupt)
    return Unlabelled(dataset, asked.rows, settings.seed)


def build_terms(
    settings: TrainSettings, chips: ChipSet, admission: Admission | None, folder: Path
) -> list[Term]:
    """Return the extra losses whose weight is not zero."""
    terms: list[Term] = []
    loss = settings.loss
    if loss.center.weight:
        terms.append(CenterTerm(loss.center, len(chips.identities)))
    if loss.triplet.weight:
        terms.append(TripletTerm(loss.triplet))
    if admission is not None and settings.unlabelled.weight:
        terms.append(RejectTerm(settings.unlabelled.weight, settings.unlabelled.form, admission))
    if loss.distill.weight:
        if not loss.distill.teacher:
            raise InputError(
                "loss.distill.teacher must name the teacher when loss.distill.weight is above 0; "
                "give an artefact folder, a store name or a .npy file"
            )
        cache = loss.distill.cache or folder / TEACHER_CACHE
        corrupt = settings.data.max_corrupt
        teacher = load_teacher(loss.distill.teacher, chips, cache, max_corrupt=corrupt)
        head = None
        if loss.distill.kind == "logits":
            centres = average_classes(_iter_taught(teacher, chips), len(chips.identities))
            head = TeacherHead(centres).to(choose_device(settings.device))
        terms.append(DistillTerm(loss.distill, teacher, head))
    return terms


def _iter_taught(
    teacher: TeacherEmbeddings, chips: ChipSet
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the teacher's embeddings of all chips with their labels, a part at a time."""
    for start in range(0, len(chips), _PART):
        rows = np.arange(start, min(start + _PART, len(chips)))
        yield torch.from_numpy(teacher.lookup(rows)), torch.from_numpy(chips.labels[rows])


def _build_net(
    settings: TrainSettings,
    backbone: nn.Module,
    chips: ChipSet,
    device: torch.device,
    terms: list[Term],
) -> Net:
    base = build_head(
        settings.head.name,
        num_classes=len(chips.identities),
        embedding_dim=int(backbone.embedding_dim),  # type: ignore[arg-type]
        **settings.head.params,
    )
    head: Head | PartialFC = base
    if settings.head.partial:
        known = [name for name in inspect.signature(PartialFC).parameters if name != "head"]
        check_known(settings.head.partial, known, "head.partial")
        head = PartialFC(base, **{"seed": settings.seed, **settings.head.partial})
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    backbone = backbone.to(device, memory_format=layout)  # type: ignore[call-overload]
    head = head.to(device)
    # The optimiser comes last: a loss may bring modules of its own that are trained too.
    net = Net(backbone, head, build_optimizer(settings.optim, backbone, head))
    trained = [module for term in terms for module in term.prepare(net)]
    net.extras.to(device)
    if trained:
        net.optimizer = build_optimizer(settings.optim, backbone, head, *trained)
    return net


def _initialise(
    settings: TrainSettings, net: Net, dataset: ChipDataset, device: torch.device, *, apart: bool
) -> None:
    if settings.init.artefact is not None:
        load_artefact_weights(net.backbone, settings.init.artefact)
    if settings.init.head == "centroids":
        set_centroids(net, dataset, device, settings.channels_last, apart=apart)


def _compile(settings: TrainSettings, net: Net, loader: ChipLoader, device: torch.device) -> None:
    """Compile the backbone where it is asked for, or where the run is long enough to pay."""
    if settings.compile == "never":
        return
    if settings.compile == "auto":
        images = settings.epochs * loader.steps_per_epoch * loader.batch_size
        work = images * measure_cost(net.backbone).macs
        if work < _COMPILE_FROM_MACS.get(device.type, float("inf")):
            return
        if device.type == "cpu" and shutil.which("g++") is None:
            return
    net.run = compile_backbone(net.backbone, device)


def compile_backbone(backbone: nn.Module, device: torch.device) -> nn.Module:
    """Return the compiled backbone, which shares its weights.

    On a CPU the gradients of convolutions are held to channels_last: torch guesses their layout
    from the weight's strides, which say nothing for a depth-wise one, and transposes every map.
    """
    options: dict[str, Any] = {}
    if device.type == "cpu":
        options["force_layout_optimization"] = True
    # On a module, torch.compile returns a module; its stub promises less.
    return cast(nn.Module, torch.compile(backbone, options=options or None))


def build_hooks(
    settings: TrainSettings,
    folder: Path,
    state: TrainState,
    loader: ChipLoader,
    held_out: ChipSet | None,
    method: Method,
) -> list[Hook]:
    """Return the hooks of a run, in the order in which they must be called."""
    hooks: list[Hook] = [NaNGuard(folder, loader.dataset.chips)]
    if settings.average.kind != "none":
        hooks.append(Averaging(settings.average, loader, settings.epochs, settings.channels_last))
    if type(loader.sampler).observe is not Sampler.observe:
        hooks.append(Feedback(loader.sampler))
    log = Log(folder, settings.log_every_steps, settings.tensorboard, method)
    hooks.append(log)
    if dist.is_main():
        total = settings.epochs * loader.steps_per_epoch * loader.batch_size
        hooks.append(ShowProgress(total))
    check = settings.validation
    size = loader.dataset.input_size
    validators: list[Validator | PairValidator] = []
    if held_out is not None:
        validators.append(
            Validator(held_out, size, check.far, check.max_images, settings.channels_last)
        )
    for path in check.bins:
        pairs = load_bin_pairs(path)
        validators.append(PairValidator(path.stem, pairs, size, check.far, settings.channels_last))
    if validators:
        hooks.append(Validate(validators, log, folder, check.every_epochs, settings.epochs))
    hooks.append(Checkpoint(folder, settings.checkpoint_every_steps, loader.steps_per_epoch))
    return hooks
