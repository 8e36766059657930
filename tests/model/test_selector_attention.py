"""The weights that a selector tells of linked skills."""

from model.data import Row
from model.selector import CHUNK, Request, Selector


def test_every_known_link_has_its_weight_whether_it_is_shortlisted_or_not(
    small_selector: Selector, small_dev: list[Row]
) -> None:
    requests = [Request(row.text, (*(row.linked or ()), "gone:long-ago")) for row in small_dev]
    weights = small_selector.attention(requests)
    assert [set(one) for one in weights] == [set(row.linked or ()) for row in small_dev]
    assert all(0 <= weight <= 1 for one in weights for weight in one.values())


def test_told_weights_are_those_of_the_decision(small_selector: Selector, small_dev: list[Row]) -> None:
    requests = [Request(row.text, row.linked or ()) for row in small_dev]
    compared = 0
    for told, ranking in zip(small_selector.attention(requests), small_selector.decide(requests), strict=True):
        for candidate in ranking.candidates:
            if candidate.linked:
                assert candidate.attention == told[candidate.skill_id]
                compared += 1
    assert compared > 10


def test_order_and_number_hold_beyond_one_chunk(small_selector: Selector, small_dev: list[Row]) -> None:
    request = Request(small_dev[0].text, small_dev[0].linked or ())
    weights = small_selector.attention([Request("hello"), *[request] * CHUNK, Request("hello")])
    assert weights[0] == weights[-1] == {}
    assert all(one.keys() == set(request.linked) for one in weights[1:-1])
    assert small_selector.attention([]) == []
