"""The training loop: one function, read from top to bottom."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facerec import dist
from facerec.data.loader import Batch, ChipLoader
from facerec.training.method import Method, Weighing
from facerec.training.net import Net, Pass
from facerec.training.optim import lr_at
from facerec.training.settings import TrainSettings
from facerec.training.state import TrainState, prepare_images
from facerec.training.terms import Term

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Step:
    """What hooks see of one step.

    Attributes:
        batch: pictures, labels and positions.
        epoch: from 0.
        lr: learning rate.
        loss: float32 scalar, detached, on the training device: mean over nets and processes.
        passes: what each net made of the batch.
        weighing: which rows counted.
        parts: value of each extra loss of the first net, before its weight.
    """

    batch: Batch
    epoch: int
    lr: float
    loss: Tensor
    passes: list[Pass]
    weighing: Weighing
    parts: dict[str, Tensor]


class Hook:
    """What stands around the loop; every method may be left out."""

    def start(self, state: TrainState) -> None:
        """Before the first step of this process, after resuming."""

    def start_epoch(self, state: TrainState, epoch: int) -> None:
        """Before the first batch of an epoch; not when a run goes on inside one."""

    def before_update(self, state: TrainState, step: Step) -> None:
        """The loss is known, the weights are not changed yet."""

    def after_step(self, state: TrainState, step: Step) -> None:
        """The weights are changed and `state.step` counts this step."""

    def after_epoch(self, state: TrainState, epoch: int) -> None:
        """All batches of an epoch are done."""

    def interrupted(self, state: TrainState) -> None:
        """A signal asked the run to stop; the last step is complete."""

    def close(self) -> None:
        """The run ends, also by an error."""


class HookChain(Hook):
    """Several hooks called as one, in order; all of them are closed, whatever happens.

    Args:
        hooks: in order.
    """

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self.hooks = hooks

    def start(self, state: TrainState) -> None:
        """Start each."""
        for hook in self.hooks:
            hook.start(state)

    def start_epoch(self, state: TrainState, epoch: int) -> None:
        """Tell each."""
        for hook in self.hooks:
            hook.start_epoch(state, epoch)

    def before_update(self, state: TrainState, step: Step) -> None:
        """Tell each."""
        for hook in self.hooks:
            hook.before_update(state, step)

    def after_step(self, state: TrainState, step: Step) -> None:
        """Tell each."""
        for hook in self.hooks:
            hook.after_step(state, step)

    def after_epoch(self, state: TrainState, epoch: int) -> None:
        """Tell each."""
        for hook in self.hooks:
            hook.after_epoch(state, epoch)

    def interrupted(self, state: TrainState) -> None:
        """Tell each."""
        for hook in self.hooks:
            hook.interrupted(state)

    def close(self) -> None:
        """Close each, the last first."""
        with contextlib.ExitStack() as stack:
            for hook in self.hooks:
                stack.callback(hook.close)


def fit(
    state: TrainState,
    loader: ChipLoader,
    settings: TrainSettings,
    hooks: Sequence[Hook] = (),
    method: Method | None = None,
    terms: Sequence[Term] = (),
) -> None:
    """Train from `state.step` to the end of the last epoch.

    Ctrl-C and SIGTERM let the current step finish, tell the hooks, then raise KeyboardInterrupt.

    Args:
        state: changed in place.
        loader: batches, a pure function of seed, epoch and the sampler's state at its start.
        settings: the recipe.
        hooks: called in this order.
        method: which rows count, and for which net; None counts all.
        terms: losses beside the head's own.
    """
    method = method or Method()
    steps_per_epoch = loader.steps_per_epoch
    total_steps = settings.epochs * steps_per_epoch
    half = _HALF.get(settings.precision)
    hook = HookChain(hooks)
    with contextlib.closing(hook), catch_signals() as stop:
        hook.start(state)
        stopped = False

        while state.step < total_steps and not stopped:
            epoch, first_batch = divmod(state.step, steps_per_epoch)
            if first_batch == 0:
                loader.start_epoch(epoch)
                hook.start_epoch(state, epoch)
            for net in state.nets:
                net.train()

            for batch in loader.iter_epoch(epoch, first_batch):
                # Learning rate: a pure function of the step.
                lr = lr_at(state.step, settings.optim, steps_per_epoch, total_steps)
                for net in state.nets:
                    net.set_lr(lr)

                # Forward: every net sees the same pictures, labelled rows first.
                images = prepare_images(batch.images, state.device, settings.channels_last)
                labels = torch.from_numpy(batch.labels).to(state.device)
                rows = method.draw(state, images, labels, half)
                if rows is not None:
                    images, labels = images[rows], labels[rows]
                    batch = batch.take(rows.cpu().numpy())
                passes = [net.forward(images, labels, half) for net in state.nets]

                # Loss: rows count as the method says, extra losses are added.
                weighing = method.weigh(passes, batch, state.step / steps_per_epoch)
                total, parts = add_losses(state.nets, passes, weighing, batch, terms)
                loss = dist.mean_over_ranks(total.detach() / len(passes))
                step = Step(batch, epoch, lr, loss, passes, weighing, parts)
                hook.before_update(state, step)

                # Backward; an update when enough rows have been seen.
                torch.autograd.backward(state.scaler.scale(total))
                last = state.step + 1 == total_steps
                if last or method.is_due(state, settings, loader.batch_size):
                    clip = settings.optim.clip_norm
                    moved = [net.update(state.scaler, len(labels), clip) for net in state.nets]
                    if any(moved):
                        state.scaler.update()
                state.step += 1
                method.after_step(step)
                hook.after_step(state, step)
                stopped = _agree(stop.is_set()) and may_save(state)
                if stopped:
                    break

            if state.step % steps_per_epoch == 0:
                hook.after_epoch(state, epoch)

        if stopped and state.step < total_steps:
            hook.interrupted(state)
            raise KeyboardInterrupt("a checkpoint is written, run the same command to go on")


def add_losses(
    nets: Sequence[Net],
    passes: Sequence[Pass],
    weighing: Weighing,
    batch: Batch,
    terms: Sequence[Term],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scalar to differentiate, and the first net's extra losses by name.

    Each net's share is a sum over rows divided by the rows of a batch; `Net.update` turns what
    has been added up into a mean over the rows that counted.
    """
    parts: dict[str, Tensor] = {}
    totals = []
    for number, (net, made) in enumerate(zip(nets, passes, strict=True)):
        rows = len(made.labels)
        count = weighing.counts[number]
        net.pending += count
        total = weighing.add_rows(number, made.scores.losses()) / rows
        if made.scores.penalty is not None:
            total = total + made.scores.penalty * (count / rows)
        for term in (*terms, *weighing.terms):
            value = term.compute(number, net, passes, batch)
            total = total + value * (term.weight * count / rows)
            if number == 0:
                parts[term.name] = value.detach()
        totals.append(total)
    return torch.stack(totals).sum(), parts


def may_save(state: TrainState) -> bool:
    """Return whether a checkpoint would be whole now.

    Gradients that wait for an update are saved by one process, but those of several are not: they
    save after an update, which comes to all of them at once.
    """
    return dist.world_size() == 1 or not any(net.pending for net in state.nets)


def _agree(stop: bool) -> bool:
    """Return whether any process was asked to stop, the same answer in all of them."""
    if dist.world_size() == 1:
        return stop
    return bool(dist.sum_over_ranks(torch.tensor(float(stop))) > 0)


@contextlib.contextmanager
def catch_signals() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets; a second one interrupts at once.

    Outside the main thread no handler can be installed, and the event stays unset.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
