"""The training loop: one function, read from top to bottom."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from facerec.data.loader import Batch, ChipLoader
from facerec.training.optim import lr_at
from facerec.training.settings import TrainSettings
from facerec.training.state import TrainState, prepare_images

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Step:
    """What hooks see of one step.

    Attributes:
        batch: pictures, labels and positions.
        epoch: from 0.
        lr: learning rate.
        loss: float32 scalar, detached, on the training device.
        logits: scaled logits (n, c), detached.
    """

    batch: Batch
    epoch: int
    lr: float
    loss: Tensor
    logits: Tensor


class Hook:
    """What stands around the loop; every method may be left out."""

    def start(self, state: TrainState) -> None:
        """Before the first step of this process, after resuming."""

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
    state: TrainState, loader: ChipLoader, settings: TrainSettings, hooks: Sequence[Hook] = ()
) -> None:
    """Train from `state.step` to the end of the last epoch.

    Ctrl-C and SIGTERM let the current step finish, tell the hooks, then raise KeyboardInterrupt.

    Args:
        state: changed in place.
        loader: batches, a pure function of seed and epoch.
        settings: the recipe.
        hooks: called in this order.
    """
    backbone, head, optimizer, scaler = state.backbone, state.head, state.optimizer, state.scaler
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    steps_per_epoch = loader.steps_per_epoch
    total_steps = settings.epochs * steps_per_epoch
    half = _HALF.get(settings.precision)
    hook = HookChain(hooks)
    with contextlib.closing(hook), catch_signals() as stop:
        hook.start(state)

        while state.step < total_steps and not stop.is_set():
            epoch, first_batch = divmod(state.step, steps_per_epoch)
            backbone.train()
            head.train()

            for batch in loader.iter_epoch(epoch, first_batch):
                # Learning rate: a pure function of the step.
                lr = lr_at(state.step, settings.optim, steps_per_epoch, total_steps)
                for group in optimizer.param_groups:
                    group["lr"] = lr

                # Forward: the net may run in half precision, the head runs in float32.
                images = prepare_images(batch.images, state.device, settings.channels_last)
                labels = torch.from_numpy(batch.labels).to(state.device)
                with torch.autocast(state.device.type, half, enabled=half is not None):
                    embeddings = backbone(images)
                logits = head(embeddings, labels)
                loss = cross_entropy(logits, labels)
                step = Step(batch, epoch, lr, loss.detach(), logits.detach())
                hook.before_update(state, step)

                # Backward and update.
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(scaler.scale(loss))
                scaler.unscale_(optimizer)
                if settings.optim.clip_norm:
                    torch.nn.utils.clip_grad_norm_(trained, settings.optim.clip_norm)
                scaler.step(optimizer)
                scaler.update()
                state.step += 1
                hook.after_step(state, step)
                if stop.is_set():
                    break

            if state.step % steps_per_epoch == 0:
                hook.after_epoch(state, epoch)

        if stop.is_set() and state.step < total_steps:
            hook.interrupted(state)
            raise KeyboardInterrupt("a checkpoint is written, run the same command to go on")


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
