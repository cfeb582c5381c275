"""Rankings from votes: known closed forms, recovered strengths, honest intervals, and every odd set of votes.

python -m pytest tests/test_ranking.py
"""

import math
import random

import numpy as np
import pytest
from made_votes import a_vote, drawn_votes

from facellm.ranking import ENOUGH_VOTES, Ranking, Standing, rank
from facellm.votes import Outcome, Vote

TRUE = {"ada": 1150.0, "bob": 1050.0, "cyd": 950.0, "dan": 850.0}
FLIPPED = {Outcome.A: Outcome.B, Outcome.B: Outcome.A}


def by_name(ranking: Ranking) -> dict[str, Standing]:
    return {standing.name: standing for standing in ranking.standings}


def flipped(vote: Vote) -> Vote:
    return vote.model_copy(update={"outcome": FLIPPED.get(vote.outcome, vote.outcome)})


def sides_swapped(vote: Vote) -> Vote:
    sides = {"a": vote.b, "b": vote.a, "a_source": vote.b_source, "b_source": vote.a_source}
    return flipped(vote).model_copy(update=sides)


@pytest.mark.parametrize(
    ("wins", "losses", "ties", "both_bad"), [(40, 20, 0, 0), (1, 0, 0, 0), (60, 0, 0, 0), (30, 20, 9, 4), (0, 0, 3, 2)]
)
def test_two_models_have_the_odds_of_their_wins(wins: int, losses: int, ties: int, both_bad: int) -> None:
    outcomes = ["a"] * wins + ["b"] * losses + ["tie"] * ties + ["both bad"] * both_bad
    ranking = rank([a_vote(outcome=outcome) for outcome in outcomes])
    base, tuned = by_name(ranking)["base"], by_name(ranking)["tuned"]
    half = (ties + both_bad) / 2
    odds = (wins + half + 0.5) / (losses + half + 0.5)
    assert base.score - tuned.score == pytest.approx(400 * math.log10(odds), abs=1e-6)
    assert (base.score + tuned.score) / 2 == pytest.approx(1000)
    assert (base.wins, base.losses, base.ties, base.both_bad) == (wins, losses, ties, both_bad)
    assert (tuned.wins, tuned.losses, tuned.votes) == (losses, wins, len(outcomes))
    assert ranking.both_bad_share == base.both_bad_share == both_bad / len(outcomes)


def test_strengths_are_the_likeliest() -> None:
    """At the maximum the wins of each model are those that its scores let expect, prior included."""
    votes = drawn_votes(TRUE, 300)
    standings = by_name(rank(votes))
    for name, standing in standings.items():
        expected = 0.0
        for other in standings.values():
            if other.name == name:
                continue
            chance = 1 / (1 + 10 ** ((other.score - standing.score) / 400))
            met = sum({vote.a, vote.b} == {name, other.name} for vote in votes)
            expected += (met + 1 / 3) * chance
        assert expected == pytest.approx(standing.wins + 0.5, abs=1e-6)


def test_known_strengths_are_recovered() -> None:
    ranking = rank(drawn_votes(TRUE, 2000))
    assert [standing.name for standing in ranking.standings] == list(TRUE)
    for standing in ranking.standings:
        assert standing.low < TRUE[standing.name] < standing.high
        assert standing.low < standing.score < standing.high
        assert 20 < standing.high - standing.low < 100


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = []
    for seed in range(100):
        standings = by_name(rank(drawn_votes(TRUE, 200, seed=seed), rounds=200))
        covered += [standing.low <= TRUE[name] <= standing.high for name, standing in standings.items()]
    assert 0.90 <= np.mean(covered) <= 0.99


def test_more_votes_make_narrower_intervals() -> None:
    few, many = (rank(drawn_votes(TRUE, count)).standings[0] for count in (100, 1600))
    assert (many.high - many.low) == pytest.approx((few.high - few.low) / 4, rel=0.4)


def test_neither_order_nor_side_matters() -> None:
    votes = [*drawn_votes(TRUE, 120), a_vote("ada", "bob", "tie"), a_vote("dan", "cyd", "both bad")]
    ranking = rank(votes)
    shuffled = random.Random(1).sample(votes, len(votes))
    assert rank(shuffled) == ranking
    assert rank([sides_swapped(vote) for vote in votes]) == ranking
    assert rank(votes, seed=1) != ranking


def test_turning_every_vote_round_turns_the_scores_round() -> None:
    votes = [*drawn_votes(TRUE, 120), a_vote("ada", "bob", "tie")]
    scores, turned = by_name(rank(votes)), by_name(rank([flipped(vote) for vote in votes]))
    for name, standing in scores.items():
        assert turned[name].score == pytest.approx(2000 - standing.score, abs=1e-6)
        assert (turned[name].wins, turned[name].losses) == (standing.losses, standing.wins)
        assert turned[name].low == pytest.approx(2000 - standing.high, abs=25)


def test_winning_or_losing_everything_is_finite_and_has_an_interval() -> None:
    ranking = rank([a_vote("ada", "bob", "a")] * 60 + [a_vote("bob", "cyd", "a")] * 60)
    assert [standing.name for standing in ranking.standings] == ["ada", "bob", "cyd"]
    for standing in ranking.standings:
        assert math.isfinite(standing.score)
        assert 50 < standing.high - standing.low < 1500
        assert standing.low <= standing.score <= standing.high


def test_groups_that_never_met_are_ranked_and_told() -> None:
    apart = [a_vote("ada", "bob", "a")] * 20 + [a_vote("cyd", "dan", "b")] * 20
    ranking = rank(apart)
    assert not ranking.connected
    scores = by_name(ranking)
    assert scores["ada"].score == pytest.approx(scores["dan"].score)
    assert scores["ada"].high - scores["ada"].low > 400  # all but nothing is known across the groups
    assert rank([*apart, a_vote("bob", "cyd", "tie")]).connected


def test_no_votes() -> None:
    ranking = rank([])
    assert (ranking.standings, ranking.shares, ranking.votes, ranking.both_bad_share) == ((), (), 0, 0.0)
    assert not ranking.enough


def test_fifty_votes_are_enough() -> None:
    assert ENOUGH_VOTES == 50
    assert not rank([a_vote()] * 49).enough
    assert rank([a_vote()] * 50).enough


def test_models_of_one_name_and_two_sources_are_two() -> None:
    votes = [a_vote(b_source="run-1", outcome="b"), a_vote(b_source="run-2", outcome="a")]
    labels = {standing.label: standing.wins for standing in rank(votes).standings}
    assert labels == {"tuned (run-1)": 1, "base": 1, "tuned (run-2)": 0}


def test_the_shares_are_row_against_column_in_the_order_of_the_ranking() -> None:
    votes = [a_vote("ada", "bob", outcome) for outcome in ("a", "a", "b", "tie")]
    ranking = rank([*votes, a_vote("bob", "cyd", "a"), a_vote("cyd", "bob", "both bad")])
    assert [standing.name for standing in ranking.standings] == ["ada", "bob", "cyd"]
    assert ranking.shares == ((None, 0.625, None), (0.375, None, 0.75), (None, 0.25, None))


def test_many_models_and_votes_take_seconds_at_most() -> None:
    scores = {f"model-{number:02}": 1000.0 + 20 * number for number in range(30)}
    ranking = rank(drawn_votes(scores, 3000))
    assert len(ranking.standings) == 30
    found = [standing.score for standing in ranking.standings]
    assert np.corrcoef(found, [scores[standing.name] for standing in ranking.standings])[0, 1] > 0.9
