"""The second reader: learns how a skill's requests are worded, and only tells among candidates."""

import pytest
import torch

from model.wording import Wording, WordingSettings, teach, worded

SMALL = WordingSettings(bits=12, epochs=8)
TEXTS = ["a direct bus", "a direct bus please", "flexible bus", "a flexible bus today"] * 4
ROWS = torch.tensor([[7, 9, -1]] * len(TEXTS))
RIGHT = torch.tensor([0, 0, 1, 1] * 4)


@pytest.fixture(scope="module")
def wording() -> Wording:
    return teach(worded(TEXTS), ROWS, RIGHT, SMALL)


def test_the_skill_whose_requests_are_worded_so_comes_first(wording: Wording) -> None:
    scores = wording.scores(worded(["any direct bus", "any flexible bus"]), ROWS[:2])
    assert scores.argmax(1).tolist() == [0, 1]


def test_equal_teaching_gives_equal_weights(wording: Wording) -> None:
    assert torch.equal(wording.weights, teach(worded(TEXTS), ROWS, RIGHT, SMALL).weights)


def test_a_request_scores_the_same_alone_and_in_company(wording: Wording) -> None:
    texts = ["direct", "a flexible bus to anywhere at all please today", ""]
    together = wording.scores(worded(texts), ROWS[:3])
    alone = [wording.scores(worded([text]), ROWS[:1]) for text in texts]
    assert torch.equal(together, torch.cat(alone))


def test_a_candidate_scores_the_same_whoever_stands_beside_it(wording: Wording) -> None:
    one, other = (wording.scores(worded(["direct bus"]), torch.tensor([rows])) for rows in ([7, 9], [9, 7]))
    assert torch.equal(one, other.flip(1))


def test_a_place_without_a_skill_scores_nothing(wording: Wording) -> None:
    assert wording.scores(worded(["direct bus"]), torch.tensor([[-1, -1]])).tolist() == [[0.0, 0.0]]


def test_a_skill_that_was_not_taught_scores_nothing_beside_one_that_was(wording: Wording) -> None:
    scores = wording.scores(worded(["direct bus"]), torch.tensor([[7, -1]]))
    assert scores[0, 0] > 0
    assert scores[0, 1] == 0.0


def test_rows_without_their_skill_on_the_list_teach_nothing() -> None:
    taught = teach(worded(TEXTS), ROWS, torch.full_like(RIGHT, -1), SMALL)
    assert not taught.weights.any()


def test_weights_that_are_no_power_of_two_are_refused() -> None:
    with pytest.raises(ValueError, match="no power of two"):
        Wording(torch.zeros(3))
