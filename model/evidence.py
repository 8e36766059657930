"""Evidence: all that the second network is told of a shortlist's candidates.

Axes: B batch, C candidates, L linked (padded), S skills, X features, E word width, D width.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from model.card_words import CardWords
from model.catalogue import Catalogue
from model.declared import CODES, MAYBE, NO, YES
from model.encoder import Words
from model.exemplars import Exemplars
from model.habits import Habits
from model.readings import Readings
from model.reranker import COLUMNS, OWN_FEATURES, WIDTH, Hypotheses
from model.shortlist import Shortlist
from model.shortlister import Shortlister
from model.statistics import FEATURES, Statistics
from model.text import Vocabulary
from model.understanding import FULFIL_FEATURES
from model.wording import Wording, worded
from topics.events import Ability, SkillCard

LEAST = -30.0  # of log probabilities: skills that have left are far below, and nothing is told apart there
BESTS = [OWN_FEATURES.index(name) for name in ("text_log_probability", "wording", "nearest_phrase", "word_match")]
ACCEPTANCE = FEATURES.index("acceptance")


@dataclass(frozen=True)
class Learned:
    """What was learned of each skill's requests, kept under the row that the skill was shipped in."""

    wording: Wording
    exemplars: Exemplars


class Evidence:
    """Gathers features. Follows the catalogue: a skill joins, changes, leaves by `put`; nobody else's change."""

    def __init__(
        self,
        model: Shortlister,
        catalogue: Catalogue,
        vocabulary: Vocabulary,
        statistics: Statistics,
        learned: Learned,
        sources: Tensor | None = None,
        habits: Habits | None = None,
    ) -> None:
        """`sources` (S,): for each skill the row under which its requests were learned, -1 where none were; by
        default each its own. `habits`: by default those of `statistics`."""
        self._model = model
        self.learned = learned
        self.readings = Readings.of(catalogue, model.encoder, vocabulary)
        self.card_words = CardWords.of(catalogue, model.encoder.word.weight, vocabulary)
        with torch.no_grad():
            self.habits = habits or Habits.of(statistics, catalogue.ids(), model.skill_vectors()[:-1])
        self.sources = torch.arange(len(catalogue)) if sources is None else sources  # (S,)

    def put(self, row: int, card: SkillCard | None, phrases: Tensor, source: int) -> None:
        """What is known of the skill at `row` from now on, None: it left.

        `phrases` (phrases, D): its card's, as the encoder reads them. `source`: the row in which the skill was
        shipped, -1 where it was not.
        """
        self.readings.put(row, card)
        self.card_words.put(row, card)
        if card is None:
            return
        self.sources = F.pad(self.sources, (0, max(0, row + 1 - len(self.sources))), value=-1)
        self.sources[row] = source
        if source != row:
            vector = F.normalize(self._model.rows[row] + self._model.read_card(self._model.cards[row]), dim=-1)
            self.habits.put(row, vector, source)
            self.learned.exemplars.put(row, phrases, source)

    def hypotheses(self, made: Shortlist, words: Words, texts: Sequence[str], linked: Tensor) -> Hypotheses:
        """The candidates of each shortlist with all that is known of them; it was made by `linked` (B, L)."""
        rows = made.rows.clamp(min=0)  # (B, C)
        logs = (made.scores - made.total[:, None]).clamp(min=LEAST)  # (B, C)
        text_logs = (made.text - made.text_total[:, None]).clamp(min=LEAST)  # (B, C)
        tagged = self.readings.tag(texts)
        understood = self.readings.understand(tagged, made.rows, made.bag, logs.exp())
        statistics = self._model.statistics[rows]  # (B, C, F)
        own = torch.zeros(*made.rows.shape, WIDTH)  # (B, C, X)
        own[..., COLUMNS["reading"]] = torch.from_numpy(understood.features)
        own[..., COLUMNS["fulfilment"]] *= trust(statistics)[..., None]
        own[..., COLUMNS["statistics"]] = torch.cat([statistics, self.readings.reviews[rows][..., None]], dim=-1)
        sources = torch.where(made.rows < 0, -1, self.sources[rows])  # (B, C)
        similarity = torch.einsum("be,bce->bc", made.bag, self._model.cards[rows])
        nearest = self.learned.exemplars.nearest(made.request, rows)  # (B, C)
        text = (text_logs, similarity, self.learned.wording.scores(worded(texts), sources), nearest)
        own[..., COLUMNS["text"]] = torch.cat(
            [torch.stack(text, dim=-1), self.card_words.match(words, rows)], dim=-1
        )
        any_link = (linked >= 0).any(1).float()  # (B,)
        said = self.habits.say(rows, made.linked, any_link)  # (B, C)
        own[..., COLUMNS["links"]] = _links(logs, text_logs, said, made.linked, made.attention)
        lists = self._lists(made, words, linked, text_logs + said, own)
        return Hypotheses(made.rows, own, lists, made.linked, made.attention, tagged, understood)

    def _lists(self, made: Shortlist, words: Words, linked: Tensor, posterior: Tensor, own: Tensor) -> Tensor:
        """Features of whole lists, in the order of `LIST_FEATURES`, (B, Y)."""
        none = (made.none - made.total).clamp(min=LEAST)  # (B,)
        text_none = (made.none - made.text_total).clamp(min=LEAST)
        listed = (made.scores - made.total[:, None]).exp().sum(1) + none.exp()
        missed = torch.log((1 - listed).clamp(min=1e-6))
        candidates = torch.cat([posterior[..., None], own[..., BESTS]], dim=-1)  # (B, C, ·)
        best = candidates.masked_fill((made.rows < 0)[..., None], LEAST).amax(1).T
        sizes = [words.lengths.float().log(), (linked >= 0).sum(1).float() / 10, made.linked.float().sum(1)]
        return torch.stack([none, text_none, missed, *best, *sizes], dim=-1)


def _links(logs: Tensor, text_logs: Tensor, said: Tensor, linked: Tensor, attention: Tensor) -> Tensor:
    """Features in the order of `LINK_FEATURES`, (B, C, ·)."""
    return torch.stack([logs, text_logs + said, said, linked.float(), attention], dim=-1)


def trust(statistics: Tensor) -> Tensor:
    """How far what a skill says of itself counts, (...), from its statistics (..., F): fully until its customers
    refuse it more often than they accept it, and down to nothing where they always do."""
    return (1 + statistics[..., ACCEPTANCE]).clamp(max=1.0)


def without_links(found: Hypotheses) -> Hypotheses:
    """The same candidates as if nothing were linked."""
    own, lists = found.own.clone(), found.lists.clone()
    text_logs = own[..., COLUMNS["text"]][..., 0]  # (B, C)
    nothing = torch.zeros_like(text_logs)
    own[..., COLUMNS["links"]] = _links(text_logs, text_logs, nothing, nothing, nothing)
    none = lists[:, 1]  # of the text alone
    listed = text_logs.exp().sum(1) + none.exp()
    lists[:, 0], lists[:, 2] = none, torch.log((1 - listed).clamp(min=1e-6))
    lists[:, 3] = text_logs.amax(1)
    lists[:, -2:] = 0.0
    return replace(found, own=own, lists=lists, linked=torch.zeros_like(found.linked), attention=nothing)


def asked(found: Hypotheses, answers: Iterable[tuple[int, int, Ability]]) -> Hypotheses:
    """What skills answered, in place of what their cards declare: triples of request, place in its list, answer.

    A slot that the skill cannot understand or fulfil counts like a value that is refused, and makes a NO of a YES.
    """
    own, codes = found.own.clone(), found.understood.answers.copy()
    # what understanding found, before it was weighed by trust
    own[..., COLUMNS["fulfilment"]] = torch.from_numpy(found.understood.features[..., -len(FULFIL_FEATURES) :])
    columns = own[..., COLUMNS["fulfilment"]]
    at = {name: place for place, name in enumerate(FULFIL_FEATURES)}
    for b, c, ability in answers:
        refused = sum("NO" in (slot.can_understand, slot.can_fulfill) for slot in ability.slots.values())
        code = NO if refused else CODES[ability.answer]
        codes[b, c] = code
        columns[b, c, at["values_refused"]] = refused
        columns[b, c, at["fulfil_explicit"]] = 1.0
        for name, value in (("fulfil_yes", YES), ("fulfil_maybe", MAYBE), ("fulfil_no", NO)):
            columns[b, c, at[name]] = float(code == value)
    believed = own[..., COLUMNS["links"]][..., 0].exp() * torch.from_numpy(codes >= 0)  # (B, C)
    says = torch.from_numpy(codes).float().clamp(min=0)  # (B, C)
    mean = (says * believed).sum(1, keepdim=True) / believed.sum(1, keepdim=True).clamp(min=1e-9)
    columns[..., at["fulfil_lead"]] = (says - mean) * torch.from_numpy(codes >= 0)
    columns *= trust(own[..., COLUMNS["statistics"]])[..., None]
    return replace(found, own=own, understood=replace(found.understood, answers=codes))
