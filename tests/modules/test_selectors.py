"""Thompson and softmax choices: how often what is chosen, and for how long a critic is followed."""

import copy
import math

import pytest
import torch
from tensordict import TensorDict

from o3f.evaluation.playing import isolated
from o3f.modules import Argmax, EnsembleQValue, OptimisticActor, Softmax, Thompson, gaussian_policy

ROWS = 20_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values_of(values: list[list[float]], rows: int = ROWS) -> TensorDict:
    """The same candidates' values ``[N, m]`` in every row."""
    return TensorDict({"candidate_values": torch.tensor(values).expand(rows, -1, -1)}, [rows])


def frequencies(td: TensorDict, selector: torch.nn.Module) -> list[float]:
    count = td["scores"].shape[-1]
    td["candidates"] = torch.arange(count, dtype=torch.float32)[:, None].expand(len(td), count, 1)
    chosen = selector(td)["action"].squeeze(-1)
    return [(chosen == i).float().mean().item() for i in range(count)]


def test_thompson_chooses_as_often_as_critics_prefer():
    """Candidate 0 is best for one of four critics, 1 for two, 2 for one."""
    td = values_of([[9.0, 0.0, 1.0, 0.0], [1.0, 5.0, 2.0, 1.0], [0.0, 1.0, 0.0, 2.0]])
    td = Thompson("step", generator=seeded())(td)
    best = td["scores"].argmax(-1)
    found = [(best == i).float().mean().item() for i in range(3)]
    assert found == pytest.approx([0.25, 0.5, 0.25], abs=4 * math.sqrt(0.25 / ROWS))


def test_thompson_scores_are_those_of_one_critic():
    values = torch.randn(7, 5, 3)
    scores = Thompson("step", generator=seeded())(TensorDict({"candidate_values": values}, [7]))["scores"]
    for row in range(7):
        assert any(torch.equal(scores[row], values[row, :, j]) for j in range(3))


def test_thompson_follows_a_critic_until_the_episode_ends():
    scorer = Thompson(generator=seeded())
    assert "is_init" in scorer.in_keys
    values = torch.arange(200.0).expand(4, 1, 200)  # the score tells which critic it is

    def followed(*starts: bool) -> torch.Tensor:
        entries = {"candidate_values": values, "is_init": torch.tensor(starts)[:, None]}
        return scorer(TensorDict(entries, [4]))["scores"].squeeze(-1)

    first = followed(True, True, True, True)
    assert len(set(first.tolist())) > 1
    assert torch.equal(followed(False, False, False, False), first)
    second = followed(False, True, False, False)
    assert second[1] != first[1]
    assert torch.equal(second[[0, 2, 3]], first[[0, 2, 3]])


def test_an_evaluation_does_not_disturb_what_is_followed():
    actor = OptimisticActor(gaussian_policy(3, 2, (8,)), EnsembleQValue(3, 2, 50, (8,)), scorer=Thompson())
    td = TensorDict({"observation": torch.zeros(1, 3), "is_init": torch.ones(1, 1, dtype=torch.bool)}, [1])
    actor(td.clone())
    held = actor.scorer._held._held.clone()
    with isolated(actor, 3):
        for _ in range(5):
            actor(td.clone())
    assert torch.equal(actor.scorer._held._held, held)


def test_thompson_needs_to_know_when_episodes_begin():
    with pytest.raises(KeyError, match="InitTracker"):
        Thompson()(TensorDict({"candidate_values": torch.zeros(1, 2, 3)}, [1]))
    with pytest.raises(ValueError, match="per must be one of"):
        Thompson("week")


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_softmax_frequencies(temperature: float):
    scores = torch.tensor([0.0, 1.0, -0.5])
    td = TensorDict({"scores": scores.expand(ROWS, 3)}, [ROWS])
    expected = [math.exp(s / temperature) for s in scores.tolist()]
    expected = [e / sum(expected) for e in expected]
    assert frequencies(td, Softmax(temperature, generator=seeded())) == pytest.approx(expected, abs=0.0142)


def test_softmax_between_two_actions_is_policy_expansion():
    """Ten times the values as logits: a difference of 0.1 is chosen with probability sigmoid(1)."""
    td = TensorDict({"scores": torch.tensor([0.3, 0.2]).expand(ROWS, 2)}, [ROWS])
    assert frequencies(td, Softmax(0.1, generator=seeded()))[0] == pytest.approx(0.731059, abs=0.0126)


def test_softmax_at_temperature_zero_is_the_argmax_and_skips_nan():
    scores = torch.tensor([[1.0, 3.0, float("nan")], [float("nan"), -2.0, -5.0]])
    td = TensorDict({"scores": scores, "candidates": torch.arange(6.0).reshape(2, 3, 1)}, [2])
    assert Softmax(0.0)(td.clone())["action"].flatten().tolist() == [1.0, 4.0]
    for _ in range(20):
        assert set(Softmax(100.0)(td.clone())["action"].flatten().tolist()) <= {0.0, 1.0, 4.0, 5.0}
    td["scores"].fill_(float("nan"))
    with pytest.raises(RuntimeError, match="NaN"):
        Softmax(1.0)(td)
    for temperature in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature must be a number in"):
            Softmax(temperature)


@pytest.mark.parametrize("make", [lambda g: Thompson("step", generator=g), lambda g: Softmax(1.0, generator=g)])
def test_a_generator_is_saved(make):
    td = TensorDict(
        {
            "candidate_values": torch.randn(50, 4, 30),
            "scores": torch.randn(50, 4),
            "candidates": torch.randn(50, 4, 2),
        },
        [50],
    )
    module, other = make(seeded(1)), make(seeded(2))
    module(td.clone())
    other.load_state_dict(copy.deepcopy(module.state_dict()))
    key = module.out_keys[0]
    assert torch.equal(module(td.clone())[key], other(td.clone())[key])


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("selector", [Argmax(), Softmax()])
def test_scores_of_another_number_of_candidates_are_refused(selector, count):
    td = TensorDict({"candidates": torch.zeros(1, 3, 1), "scores": torch.zeros(1, count)}, [1])
    with pytest.raises(ValueError, match=rf"wrote scores \[1, {count}\], expected \[1, 3\]"):
        selector(td)
