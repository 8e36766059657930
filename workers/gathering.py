"""What a cycle learns from and is judged by: cards, a corpus, what customers did, the statistics, what serves."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.data import Row, read_rows, read_skills, split_path
from model.feedback import NOBODY, Believed, Reactions, believe, estimate
from model.pipeline import is_held_out
from model.selector import Selector
from topics.codec import decode
from topics.errors import BadEvent, UsageError, WorkerError
from topics.events import Release, SkillCard
from topics.kafka import read_all
from topics.registry import SKILLS, topic_name
from topics.settings import Settings
from workers.cycle_options import CycleOptions, Learning
from workers.experience import Experience, Experienced, read_experience, reconsidered
from workers.fold_store import KnownStatistics, read_statistics
from workers.releases import current_release

log = logging.getLogger("namefree.trainer")
JUDGE_SALT = "judge:"  # another draw than the one by which a training holds texts out
WORTH_TELLING = 0.01  # beliefs below teach nothing, and there are many


@dataclass(frozen=True)
class Gathered:
    """What a cycle learns from. `outcomes` and `judged` share no text. `reactions` is None without outcomes;
    `before` is the serving release with the skills of now, as customers meet it, None where nothing serves."""

    cards: list[SkillCard]
    corpus: list[Row]
    outcomes: list[Row]
    judged: list[Row]
    known: KnownStatistics
    serving: Release | None
    before: Selector | None
    experience: Experience
    reactions: Reactions | None

    @property
    def labelled(self) -> int:
        """How many outcomes tell what was meant."""
        return sum(not row.beliefs for row in self.outcomes)

    def newest(self, count: int) -> list[Experienced]:
        """The requests asked last, the newest last."""
        return sorted(self.experience.requests, key=lambda one: one.utterance.event_time_ms)[-count:]


def gather(settings: Settings, options: CycleOptions) -> Gathered:
    """Reads everything that a cycle learns from. Raises WorkerError where it is too little."""
    serving = current_release(settings)
    cards = read_cards(settings) or (read_skills(options.data) if options.data else [])
    if not cards:
        raise UsageError(
            "the skills topic is empty: run `namefree catalogue load DIR`, or name a corpus with --data"
        )
    known = {card.skill_id for card in cards}
    corpus, dev = _corpus(options.data)
    experience = read_experience(settings)
    before = _as_it_serves(serving, cards)
    feedback = [one.feedback for one in experience.requests]
    reactions = estimate(feedback, len(cards)) if feedback else None
    rows = _rows(experience.requests, reactions, before, options.learning) if reactions else []
    taught, judged = _divided(rows, known, corpus, dev, options)
    labelled = sum(not row.beliefs for row in taught)
    if labelled < options.min_outcomes and (serving or not corpus):
        raise WorkerError(
            f"nothing to learn from: {labelled} outcomes tell the intended skill, --min-outcomes asks for "
            f"{options.min_outcomes}"
        )
    judged += [row for row in dev if row.skill_id is None or row.skill_id in known]
    if not judged:
        raise WorkerError("nothing to judge by: no row is left that neither release was trained on")
    corpus = [row for row in corpus if row.skill_id is None or row.skill_id in known]
    statistics = read_statistics(settings, options.half_life_hours)
    return Gathered(cards, corpus, taught, judged, statistics, serving, before, experience, reactions)


def read_cards(settings: Settings) -> list[SkillCard]:
    """The newest card of every skill on the topic, in order of their first loading; malformed ones are logged."""
    cards: dict[bytes, SkillCard] = {}
    for message in read_all(settings, topic_name(settings, SKILLS)):
        key, value = message.key() or b"", message.value()
        if value is None:
            cards.pop(key, None)
            continue
        try:
            cards[key] = decode(value, SkillCard)
        except BadEvent as error:
            log.warning("a card is passed over: %s", error)
    return list(cards.values())


def _corpus(data: Path | None) -> tuple[list[Row], list[Row]]:
    if data is None:
        return [], []
    return read_rows(split_path(data, "train")), read_rows(split_path(data, "dev"))


def _as_it_serves(serving: Release | None, cards: Sequence[SkillCard]) -> Selector | None:
    if serving is None:
        return None
    selector = Selector.load(Path(serving.bundle))
    theirs = {card.skill_id: card for card in selector.bundle.catalogue.cards()}
    mine = {card.skill_id for card in cards}
    selector.take(
        [card for card in cards if theirs.get(card.skill_id) != card],
        [skill_id for skill_id in theirs if skill_id not in mine],
    )
    return selector


def _rows(
    requests: Sequence[Experienced], reactions: Reactions, before: Selector | None, learning: Learning
) -> list[Row]:
    """What customers did as rows, in the order of the requests. Where an outcome leaves it open what was meant,
    the serving release is asked again: it may know better by now than the one that decided."""
    found = [believe(one.feedback, reactions) for one in requests]
    rows = {at: _labelled(requests[at], one, learning) for at, one in enumerate(found) if one.sure}
    if learning.beliefs:
        unsure = [at for at, one in enumerate(found) if not one.sure]
        again = [requests[at] for at in unsure]
        if before is not None:
            again = reconsidered(again, before)
        rows |= {at: _unlabelled(one, reactions) for at, one in zip(unsure, again, strict=True)}
    return [rows[at] for at in sorted(rows)]


def _labelled(one: Experienced, found: Believed, learning: Learning) -> Row:
    weight = found.weight if learning.propensities else 1.0
    return Row(one.utterance.text, found.skill_id, "outcome", one.feedback.linked, weight)


def _unlabelled(one: Experienced, reactions: Reactions) -> Row:
    found = believe(one.feedback, reactions)
    best = found.skill_id or NOBODY  # told however little it is, so that the row is known for what it is
    beliefs = {skill: share for skill, share in found.beliefs.items() if share >= WORTH_TELLING or skill == best}
    return Row(one.utterance.text, found.skill_id, "outcome", one.feedback.linked, 1.0, beliefs)


def _divided(
    rows: Sequence[Row], known: set[str], corpus: Sequence[Row], dev: Sequence[Row], options: CycleOptions
) -> tuple[list[Row], list[Row]]:
    """Rows to learn from and rows to judge by. A text is on one side, by its hash, in every cycle; one of the
    corpus was trained on by the first."""
    corpus_texts, dev_texts = {row.text for row in corpus}, {row.text for row in dev}
    taught, judged = [], []
    for row in rows:
        if row.skill_id is not None and row.skill_id not in known:
            continue
        if is_held_out(JUDGE_SALT + row.text, options.judge_share) and row.text not in corpus_texts:
            judged += [] if row.beliefs else [row]
        elif row.text not in dev_texts:
            taught.append(row)
    return taught, judged
