"""Skills that are asked: who, about what, once for all, and what their answers do to a decision."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

import model.questions
from model.data import Row
from model.fulfilment import Question
from model.questions import MOST_ASKED
from model.selector import CHUNK, Ranking, Request, Selector
from topics.events import Ability, Intent, SkillCard, Slot, SlotAbility

Answering = Callable[[Question], Ability | None]


class Asking:
    """Answers as it is told, and keeps what it was asked, call by call."""

    def __init__(self, answer: Answering) -> None:
        self.calls: list[list[Question]] = []
        self._answer = answer

    def ask(self, questions: Sequence[Question]) -> list[Ability | None]:
        self.calls.append(list(questions))
        return [self._answer(question) for question in questions]


def silent(_: Question) -> None:
    return None


def refusing(_: Question) -> Ability:
    return Ability("NO")


def asking_selector(
    folder: Path, cards: Sequence[SkillCard], answer: Answering, named: str = ""
) -> tuple[Selector, Asking]:
    """A selector that asks all skills whose id begins with `named`."""
    asks = Asking(answer)
    selector = Selector.load(folder, asks=asks)
    selector.take(with_endpoints(cards, named))
    return selector, asks


def with_endpoints(cards: Sequence[SkillCard], named: str) -> list[SkillCard]:
    return [
        msgspec.structs.replace(card, endpoint=f"https://example.com/{card.skill_id}")
        for card in cards
        if card.skill_id.startswith(named)
    ]


def requests_of(rows: Sequence[Row]) -> list[Request]:
    return [Request(row.text, row.linked or (), locale="de-DE") for row in rows]


def by_card(folder: Path, cards: Sequence[SkillCard], requests: list[Request], named: str = "") -> list[Ranking]:
    """As the same skills are decided among when nobody is asked."""
    selector = Selector.load(folder)
    selector.take(with_endpoints(cards, named))
    return selector.decide(requests)


def test_all_requests_of_a_batch_are_asked_about_at_once(
    small_folder: Path, small_cards: list[SkillCard], small_dev: list[Row]
) -> None:
    """One deadline for the batch, however many requests the networks take at a time."""
    requests = (requests_of(small_dev) * 3)[: CHUNK + 40]
    selector, asks = asking_selector(small_folder, small_cards, silent)
    selector.decide(requests)
    [questions] = asks.calls
    assert CHUNK < len(questions) < MOST_ASKED * len(requests)


def test_a_question_names_intent_and_slots_in_order_and_the_customers_locale(
    small_folder: Path, small_cards: list[SkillCard]
) -> None:
    selector, asks = asking_selector(small_folder, small_cards, silent, "rides:")
    selector.decide([Request("get me a car to the airport tomorrow", locale="de-DE")])
    [questions] = asks.calls
    assert {question.locale for question in questions} == {"de-DE"}
    assert all(question.endpoint.endswith(question.skill_id) for question in questions)
    assert all(list(question.slots) == sorted(question.slots) for question in questions)
    cards = {card.skill_id: card for card in small_cards}
    for question in questions:
        [intent] = [one for one in cards[question.skill_id].intents if one.name == question.intent]
        assert {name for name, _ in question.slots} <= {slot.name for slot in intent.slots}
    assert any(question.slots for question in questions)


def test_only_the_shortlists_best_are_asked_and_only_who_has_a_chance(
    small_folder: Path, small_cards: list[SkillCard], small_dev: list[Row]
) -> None:
    requests = requests_of(small_dev)[:30]
    selector, asks = asking_selector(small_folder, small_cards, silent)
    counts = []
    for request, shortlist in zip(requests, selector.shortlist(requests, MOST_ASKED), strict=True):
        selector.decide([request])
        asked = [question.skill_id for question in asks.calls.pop()] if asks.calls else []
        assert asked == shortlist[: len(asked)]
        counts.append(len(asked))
    assert max(counts) <= MOST_ASKED
    assert 0 < sum(counts) < MOST_ASKED * len(requests)


def test_only_who_has_an_endpoint_is_asked(
    small_folder: Path, small_cards: list[SkillCard], small_dev: list[Row]
) -> None:
    selector, asks = asking_selector(small_folder, small_cards, silent, "pizza:")
    selector.decide(requests_of(small_dev))
    assert {question.skill_id.split(":")[0] for question in asks.calls[0]} == {"pizza"}


def test_nobody_is_asked_where_nobody_can_be(
    small_folder: Path, small_cards: list[SkillCard], small_dev: list[Row]
) -> None:
    selector, asks = asking_selector(small_folder, small_cards, silent, "nobody")
    selector.decide(requests_of(small_dev)[:20])
    selector.decide([])
    assert asks.calls == []


def test_where_no_answer_comes_the_card_decides(
    small_folder: Path, small_cards: list[SkillCard], small_dev: list[Row]
) -> None:
    requests = requests_of(small_dev)
    selector, _ = asking_selector(small_folder, small_cards, silent)
    assert selector.decide(requests) == by_card(small_folder, small_cards, requests)


def test_an_answer_stands_in_place_of_what_the_card_declares(
    small_folder: Path, small_cards: list[SkillCard], small_dev: list[Row]
) -> None:
    requests = requests_of(small_dev)[:60]
    selector, asks = asking_selector(small_folder, small_cards, refusing, "rides:")
    asked = {(c.skill_id, c.fulfill, c.fulfill_source) for r in selector.decide(requests) for c in r.candidates}
    named = {question.skill_id for question in asks.calls[0]}
    assert {(skill, "NO", "asked") for skill in named} <= asked
    assert all(source != "asked" for skill, _, source in asked if not skill.startswith("rides:"))


def test_a_slot_that_a_skill_cannot_fulfil_makes_its_yes_a_no(
    small_folder: Path, small_cards: list[SkillCard]
) -> None:
    def lame(question: Question) -> Ability:
        return Ability("YES", {name: SlotAbility("YES", "NO") for name, _ in question.slots})

    selector, asks = asking_selector(small_folder, small_cards, lame, "rides:")
    [ranking] = selector.decide([Request("get me a car to the airport tomorrow")])
    slots = {question.skill_id: question.slots for question in asks.calls[0]}
    said = {c.skill_id: c.fulfill for c in ranking.candidates if c.fulfill_source == "asked"}
    assert said == {skill: "NO" if filled else "YES" for skill, filled in slots.items()}
    assert "NO" in said.values()


def test_an_answer_changes_what_fulfilment_adds_and_leaves_text_and_links(
    small_folder: Path, small_cards: list[SkillCard]
) -> None:
    request = Request("get me a car to the airport", ("rides:acorn",))
    selector, _ = asking_selector(small_folder, small_cards, refusing, "rides:acorn")
    declared = Selector.load(small_folder)
    declared.take(with_endpoints(small_cards, "rides:acorn"))
    after, before = (_parts(one, request)["rides:acorn"] for one in (selector, declared))
    assert after["fulfilment"] != before["fulfilment"]
    for group in ("text", "links", "intents", "statistics"):
        assert after[group] == pytest.approx(before[group], abs=1e-4)


def _parts(selector: Selector, request: Request) -> dict[str, dict[str, float]]:
    why = selector.explain(request)
    return {one.skill_id: parts for one, parts in zip(why.ranking.candidates, why.parts, strict=True)}


def test_an_endpoint_that_joins_is_asked_from_then_on(small_folder: Path, small_cards: list[SkillCard]) -> None:
    selector, asks = asking_selector(small_folder, small_cards, silent, "nobody")
    request = Request("get me a car")
    selector.decide([request])
    selector.take(with_endpoints(small_cards, "rides:"))
    selector.decide([request])
    selector.take(small_cards)
    selector.decide([request])
    assert len(asks.calls) == 1


def test_slots_are_named_in_one_order_whatever_the_requests(small_folder: Path) -> None:
    """Else an answer that is remembered would not be found again."""
    slots = (Slot(name="zone", values=("the red harbour gate",)), Slot(name="class", values=("van",)))
    card = SkillCard(
        skill_id="vans:bolt",
        name="Bolt vans",
        phrases=("order a van to the red harbour gate",),
        intents=(Intent(name="order_van", slots=slots),),
        endpoint="https://example.com/vans",
    )
    selector, asks = asking_selector(small_folder, [], silent)
    selector.take([card])
    selector.decide([Request(card.phrases[0])])
    [[question]] = asks.calls
    assert question.slots == (("class", "van"), ("zone", "the red harbour gate"))


def test_each_request_gets_its_own_answers_however_many_are_decided_together(
    small_folder: Path, small_cards: list[SkillCard], small_dev: list[Row]
) -> None:
    requests = (requests_of(small_dev) * 3)[: CHUNK + 40]
    selector, _ = asking_selector(small_folder, small_cards, refusing)
    together = selector.decide(requests)
    longest = max(range(len(requests)), key=lambda at: len(requests[at].text))  # in the last part
    for at in (0, 1, longest):
        [alone] = selector.decide([requests[at]])
        asked = [(c.skill_id, c.fulfill, c.fulfill_source) for c in alone.candidates]
        assert [(c.skill_id, c.fulfill, c.fulfill_source) for c in together[at].candidates] == asked
        assert "asked" in {source for _, _, source in asked}


def test_a_flood_of_requests_asks_only_where_the_shortlister_is_least_sure(
    small_folder: Path, small_cards: list[SkillCard], small_dev: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.questions, "MOST_QUESTIONS", 7)
    selector, asks = asking_selector(small_folder, small_cards, silent)
    requests = requests_of(small_dev)[:20]
    selector.decide(requests)
    monkeypatch.setattr(model.questions, "MOST_QUESTIONS", 1_000)
    selector.decide(requests)
    few, every = asks.calls
    assert len(few) == 7
    assert set(few) < set(every)
