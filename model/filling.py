"""Which words of a request fill which slots of an intent. Slow (20 µs) and exact, for one hypothesis at a time."""

from collections.abc import Iterable

from model.catalogue import spoken
from model.declared import BOOLEAN, Declared, DeclaredIntent
from model.lexicon import STOP, stem
from model.spans import NUMBER, Span
from model.tagger import LOOKED_AHEAD, Read
from model.text import tokens

# words before a span, and words in the names of the slots that it then fills
_WAYS = (
    (
        "from leaving departing starting between since",
        "from origin depart departure leaving start pickup outbound in",
    ),
    (
        "to for visit visiting until till by returning return",
        "to destination end ending return drop dropoff going out",
    ),
)
_BEFORE = {word: frozenset(names.split()) for words, names in _WAYS for word in words.split()}
_LOOKED_BACK = 3  # words before a span among which the cue stands: `from downtown san jose`


def fill(skill: Declared, intent: DeclaredIntent, read: Read) -> dict[str, str]:
    """Slot to value as said.

    Values that slots list come first, the longest first of all; then typed spans, each to the slot that the words
    before it speak of; then slots that are yes or no, filled by the words that name them.
    """
    filled: dict[str, tuple[int, int]] = {}
    taken: set[int] = set()
    for name, start, end in (
        *_listed(skill, intent, read),
        *_typed(skill, intent, read),
        *_named(skill, intent, read),
    ):
        if name not in filled and taken.isdisjoint(range(start, end)):
            filled[name] = start, end
            taken.update(range(start, end))
    return {name: " ".join(read.words[start:end]) for name, (start, end) in filled.items()}


Choice = tuple[str, int, int]  # a slot, its first word, behind its last


def _slots(skill: Declared, intent: DeclaredIntent, kinds: Iterable[int]) -> list[tuple[str, int]]:
    """Slots of the intent that are of these kinds, and their bits."""
    wanted = {*kinds}
    every = zip(skill.slots, skill.bits, skill.kinds, strict=True)
    return [(name, bit) for name, bit, kind in every if kind in wanted and bit & intent.slots]


def _terms(read: Read) -> list[tuple[str, int, int]]:
    """The declared terms of the request, the longest first."""
    found = [("".join(_stems(read.words[start:end])), start, end) for _, start, end in read.said]
    return sorted(found, key=lambda one: one[1] - one[2])


def _stems(words: Iterable[str]) -> list[str]:
    return [stem(word) for word in words if word not in STOP]


def _listed(skill: Declared, intent: DeclaredIntent, read: Read) -> list[Choice]:
    """Values that slots list; one within a span of the slot's own kind is left to the span: `five minutes` within
    `forty five minutes`."""
    slots = _slots(skill, intent, [kind for kind in skill.kinds if kind not in (NUMBER, BOOLEAN)])
    kinds = dict(zip(skill.slots, skill.kinds, strict=True))
    return [
        (name, _whole(skill, read, start, end), end)
        for one, start, end in _terms(read)
        for name, bit in slots
        if one in skill.entries and skill.entries[one].values & bit
        if not any(s.kind == kinds[name] and s.start <= start and end <= s.end for s in read.spans)
    ]


def _whole(skill: Declared, read: Read, start: int, end: int) -> int:
    """Where a value begins with the small words before it that the card writes: `my sister`."""
    for at in range(max(0, start - 2), start):
        if " ".join(read.words[at:end]) in skill.values:
            return at
    return start


def _named(skill: Declared, intent: DeclaredIntent, read: Read) -> list[Choice]:
    slots = _slots(skill, intent, [BOOLEAN])
    found = []
    for one, start, end in _terms(read):
        entry = skill.entries.get(one)
        found += [(name, start, end) for name, bit in slots if entry and (entry.names | entry.near) & bit]
    return found


def _typed(skill: Declared, intent: DeclaredIntent, read: Read) -> list[Choice]:
    """Spans and slots of their kinds: better matches first, then in the order of the request and the card."""
    matches = []
    for at, span in enumerate(read.spans):
        for place, (name, bit) in enumerate(_slots(skill, intent, [span.kind])):
            score = _counts(skill, bit, span, read) if span.kind == NUMBER else _leads(name, span, read)
            if score is not None:
                matches.append((-score, at, place, name, span))
    matches.sort(key=lambda match: match[:3])
    return [(name, span.start, span.end) for *_, name, span in matches]


def _counts(skill: Declared, bit: int, span: Span, read: Read) -> int | None:
    """1 where what stands behind the number is what the slot counts, 0 where that cannot be told, None where the
    slot does not take the number."""
    one = skill.entries.get(span.value)
    if skill.listed & bit and not (one and one.values & bit):
        return None
    behind = [skill.entries.get(word) for word in _stems(read.words[span.end : span.end + LOOKED_AHEAD])]
    return int(any(entry and entry.names & bit for entry in behind))


def _leads(name: str, span: Span, read: Read) -> int:
    """1 where the words before the span, or its first one, speak of the slot, -1 where they speak of others."""
    words = set(tokens(spoken(name)))
    for word in reversed(read.words[max(0, span.start - _LOOKED_BACK) : span.start + 1]):
        if word in _BEFORE:
            return 1 if words & _BEFORE[word] else -1
    return 0
