"""GaussianCandidates and NoiseSource: where candidates lie, and where their randomness comes from."""

import copy
import multiprocessing
import os
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from o3f.modules import GaussianCandidates, NoiseSource


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def around(action: torch.Tensor, sampler: GaussianCandidates) -> torch.Tensor:
    return sampler(TensorDict({"action": action}, action.shape[:-1]))["candidates"]


def test_moments_per_dimension():
    sampler = GaussianCandidates(200_000, sigma=[0.1, 0.02, 0.0], generator=seeded())
    centre = torch.tensor([0.3, -0.2, 0.5])
    noise = around(centre, sampler) - centre
    error = 4 * torch.tensor([0.1, 0.02, 0.0]) / 200_000**0.5
    assert (noise.mean(0).abs() <= error + 1e-7).all()
    assert ((noise.std(0) - torch.tensor([0.1, 0.02, 0.0])).abs() <= error / 2**0.5 + 1e-7).all()
    assert abs(torch.corrcoef(noise[:, :2].T)[0, 1]) < 4 / 200_000**0.5


def test_candidates_are_the_clipped_sum_of_centre_and_noise():
    centre = torch.tensor([[0.9, -0.9], [0.0, 0.0]])
    noise = torch.randn(2, 4, 2, generator=seeded(3))
    expected = (centre.unsqueeze(1) + 0.2 * noise).clamp(-1, 1)
    assert torch.equal(around(centre, GaussianCandidates(4, 0.2, generator=seeded(3))), expected)
    torch.manual_seed(3)
    assert torch.equal(around(centre, GaussianCandidates(4, 0.2)), expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    bounds=st.lists(st.tuples(st.floats(-3, 3), st.floats(0.2, 4)), min_size=1, max_size=4),
    where=st.floats(0, 1),
    sigma=st.floats(0, 5),
    margin=st.floats(0, 0.09),
    seed=st.integers(0, 2**31),
)
def test_every_candidate_lies_within_the_bounds(bounds, where, sigma, margin, seed):
    low = torch.tensor([b for b, _ in bounds])
    high = low + torch.tensor([w for _, w in bounds])
    centre = low + where * (high - low)
    sampler = GaussianCandidates(
        20, sigma, low=low, high=high, clip_margin=margin, include_base=True, generator=seeded(seed)
    )
    candidates = around(centre, sampler)
    assert (candidates >= low + margin).all()
    assert (candidates <= high - margin).all()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_any_batch_shape(batch):
    action = torch.rand(*batch, 2)
    candidates = around(action, GaussianCandidates(7, 0.1))
    assert candidates.shape == (*batch, 7, 2)
    assert ((candidates - action.unsqueeze(-2)).abs() < 0.7).all()


def test_sigma_zero_repeats_the_action_bit_for_bit():
    action = torch.rand(5, 2) * 2 - 1
    assert torch.equal(around(action, GaussianCandidates(3, 0.0)), action.unsqueeze(1).expand(5, 3, 2))


def test_include_base_leaves_the_first_candidate_without_noise():
    action = torch.rand(5, 2)
    candidates = around(action, GaussianCandidates(4, 0.3, include_base=True))
    assert candidates.shape == (5, 4, 2)
    assert torch.equal(candidates[:, 0], action)
    assert (candidates[:, 1:] != action.unsqueeze(1)).any(-1).all()


def test_a_centre_for_each_candidate():
    centres = torch.rand(3, 4, 2) - 0.5
    sampler = GaussianCandidates(4, 0.0, centre="sample_per_candidate")
    td = TensorDict({"action": centres}, [3])
    assert torch.equal(sampler(td)["candidates"], centres)


def test_nested_keys():
    sampler = GaussianCandidates(4, 0.0, action_key=("agent", "action"), out_key=("agent", "near"))
    td = TensorDict({"agent": {"action": torch.full((2, 1), 0.5)}}, [2])
    assert sampler(td)["agent", "near"].unique().tolist() == [0.5]


def test_sigma_can_be_scheduled():
    sampler = GaussianCandidates(1000, 0.0, generator=seeded())
    sampler.sigma.fill_(0.1)
    assert around(torch.zeros(1), sampler).std().item() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_candidates": 0},
        {"num_candidates": 2.5},
        {"num_candidates": 10.0},
        {"num_candidates": float("nan")},
        {"num_candidates": float("inf")},
        {"num_candidates": "ten"},
        {"sigma": []},
        {"sigma": torch.full((100, 1), 0.1)},
        {"sigma": float("inf")},
        {"sigma": -0.1},
        {"sigma": [0.1, -0.1]},
        {"sigma": float("nan")},
        {"centre": "middle"},
        {"low": 1.0, "high": 1.0},
        {"clip_margin": 1.0},
        {"clip_margin": -0.1},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        GaussianCandidates(**arguments)


@pytest.mark.parametrize("name", ["sigma", "low"])
def test_a_setting_of_another_width_widens_no_action(name):
    given = {"sigma": [0.1, 0.2, 0.3]} if name == "sigma" else {"low": [-0.5] * 3, "high": [0.5] * 3}
    with pytest.raises(ValueError, match=rf"{name} must be one number or 1, one per dimension, got .* shape \[3\]"):
        around(torch.zeros(4, 1), GaussianCandidates(5, **given))
    assert around(torch.zeros(4, 3), GaussianCandidates(5, **given)).shape == (4, 5, 3)
    assert around(torch.zeros(4, 3), GaussianCandidates(5, [0.1])).shape == (4, 5, 3)


def test_a_generator_is_saved_as_a_tensor_and_restored(tmp_path):
    sampler = GaussianCandidates(4, 0.2, generator=seeded(5))
    around(torch.zeros(2), sampler)
    torch.save(sampler.state_dict(), tmp_path / "state.pt")
    expected = around(torch.zeros(2), sampler)
    other = GaussianCandidates(4, 0.2, generator=seeded(6))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(around(torch.zeros(2), other), expected)


def test_a_state_saved_with_a_generator_does_not_fit_a_module_without_one():
    with_generator, without = GaussianCandidates(generator=seeded()), GaussianCandidates()
    with pytest.raises(ValueError, match="from a generator, this one draws it from torch's global stream"):
        without.load_state_dict(with_generator.state_dict())
    with pytest.raises(ValueError, match="from torch's global stream, this one draws it from a generator"):
        with_generator.load_state_dict(without.state_dict())


def test_a_deep_copy_goes_on_alone_from_the_same_state():
    sampler = GaussianCandidates(4, 0.2, generator=seeded(5))
    around(torch.zeros(2), sampler)
    copied = copy.deepcopy(sampler)
    first = around(torch.zeros(2), copied)
    assert torch.equal(around(torch.zeros(2), sampler), first)
    assert not torch.equal(around(torch.zeros(2), sampler), first)


def test_a_generator_leaves_the_global_stream_alone():
    before = torch.get_rng_state()
    around(torch.zeros(2), GaussianCandidates(4, 0.2, generator=seeded()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("started_by", ["multiprocessing", "something else"])
def test_a_copy_in_another_process_draws_other_numbers_reproducibly(monkeypatch, started_by):
    """Simulates workers: of multiprocessing, known by their names, or others, known by their seeds."""
    here = NoiseSource(seeded(5))
    sent, like, drawn = pickle.dumps(here), torch.zeros(()), []
    parent = multiprocessing.current_process() if started_by == "multiprocessing" else None
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    for process, identity in ((-1, 1), (-2, 2), (-3, 1)):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        monkeypatch.setattr(torch, "initial_seed", lambda identity=identity: identity)
        monkeypatch.setattr(multiprocessing.current_process(), "name", f"Process-{identity}")
        worker = pickle.loads(sent)
        numbers = [worker.normal((8,), like)]
        reseeded = worker.generator
        drawn.append(torch.stack([*numbers, worker.normal((8,), like)]))
        assert worker.generator is reseeded
    monkeypatch.undo()
    one, two, one_again = drawn
    assert torch.equal(one, one_again)
    assert not torch.isclose(one, two).any()
    assert not torch.isclose(one[0], one[1]).any()
    assert not torch.isclose(here.normal((8,), like), one[0]).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_generator_follows_a_change_of_device():
    source = NoiseSource(seeded(5))
    like = torch.zeros((), device="cuda")
    first, second = source.normal((8,), like=like), source.normal((8,), like=like)
    assert first.device == like.device
    assert not torch.equal(first, second)
    other = NoiseSource(seeded(5))
    assert torch.equal(other.normal((8,), like=like), first)
    fresh = NoiseSource(seeded(0))
    fresh.load_state_dict(source.state_dict())
    assert torch.equal(fresh.normal((8,), like=like), source.normal((8,), like=like))
