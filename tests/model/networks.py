"""Small networks with weights drawn at random, for what must hold whatever the weights are."""

import torch

from model.attention import Kind, Use
from model.encoder import Encoder, Reading, WordBatches, Words
from model.shortlister import Shortlister, ShortlisterSettings
from model.text import TextSettings, Vocabulary

TEXTS = ["get me a car", "weather", "a car for the zeppelin airport tomorrow morning please"]
SETTINGS = TextSettings(ngram_rows=64)
ALL_USES: list[tuple[Kind, Use]] = [
    ("none", "log-odds"),
    ("bonus", "log-odds"),
    ("softmax", "log-odds"),
    ("softmax", "gate"),
    ("sigmoid", "log-odds"),
    ("sigmoid", "gate"),
]


def word_batches() -> WordBatches:
    """Batches of a vocabulary that knows the words of the first two texts."""
    return WordBatches(Vocabulary.of(TEXTS[:2], SETTINGS))


def read(*texts: str) -> Words:
    batches = word_batches()
    return batches.batch(batches.vocabulary.encode(texts))


def encoder(reading: Reading, dropout: float = 0.3) -> Encoder:
    """An encoder whose reading of the order counts as much as its bag does."""
    torch.manual_seed(0)
    network = Encoder(reading, len(word_batches().vocabulary), SETTINGS.ngram_rows, 8, 6, 10, dropout)
    if reading != "bag":
        torch.nn.init.normal_(network.state.weight)
    return network.eval()


def shortlister(
    kind: Kind = "sigmoid",
    use: Use = "log-odds",
    skills: int = 5,
    summary: bool = False,
    reads_text: bool = True,
) -> Shortlister:
    """A shortlister in which cards, rows, statistics, requests and links all speak."""
    torch.manual_seed(1)
    settings = ShortlisterSettings(
        attention=kind,
        use=use,
        summary=summary,
        reads_text=reads_text,
        word_width=8,
        state_width=6,
        width=10,
    )
    model = Shortlister(settings, len(word_batches().vocabulary), SETTINGS.ngram_rows, skills)
    with torch.no_grad():
        model.cards.normal_()
        model.statistics.normal_()
        for parameter in (model.rows, model.prior.weight, *model.links.parameters()):
            parameter.normal_()
        if summary:
            for parameter in model.mix.parameters():
                parameter.normal_()
    return model.eval()
