"""Hypothesis strategies for every event on the wire, within the bounds that `topics.events` sets."""

from hypothesis import strategies as st

from topics import events

# JSON text can hold everything but lone surrogates
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
lines = texts
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip)
times_ms = st.integers(0, events.MAX_TIME_MS)
shares = st.floats(0.0, 1.0)
counts = st.integers(0, 2**53)  # beyond, other languages' JSON readers lose digits
scores = st.floats(-1e30, 1e30)
id_tuples = st.lists(ids, max_size=8).map(tuple)
base = {"event_time_ms": times_ms}
asked = {**base, "utterance_id": ids, "customer_id": ids}

utterances = st.builds(events.Utterance, **asked, text=ids, locale=texts, linked=st.none() | id_tuples)
links = st.builds(
    events.Links,
    **base,
    customer_id=ids,
    linked=st.lists(st.builds(events.Link, skill_id=ids, since_ms=times_ms), max_size=8).map(tuple),
)
slots = st.builds(
    events.Slot,
    name=ids,
    type=lines,
    required=st.booleans(),
    description=lines,
    values=st.lists(lines, max_size=3).map(tuple),
)
intents = st.builds(events.Intent, name=ids, description=lines, slots=st.lists(slots, max_size=3).map(tuple))
answers = st.sampled_from(["YES", "MAYBE", "NO"])
slot_abilities = st.builds(events.SlotAbility, can_understand=answers, can_fulfill=answers)
abilities = st.builds(events.Ability, answer=answers, slots=st.dictionaries(texts, slot_abilities, max_size=3))
skill_cards = st.builds(
    events.SkillCard,
    **base,
    skill_id=ids,
    name=ids,
    description=texts,
    category=lines,
    source=lines,
    reviews=counts,
    invocation=lines,
    phrases=st.lists(ids, max_size=3).map(tuple),
    intents=st.lists(intents, max_size=2).map(tuple),
    can_fulfill=st.dictionaries(texts, abilities, max_size=2),
)
candidates = st.builds(
    events.Candidate,
    skill_id=ids,
    score=scores,
    probability=shares,
    linked=st.booleans(),
    attention=st.none() | shares,
    shortlist_rank=counts,
    intent=texts,
    fulfill=st.none() | answers,
    fulfill_source=st.sampled_from(["", "declared", "asked"]),
    slots=st.dictionaries(texts, texts, max_size=2),
)
decisions = st.builds(
    events.Decision,
    **asked,
    action=st.sampled_from(events.Action),
    skill_id=st.none() | ids,
    candidates=st.lists(candidates, max_size=3).map(tuple),
    none_probability=shares,
    linked=id_tuples,
    propensity=st.floats(0.0, 1.0, exclude_min=True),
    rule=lines,
    release=lines,
    statistics=lines,
    latency_ms=st.floats(0.0, 1e9),
    policy=lines,
    reasons=st.dictionaries(texts, scores, max_size=3),
    without_links=st.none() | ids,
)
outcomes = st.builds(
    events.Outcome,
    **asked,
    outcome=st.sampled_from([kind for kind in events.OutcomeKind if kind is not events.OutcomeKind.CORRECTED]),
    skill_id=st.none() | ids,
) | st.builds(events.Outcome, **asked, outcome=st.just(events.OutcomeKind.CORRECTED), skill_id=ids)
skill_counts = st.builds(
    events.SkillCounts,
    chosen=counts,
    passed=counts,
    offered=st.lists(counts, max_size=3),
    accepted=counts,
    rejected=counts,
    abandoned=counts,
    enabled=counts,
    corrected=counts,
    mass_millionths=counts,
    answered=counts,
    kept=counts,
    expected_millionths=counts,
)
folds = st.builds(
    events.StatisticsFold,
    **base,
    bucket=lines,
    partition=counts,
    offsets=st.dictionaries(texts, counts, max_size=3),
    decisions=counts,
    outcomes=counts,
    none_chosen=counts,
    skills=st.dictionaries(
        ids, st.builds(events.SkillStatistics, linked=skill_counts, unlinked=skill_counts), max_size=3
    ),
    taken_instead=st.dictionaries(ids, st.dictionaries(ids, counts, max_size=2), max_size=2),
)
live_statistics = st.builds(
    events.LiveStatistics,
    **base,
    version=ids,
    factors=st.dictionaries(ids, scores, max_size=3),
    offsets=st.dictionaries(texts, counts, max_size=3),
)
releases = st.builds(
    events.Release,
    **base,
    release=ids,
    bundle=ids,
    digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    parent=lines,
    measures=st.dictionaries(texts, scores, max_size=3),
    note=lines,
    share=shares,
    until_ms=st.integers(0, events.MAX_TIME_MS),
    provenance=st.dictionaries(texts, lines, max_size=2),
)
dead_letters = st.builds(
    events.DeadLetter,
    **base,
    reason=lines,
    message=texts,
    topic=texts,
    partition=counts,
    offset=counts,
    source_key=st.none() | st.binary(max_size=30),
    source_value=st.none() | st.binary(max_size=30),
)
redriven = st.builds(
    events.Redriven, **base, letter_time_ms=st.integers(0, events.MAX_TIME_MS), topic=texts, mended=st.booleans()
)
any_event = st.one_of(
    utterances, links, skill_cards, decisions, outcomes, folds, live_statistics, releases, dead_letters, redriven
)
