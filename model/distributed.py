"""Training in several processes that `torchrun` starts: each takes its share of every batch, and all take the same
step by the mean of their gradients. One process alone needs none of this.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


@contextmanager
def processes() -> Iterator[int]:
    """Joins the other processes where `torchrun` started several; gives this one's rank, 0 where it is alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0
        return
    dist.init_process_group("gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.destroy_process_group()


def place() -> tuple[int, int]:
    """This process's rank and the number of processes: (0, 1) where it is alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def average_gradients(dense: Sequence[Tensor], sparse: Sequence[Tensor]) -> None:
    """Puts the mean of all processes' gradients in each of them, in place."""
    if not dist.is_initialized():
        return
    size = dist.get_world_size()
    gradients = [parameter.grad for parameter in dense if parameter.grad is not None]  # one loss: the same in all
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= size
    at = 0
    for gradient in gradients:
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
        at += gradient.numel()
    for parameter in sparse:  # a share of a batch may have none of these words
        gradient = parameter.grad if parameter.grad is not None else _no_rows(parameter)
        gradient = gradient.coalesce()
        dist.all_reduce(gradient)
        parameter.grad = (gradient / size).coalesce()


def _no_rows(parameter: Tensor) -> Tensor:
    size = parameter.shape
    return torch.sparse_coo_tensor(torch.zeros(1, 0, dtype=torch.long), torch.zeros(0, size[1]), size)
