"""Each request under each skill of its shortlist: the intent that it would have there, the slots that it would
fill, and what CanFulfillIntentRequest would answer by the skill's own declaration.

Which features carry the decision among rivals: a logistic over the list with these beside the shortlist's own
log probabilities (with and without links) and the link, fitted on the 1,141 held-out requests of the schema-guided
services, lowers the shortlist's top-1 error on 1,465 others, none of a family linked, from 26.3 % by

    4.7 % without these, 11 % with `declares_intents`, 12 % with `lacks` too, 12 % with FULFIL_FEATURES alone,
    13 % with FULFIL_FEATURES and `lacks`, 17 % with these and `model.wording`.

With all of a family linked (22.4 %) these take off 2 %, and 9 % with `model.wording`: most requests that are
decided wrongly there ("find me a bus") name nothing in which the rivals differ.

Axes: B batch, C candidates, N hypotheses (pairs of a request and a candidate that declares intents), T terms,
P numbers, M intents of a skill (padded).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.declared import MAYBE, NO, UNKNOWN, YES
from model.declared_tables import Sets, Skills
from model.spans import PERSON
from model.tagger import NO_NUMBER, Tagged

INTENT_FEATURES = (
    "declares_intents",
    "intent_similarity",  # cosine of the request's words and the intent's
    "intent_words",  # share of the request's weight in words of the intent's name and description
    "intent_words_lead",  # the same, less the mean of the list
)
SLOT_FEATURES = (
    "covered",  # share of the request's weight in words that the skill declares anywhere
    "covered_lead",
    "values",  # terms that are values which the intent's slots list
    "values_lead",
    "aspects",  # terms that speak of a slot by its name or by a value, or nearly do: `pets`, `dogs`
    "aspects_lead",
    "lacks",  # terms that speak of such a slot of the list's other candidates, and say nothing to this skill
    "spans_filled",  # typed spans that the intent has slots for
    "spans_unfilled",
    "spans_lead",
    "persons_filled",
    "numbers_named",  # numbers with what is counted: `two rooms`
    "required_filled",  # share of the required slots
    "required_missing",
)
FULFIL_FEATURES = (
    "fulfil_yes",
    "fulfil_maybe",
    "fulfil_no",
    "fulfil_explicit",  # the card says so itself
    "fulfil_lead",  # YES 2, MAYBE 1, NO 0, less the mean of the list
    "values_refused",  # values that are not among those a slot lists, slots that the card says it cannot fill
)
READING_FEATURES = INTENT_FEATURES + SLOT_FEATURES + FULFIL_FEATURES
LED = ("intent_words", "covered", "values", "aspects")  # that have a `_lead` of their own
PLACE = {name: at for at, name in enumerate(READING_FEATURES)}

SPAN_WORTH = 0.1  # of a span that an intent has a slot for, beside its cosine, when the intent is chosen
WORD_WORTH = 1.0  # of all words of a request
HIT_WORTH = 0.05  # of a word of the intent, however common: `find` is in every request, and yet tells
UNDERSTOOD = 0.25  # cosine from which an intent is understood without one word of its own
BELIEVED = 0.1  # of the list's belief: so much must rivals have that a word counts as asked for


@dataclass(frozen=True)
class Understood:
    """What is found for a batch."""

    rows: NDArray[np.int64]  # (B, C) of the skills, -1: none
    features: NDArray[np.float32]  # (B, C, K)
    answers: NDArray[np.int8]  # (B, C) of the intent
    intents: NDArray[np.int64]  # (B, C) places of the intents, -1 where the skill declares none


@dataclass(frozen=True)
class _Pairs:
    """Hypotheses side by side."""

    b: NDArray[np.int64]  # (N,) the request
    c: NDArray[np.int64]  # (N,) the candidate's place in the list
    row: NDArray[np.int64]  # (N,)
    names: Sets  # (T, N) slots whose words the term is of
    values: Sets  # (T, N) slots of which the term is a value
    near: Sets  # (T, N) slots that the term nearly speaks of
    intents: Sets  # (T, N) intents whose words the term is of
    weights: NDArray[np.float32]  # (T, N) shares of the request's weight


def understand(
    skills: Skills,
    tagged: Tagged,
    rows: NDArray[np.int64],
    similarities: NDArray[np.float32],
    beliefs: NDArray[np.float32] | None = None,
) -> Understood:
    """`rows` (B, C), -1: no skill; `similarities` (B, C, M) of the request to each of the skill's intents;
    `beliefs` (B, C) how probable each candidate is before: the weight of its rivals' words. None: all the same."""
    B, C = rows.shape
    features = np.zeros((B, C, len(READING_FEATURES)), np.float32)
    answers = np.full((B, C), UNKNOWN, np.int8)
    chosen = np.full((B, C), -1, np.int64)
    there = (rows >= 0) & (skills.index[np.maximum(rows, 0), 0] >= 0)  # (B, C)
    if not there.any():
        return Understood(rows, features, answers, chosen)
    pairs = _paired(skills, tagged, rows, there)
    intent, similarity = _intents(skills, tagged, pairs, similarities)
    columns, spoken = _columns(skills, tagged, pairs, intent, similarity)
    shares = np.where(there, np.float32(1) if beliefs is None else beliefs, np.float32(0))  # (B, C)
    shares = shares / np.maximum(shares.sum(1, keepdims=True), np.float32(1e-9))
    rivals = Rivals(pairs.b, shares[there], B)
    _compare(columns, spoken, rivals)
    answer = _answers(skills, columns, intent, rivals)
    for name, column in columns.items():
        features[pairs.b, pairs.c, PLACE[name]] = column
    answers[pairs.b, pairs.c], chosen[pairs.b, pairs.c] = answer, intent
    return Understood(rows, features, answers, chosen)


def _paired(skills: Skills, tagged: Tagged, rows: NDArray[np.int64], there: NDArray[np.bool_]) -> _Pairs:
    b, c = there.nonzero()
    row = rows[b, c]
    names, values, intents, near = skills.entries.find(tagged.terms[:, b], row)  # (T, N) each
    shares = tagged.weights / np.maximum(tagged.total, np.float32(1e-6))  # (T, B)
    return _Pairs(b, c, row, names, values, near, intents, shares[:, b].astype(np.float32, copy=False))


def _intents(
    skills: Skills, tagged: Tagged, pairs: _Pairs, similarities: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The place of the most likely intent of each pair, and its cosine, (N,) each."""
    index = skills.index[pairs.row]  # (N, M)
    slots = pairs.names | pairs.values  # (T, N)
    best = np.full(len(index), -np.inf, np.float32)
    place, cosine = index[:, 0].copy(), np.zeros(len(index), np.float32)
    spans = tagged.kinds[pairs.b]  # (N, KINDS)
    for m in range(index.shape[1]):
        n = np.flatnonzero(index[:, m] >= 0)
        if not len(n):
            break
        at = index[n, m]
        own = (pairs.intents[:, n] & skills.intents.bits[at]) != 0  # (T, n)
        words = own | ((slots[:, n] & skills.intents.slots[at]) != 0)  # (T, n)
        near = similarities[pairs.b[n], pairs.c[n], m]
        score = near + WORD_WORTH * (words * pairs.weights[:, n]).sum(0)
        score += SPAN_WORTH * np.minimum(spans[n], skills.intents.kinds[at]).sum(1) + HIT_WORTH * own.sum(0)
        better = score > best[n]
        n = n[better]
        best[n], place[n], cosine[n] = score[better], at[better], near[better]
    return place, cosine


Columns = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class _Spoken:
    """Which terms (T, N) say something to a pair's skill: `aspects` of what it can do, `any` of anything."""

    aspects: NDArray[np.bool_]
    any: NDArray[np.bool_]


def _columns(
    skills: Skills, tagged: Tagged, pairs: _Pairs, intent: NDArray[np.int64], cosine: NDArray[np.float32]
) -> tuple[Columns, _Spoken]:
    """Features (N,) that each pair has by itself."""
    known = skills.intents
    told = pairs.names | pairs.values  # (T, N)
    aspects = ((told | pairs.near) & skills.aspects[pairs.row]) != 0  # (T, N)
    spoken = _Spoken(aspects, (told | pairs.near | pairs.intents) != 0)
    columns: Columns = {
        "declares_intents": np.ones(len(intent), np.float32),
        "intent_similarity": cosine,
        "intent_words": (((pairs.intents & known.bits[intent]) != 0) * pairs.weights).sum(0),
        "covered": (spoken.any * pairs.weights).sum(0),
        "values": ((pairs.values & known.slots[intent]) != 0).sum(0, dtype=np.float32),
        "aspects": aspects.sum(0, dtype=np.float32),
    }
    columns |= _spans(skills, tagged.kinds[pairs.b], intent, np.bitwise_or.reduce(told, axis=0))
    columns["numbers_named"], refused = _numbers(skills, tagged, pairs)
    nearly = np.bitwise_or.reduce(told | pairs.near, axis=0)  # (N,)
    refused += np.bitwise_count(nearly & known.refused[intent])
    columns["values_refused"] = refused
    return columns, spoken


def _spans(skills: Skills, spans: NDArray[np.float32], intent: NDArray[np.int64], said: Sets) -> Columns:
    """What the slots of intents (N,) make of spans (N, KINDS) and of words that speak of slots `said` (N,)."""
    known = skills.intents
    filled = np.minimum(spans, known.kinds[intent])  # (N, KINDS)
    required = np.bitwise_count(known.required[intent]).astype(np.float32)
    met = np.maximum(
        np.minimum(spans, known.needs[intent]).sum(1), np.bitwise_count(known.required[intent] & said)
    )
    met = np.minimum(met, required)
    return {
        "spans_filled": filled.sum(1),
        "spans_unfilled": spans.sum(1) - filled.sum(1),
        "persons_filled": filled[:, PERSON],
        "required_filled": met / np.maximum(required, 1),
        "required_missing": required - met,
    }


def _numbers(skills: Skills, tagged: Tagged, pairs: _Pairs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How many numbers are of things that the skill counts, and how many of these it refuses, (N,) each."""
    named = np.zeros(len(pairs.b), np.float32)
    refused = named.copy()
    slots, listed = skills.numbers[pairs.row], skills.listed[pairs.row]  # (N,)
    for number, counted in zip(tagged.numbers, tagged.counted, strict=True):  # (B,), (LOOKED_AHEAD, B)
        n = np.flatnonzero((number[pairs.b] != NO_NUMBER) & (slots != 0))
        if not len(n):
            continue
        of = skills.entries.find(counted[:, pairs.b[n]], pairs.row[n])[0]  # (LOOKED_AHEAD, n)
        of = np.bitwise_or.reduce(of, axis=0) & slots[n]  # (n,)
        taken = skills.entries.find(number[pairs.b[n]], pairs.row[n])[1] | ~listed[n]
        named[n] += (of & taken) != 0
        refused[n] += (of != 0) & ((of & taken) == 0)
    return named, refused


@dataclass(frozen=True)
class Rivals:
    """The lists that the pairs are from, and how much each pair is believed in."""

    b: NDArray[np.int64]  # (N,)
    share: NDArray[np.float32]  # (N,) sums to 1 over a list
    lists: int

    def mean(self, column: NDArray[np.float32] | NDArray[np.bool_]) -> NDArray[np.float32]:
        """For each pair the mean of a column (N,) over its list, (N,)."""
        sums = np.bincount(self.b, column * self.share, self.lists)  # (B,)
        found: NDArray[np.float32] = sums[self.b].astype(np.float32)
        return found


def _compare(columns: Columns, spoken: _Spoken, rivals: Rivals) -> None:
    """Adds what each pair has beyond the others of its list."""
    for name in LED:
        columns[f"{name}_lead"] = columns[name] - rivals.mean(columns[name])
    spans = columns["spans_filled"] + columns["numbers_named"]
    columns["spans_lead"] = spans - rivals.mean(spans)
    lacks = np.zeros_like(rivals.share)
    for asked, heard in zip(spoken.aspects, spoken.any, strict=True):  # (N,) each
        if asked.any():
            lacks += ~heard * rivals.mean(asked)
    columns["lacks"] = lacks


def _answers(skills: Skills, columns: Columns, intent: NDArray[np.int64], rivals: Rivals) -> NDArray[np.int64]:
    """CanFulfillIntentRequest's answer for the intent, (N,); adds its features.

    The card's own answer for the intent holds, but a slot spoken of that it cannot fill makes it NO. Where the
    card gives none: NO where a value is refused, YES where the intent is understood, every span has a slot and
    nothing else is asked for that rivals would understand, else MAYBE. A required slot that the request leaves
    out is no reason against: the skill can ask.
    """
    own = skills.intents.answers[intent]  # (N,)
    words = columns["intent_words"] + columns["aspects"] + columns["values"]
    understood = (words > 0) | (columns["intent_similarity"] >= UNDERSTOOD)
    whole = understood & (columns["spans_unfilled"] == 0) & (columns["lacks"] < BELIEVED)
    inferred = np.where(own == UNKNOWN, np.where(whole, YES, MAYBE), own)
    answer: NDArray[np.int64] = np.where(columns["values_refused"] > 0, NO, inferred)
    for name, code in (("fulfil_yes", YES), ("fulfil_maybe", MAYBE), ("fulfil_no", NO)):
        columns[name] = (answer == code).astype(np.float32)
    columns["fulfil_explicit"] = (own != UNKNOWN).astype(np.float32)
    columns["fulfil_lead"] = answer - rivals.mean(answer.astype(np.float32))
    return answer
