"""What `torchrun` starts in test_distributed: trains the text of a small market and leaves its weights.

torchrun --standalone --nproc-per-node 2 -m tests.model.two_processes FOLDER
"""

import sys
from pathlib import Path

import msgspec
import safetensors.torch
import torch

from model.data import read_rows, read_skills, split_path
from model.distributed import place, processes
from model.pipeline import Recipe, prepare, train_text
from model.sample import SAMPLE_DIR
from model.statistics import Statistics
from tests.model.conftest import SMALL

FAMILY = "rides:"
# nothing is left to chance, so that two processes take the very steps of one
PLAIN: Recipe = msgspec.structs.replace(
    SMALL,
    shortlister=msgspec.structs.replace(SMALL.shortlister, dropout=0.0),
    training=msgspec.structs.replace(SMALL.training, epochs=2, batch=32, spell=0.0),
)


def trained() -> dict[str, torch.Tensor]:
    """The weights after two epochs."""
    torch.set_num_threads(1)
    cards = [card for card in read_skills(SAMPLE_DIR) if card.skill_id.startswith(FAMILY)]
    known = {card.skill_id for card in cards}
    rows = [row for row in read_rows(split_path(SAMPLE_DIR, "train")) if row.skill_id in known]
    rows = [msgspec.structs.replace(row, linked=()) for row in rows]
    corpus = prepare(cards, rows, PLAIN)
    model, _ = train_text(corpus, PLAIN, lambda step, note: None, Statistics(), None)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


if __name__ == "__main__":
    with processes():
        rank, size = place()
        safetensors.torch.save_file(trained(), Path(sys.argv[1]) / f"{rank}-of-{size}.safetensors")
