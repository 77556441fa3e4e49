"""scheduler: slots get their prompts, what is shared is computed once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rlcd_jax.decode import requests, scheduler

ROWS = {(0, False): 4, (0, True): 4, (4, False): 4, (16, False): 2}
ROWS |= {(4, True): 3, (16, True): 1}


def make(num_slots=8, shards=1):
    rows = {key: shards * count for key, count in ROWS.items()}
    return scheduler.Scheduler(
        num_slots=num_slots, max_length=64, widths=(4, 16), rows=rows, shards=shards
    )


def ask(tokens, contrast=None, new=5):
    contrast = None if contrast is None else tuple(contrast)
    return requests.Request("x", tuple(tokens), (0, 0), new, contrast_tokens=contrast)


class Device:
    """Plays the passes on lists, as the device would on keys and values."""

    def __init__(self, num_slots, shards=1):
        self.own, self.shards = num_slots // shards, shards
        self.slots = [[] for _ in range(num_slots)]
        self.computed = 0

    def run(self, one):
        parts = [work.target // self.own for work in one.works]
        most = ROWS[one.width, one.copies]
        assert all(parts.count(part) <= most for part in range(self.shards))
        for work in one.works:  # nothing goes from one part to another
            assert not work.offset or work.source // self.own == work.target // self.own
        read = [self.slots[work.source][: work.offset] for work in one.works]
        for work, start in zip(one.works, read, strict=True):
            assert len(start) == work.offset and (one.copies or not start)
            assert len(work.tokens) <= one.width
            self.slots[work.target] = start + work.tokens.tolist()
            self.computed += len(work.tokens)


prompts = st.lists(st.integers(0, 1), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(prompts, st.none() | prompts), min_size=1, max_size=20),
    st.sampled_from([1, 2, 4]),
)
def test_place_gives_every_slot_its_prompt(jobs, shards):
    plan, device, served = make(shards=shards), Device(8, shards), []
    plan.add([ask(tokens, contrast) for tokens, contrast in jobs])
    while plan.waiting or plan.active():
        placed, passes = plan.place()
        for one in passes:
            device.run(one)
        for occupant in placed:
            for slot, prompt in zip(
                occupant.slots, occupant.request.prompts, strict=True
            ):
                assert tuple(device.slots[slot][: len(prompt) - 1]) == prompt[:-1]
        served += [occupant.index for occupant in placed]
        plan.release(plan.active()[0])
    assert served == list(range(len(jobs)))


def test_place_computes_a_shared_prompt_once():
    plan, device = make(), Device(8)
    tokens = list(range(30))
    plan.add([ask(tokens)] * 8)
    for one in plan.place()[1]:
        device.run(one)
    assert device.computed == 29


def test_place_computes_a_common_beginning_once():
    plan, device = make(), Device(8)
    head = list(range(32))
    plan.add([ask([*head, 90, 91], [*head, 80, 81, 82])])
    for one in plan.place()[1]:
        device.run(one)
    assert device.computed == 33 + 2


def test_forget_makes_prompts_new():
    plan, device = make(), Device(8)
    plan.add([ask(range(20))])
    plan.place()
    plan.release(plan.active()[0])
    plan.forget(beyond=16)
    plan.add([ask(range(20))])
    for one in plan.place()[1]:
        device.slots[0] = list(range(16))
        device.run(one)
    assert device.computed == 3


def test_place_waits_for_a_whole_program():
    plan = make()
    plan.add([ask(range(10 + i, 14 + i)) for i in range(30)])
    assert len(plan.place()[0]) == 8
    plan.release(plan.active()[0])
    assert plan.place() == ([], [])
    plan.release(plan.active()[0])
    assert len(plan.place()[0]) == 2


def test_needed_follows_the_longest_reply():
    plan = make()
    plan.add([ask(range(10), new=3), ask(range(4), new=20)])
    plan.place()
    assert plan.needed(2) == 11
    for _ in range(4):
        plan.advance(2)
    assert plan.needed(2) == 3 + 10
    for _ in range(6):
        plan.advance(2)
    assert plan.needed(2) == 23 and not plan.unfinished()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(prompts, st.none() | prompts), min_size=1, max_size=8),
    st.sampled_from([1, 2, 4]),
    st.data(),
)
def test_narrow_keeps_what_goes_on_in_its_part(jobs, shards, data):
    plan, device = make(16, shards), Device(16, shards)
    plan.add([ask(tokens, contrast) for tokens, contrast in jobs])
    for one in plan.place()[1]:
        device.run(one)
    assert not plan.waiting
    for one in data.draw(st.lists(st.sampled_from(plan.active()), unique_by=id)):
        plan.release(one)
    fewest, going = plan.fitting(), [one.index for one in plan.active()]
    assert fewest <= 16 and fewest % shards == 0
    before = {one.index: one.slots for one in plan.active()}
    were = plan.narrow(fewest)
    assert len(set(were.tolist())) == len(were) == fewest
    assert sorted(one.index for one in plan.active()) == sorted(going)
    for one in plan.active():
        assert tuple(were[slot] for slot in one.slots) == before[one.index]
        for slot, prompt in zip(one.slots, one.request.prompts, strict=True):
            assert slot // (fewest // shards) == were[slot] // (16 // shards)
            held = device.slots[were[slot]]
            assert tuple(held[: len(prompt) - 1]) == prompt[:-1]
    for one in plan.active():
        plan.release(one)
    assert plan.fitting() == shards
    plan.reset(16)
    plan.add([ask(range(20))] * 16)
    assert len(plan.place()[0]) == 16


def test_nothing_narrows_while_requests_wait():
    plan = make()
    plan.add([ask(range(10 + i, 14 + i), new=30) for i in range(9)])
    plan.place()
    assert plan.fitting() == 8 and plan.left() == 30
    for one in plan.active()[1:]:
        plan.release(one)
    assert plan.fitting() == 8  # the ninth
    plan.place()
    assert plan.fitting() == 2
    plan.advance(4)
    assert plan.left() == 26
