"""The order of samples: each image once, the same on any number of ranks, and again after a resume."""

import itertools

import numpy as np
import pytest

from detkit.data.loading.sampler import InOrderSampler, KeySampler, SampleKey, multi_scale_sizes, stream
from detkit.errors import DataError

HW = (64, 64)


def rows_of(batches: list[list[SampleKey]]) -> list[list[int]]:
    return [[key.row for key in batch] for batch in batches]


def at_epoch(sampler: KeySampler, epoch: int) -> KeySampler:
    sampler.move_to(epoch)
    return sampler


def test_golden_draws() -> None:
    """Philox under a SeedSequence of (seed, stream, epoch, ...): what numpy promises, and resumes rely on."""
    [batch] = list(at_epoch(KeySampler(10, 10, (HW,), seed=7), 3))
    assert [key.row for key in batch] == [5, 8, 7, 4, 6, 2, 1, 3, 9, 0]
    assert stream(7, 1, 3, 5).random(2).tolist() == [0.8835636202441979, 0.9690727207389427]


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_shows_an_image_once(epoch: int) -> None:
    batches = list(at_epoch(KeySampler(23, 4, (HW,)), epoch))
    rows = [key.row for batch in batches for key in batch]
    assert len(batches) == 5 and len(rows) == len(set(rows)) == 20  # the last 3 fill no batch
    assert {key.epoch for batch in batches for key in batch} == {epoch}


def test_epochs_and_seeds_differ() -> None:
    orders = [
        tuple(itertools.chain(*rows_of(list(at_epoch(KeySampler(40, 8, (HW,), seed=seed), epoch)))))
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 9
    left_out = [
        set(range(23)) - set(itertools.chain(*rows_of(list(at_epoch(KeySampler(23, 4, (HW,)), e))))) for e in (0, 1)
    ]
    assert left_out[0] != left_out[1]


def test_global_batches_do_not_depend_on_the_ranks() -> None:
    sizes_hw = ((64, 64), (96, 96), (128, 128))

    def global_batches(world_size: int) -> list[list[SampleKey]]:
        ranks = [
            list(at_epoch(KeySampler(101, 12 // world_size, sizes_hw, 5, rank, world_size), 2))
            for rank in range(world_size)
        ]
        return [list(itertools.chain(*shares)) for shares in zip(*ranks, strict=True)]

    alone = global_batches(1)
    assert len(alone) == 8 and all(len(batch) == 12 for batch in alone)
    assert global_batches(2) == alone and global_batches(4) == alone
    assert all(len({key.image_hw for key in batch}) == 1 for batch in alone)
    assert {batch[0].image_hw for batch in alone} == set(sizes_hw)


@pytest.mark.parametrize("done", range(6))
def test_resume_at_every_batch(done: int) -> None:
    whole = KeySampler(23, 4, ((64, 64), (96, 96)), seed=1)
    expected = [batch for epoch in (2, 3) for batch in at_epoch(whole, epoch)]
    stopped = at_epoch(KeySampler(23, 4, ((64, 64), (96, 96)), seed=1), 2)
    for _ in range(done):
        stopped.batch_done()
    resumed = KeySampler(23, 4, ((64, 64), (96, 96)), seed=1)
    resumed.load_state_dict(stopped.state_dict())
    stream_of_rest = []
    while resumed.epoch < 4:
        for batch in list(resumed):
            resumed.batch_done()
            stream_of_rest.append(batch)
    assert stream_of_rest == expected[done:]
    assert resumed.state_dict() == {"epoch": 4, "batches_done": 0}


def test_set_epoch_keeps_the_place_in_the_same_epoch_only() -> None:
    sampler = KeySampler(23, 4, (HW,))
    sampler.move_to(1, 3)
    sampler.set_epoch(1)
    assert sampler.state_dict() == {"epoch": 1, "batches_done": 3}
    sampler.set_epoch(2)
    assert sampler.state_dict() == {"epoch": 2, "batches_done": 0}
    assert len(sampler) == 5


def test_a_place_that_an_epoch_does_not_have() -> None:
    with pytest.raises(DataError, match="stopped after 6 batches of an epoch, which now has 5"):
        KeySampler(23, 4, (HW,)).move_to(0, 6)


@pytest.mark.parametrize(("world_size", "share"), [(1, 5), (2, 2), (5, 1)])
def test_a_set_smaller_than_a_batch(world_size: int, share: int) -> None:
    samplers = [KeySampler(5, 16, (HW,), 0, rank, world_size) for rank in range(world_size)]
    batches = [list(sampler) for sampler in samplers]
    assert [len(own) for own in batches] == [1] * world_size
    rows = [key.row for own in batches for key in own[0]]
    assert len(rows) == len(set(rows)) == share * world_size


def test_more_ranks_than_images() -> None:
    with pytest.raises(DataError, match="3 training images are too few for 4 processes"):
        KeySampler(3, 1, (HW,), world_size=4)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize("num_images", [1, 2, 7, 16, 33])
def test_validation_sees_every_image_once(num_images: int, batch_size: int, world_size: int) -> None:
    samplers = [InOrderSampler(num_images, batch_size, HW, rank, world_size) for rank in range(world_size)]
    batches = [list(sampler) for sampler in samplers]
    assert len({len(own) for own in batches}) == 1 and len(samplers[0]) == len(batches[0])
    assert all(1 <= len(batch) <= batch_size for own in batches for batch in own)
    rows = [key.row for own in batches for batch in own for key in batch]
    assert sorted(set(rows)) == list(range(num_images))
    per_rank = -(-num_images // world_size)
    if num_images >= world_size * -(-per_rank // batch_size):  # every rank has an image for each batch
        assert len(rows) == num_images
    if world_size == 1:
        assert rows == list(range(num_images))


def test_sizes_of_multi_scale() -> None:
    assert multi_scale_sizes((640, 640), (0.75, 1.25)) == tuple((32 * k, 32 * k) for k in range(15, 26))
    assert multi_scale_sizes((64, 128), (0.5, 1.5)) == ((32, 64), (64, 128), (96, 192))
    assert multi_scale_sizes((64, 64), None) == ((64, 64),)
    assert multi_scale_sizes((64, 64), (1.1, 1.2)) == ()


def test_streams_do_not_meet() -> None:
    draws = [stream(0, number, 0, other).integers(2**62) for number in range(3) for other in range(50)]
    assert len(set(np.array(draws).tolist())) == 150
