"""Tests of rlcd_jax.decode.engine: every reply is a function of its request."""

import dataclasses
import math

import engine_world as world
import jax
import numpy as np
import pytest

from rlcd_jax import sharding
from rlcd_jax.decode import engine as engine_lib
from rlcd_jax.decode import layout
from rlcd_jax.models import llama


@pytest.fixture(scope="module")
def engine():
    return world.make_engine()


@pytest.fixture(autouse=True)
def synchronous(request):
    if "engine" in request.fixturenames:
        request.getfixturevalue("engine").dispatches_ahead = 0


def assert_same(replies, expected, atol=2e-4):
    """Same tokens; log-probabilities to float32 rounding through two layers."""
    for reply, (tokens, logprobs) in zip(replies, expected, strict=True):
        assert reply.tokens == tokens
        np.testing.assert_allclose(reply.logprobs, logprobs, atol=atol)


REQUESTS = [world.request(index) for index in range(11)] + [
    world.request(11, tokens=world.prompt(1)),
    world.request(12, tokens=world.prompt(40, 5), max_new_tokens=24),  # fills the slot
    world.request(13, temperature=0.0),
    world.request(14, temperature=1.7, top_k=3),
    world.request(15, top_p=0.7),
    world.request(16, tokens=(0, 1, 1, 0, 1)),  # nothing but pads and ends
]


@pytest.fixture(scope="module")
def expected():
    return [world.oracle(one) for one in REQUESTS]


@pytest.mark.parametrize("ahead", [0, 1])
def test_generate_equals_full_forward(engine, expected, ahead):
    engine.dispatches_ahead = ahead
    replies = engine.generate(REQUESTS)
    assert [reply.id for reply in replies] == [one.id for one in REQUESTS]
    assert_same(replies, expected)


def test_generate_ignores_slots_mates_and_order(expected):
    other = world.make_engine(
        num_slots=5, steps_per_dispatch=2, prompt_buckets=(8,), prefill_tokens=16
    )
    order = np.random.RandomState(0).permutation(len(REQUESTS))
    replies = other.generate([REQUESTS[i] for i in order])
    assert_same(replies, [expected[i] for i in order])


def test_generate_alone_equals_in_a_batch(engine, expected):
    for index in (0, 5, 14):
        assert_same(engine.generate([REQUESTS[index]]), [expected[index]])


def test_generate_other_seeds_differ(engine):
    one = world.request(tokens=world.prompt(5), max_new_tokens=12)
    first = engine.generate([one])[0]
    again = engine.generate([one])[0]
    other = engine.generate([dataclasses.replace(one, seed=(0, 78))])[0]
    assert first == again
    assert first.tokens != other.tokens


def test_generate_finish_reasons(engine):
    replies = engine.generate([world.request(i, max_new_tokens=20) for i in range(24)])
    reasons = {reply.finish for reply in replies}
    assert reasons == {"eos", "length"}
    for reply in replies:
        assert (reply.tokens[-1] == world.EOS) == (reply.finish == "eos")
        assert world.EOS not in reply.tokens[:-1]
        assert reply.text == reply.raw == world.Tokenizer().decode(reply.tokens)
        assert len(reply.logprobs) == len(reply.sampled_logprobs) == len(reply.tokens)
        if reply.finish == "length":
            assert len(reply.tokens) == 20


def test_generate_stops_at_strings_across_tokens(engine):
    plain = world.request(3, max_new_tokens=20, temperature=1.5)
    plain = next(
        one
        for one in (dataclasses.replace(plain, seed=(k, 1)) for k in range(50))
        if len(world.oracle(one)[0]) == 20
    )
    tokens = world.oracle(plain)[0]
    text = world.Tokenizer().decode(tokens)
    for start in range(2, len(text) - 4, 3):
        stop = text[start : start + 4]
        reply = engine.generate(
            [dataclasses.replace(plain, stop_strings=("never seen", stop))]
        )[0]
        assert reply.finish == "stop"
        assert reply.tokens == tokens[: len(reply.tokens)]
        before = world.Tokenizer().decode(reply.tokens[:-1])
        assert stop in reply.raw and stop not in before
        assert reply.text == text[: text.find(stop)]


def test_generate_never_spells_forbidden_strings(engine):
    requests = [world.request(i, max_new_tokens=24) for i in range(12)]
    requests = [
        dataclasses.replace(one, temperature=2.0, forbidden_strings=("ab", "Human:"))
        for one in requests
    ]
    replies = engine.generate(requests)
    assert sum(len(reply.tokens) for reply in replies) > 100
    for reply in replies:
        assert "ab" not in reply.raw and "Human:" not in reply.raw
        assert reply.logprobs != reply.sampled_logprobs
    # The unmodified log-probability does not know of the ban.
    one, reply = requests[0], replies[0]
    row = world.full_logits((*one.tokens, *reply.tokens[:-1]))
    plain = row[reply.tokens[-1]] - np.log(np.exp(row - row.max()).sum()) - row.max()
    assert reply.logprobs[-1] == pytest.approx(plain, abs=2e-4)


def test_generate_forks_equal_prompts(engine):
    tokens = world.prompt(11, 3)
    requests = [world.request(i, tokens=tokens, seed=(i, 5)) for i in range(7)]
    engine.scheduler.forget()
    replies = engine.generate(requests)
    assert engine.stats["prefilled_tokens"] == 10
    assert_same(replies, [world.oracle(one) for one in requests])


def test_generate_shares_common_beginnings(engine):
    head = world.prompt(12, 4)
    requests = [
        world.request(i, tokens=head + world.prompt(2 + i % 3, 50 + i))
        for i in range(7)
    ]
    engine.scheduler.forget()
    replies = engine.generate(requests)
    assert_same(replies, [world.oracle(one) for one in requests])
    assert engine.stats["prefilled_tokens"] <= 14 + 6 * 3


def contrast_requests(alpha):
    return [
        world.request(i, contrast_tokens=world.prompt(4 + 2 * i, 90 + i), alpha=alpha)
        for i in range(5)
    ]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_generate_contrast_at_the_ends_is_ordinary(engine, alpha):
    requests = contrast_requests(alpha)
    ordinary = [
        dataclasses.replace(
            one,
            contrast_tokens=None,
            tokens=one.contrast_tokens if alpha else one.tokens,
        )
        for one in requests
    ]
    mixed, plain = engine.generate(requests), engine.generate(ordinary)
    assert_same(mixed, [(one.tokens, one.logprobs) for one in plain])


@pytest.mark.parametrize("alpha", [0.5, 2.5])
def test_generate_contrast_mixes_logits(engine, alpha):
    requests = contrast_requests(alpha)
    expected = [world.oracle(one) for one in requests]
    assert_same(engine.generate(requests), expected, atol=1e-3)


def test_generate_compiles_nothing_after_warm_up(engine):
    engine.warm_up()
    before, seen = engine.compiles, []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: seen.append(name) if "compile" in name else None
    )
    engine.load(world.params(1))
    for count in (1, 2, 9):
        engine.generate([world.request(i) for i in range(count)])
    engine.generate([world.request(i, tokens=world.prompt(40)) for i in range(3)])
    jax.monitoring.clear_event_listeners()
    engine.load(world.params(0))
    assert engine.compiles == before
    assert not [name for name in seen if "backend_compile" in name]


def test_weights_of_a_mesh_of_one_device_compile_nothing_twice():
    mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    made = world.make_engine(num_slots=2, steps_per_dispatch=2, live_buckets=())
    made.load(jax.device_put(world.params(), where))
    made.generate([world.request(i, max_new_tokens=2) for i in range(2)])
    before, seen = made.compiles, []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: seen.append(name) if "backend_compile" in name else None
    )
    made.generate([world.request(i, max_new_tokens=9) for i in range(2)])
    jax.monitoring.clear_event_listeners()
    assert made.compiles == before and not seen


@pytest.mark.parametrize(
    ("longest", "lives"),
    [
        (88, (88,)),
        (128, (128,)),
        (224, (128, 224)),
        (492, (128, 256, 384, 492)),
        (704, (192, 384, 576, 704)),
    ],
)
def test_a_cache_grows_in_parts_that_are_worth_a_program(longest, lives):
    made = layout.sizes(
        8,
        longest,
        mesh=None,
        kernel="xla",
        prompt_buckets=(16,),
        live_buckets=None,
        prefill_tokens=None,
    )
    assert made.lives == lives


def test_a_job_with_new_weights_begins_with_a_short_cache():
    made = world.make_engine()
    requests = [world.request(i, max_new_tokens=40) for i in range(3)]
    replies = made.generate(requests)
    assert max(len(one.tokens) for one in replies) > 24  # the cache has grown
    before = made.compiles
    made.load(world.params())
    assert [one.tokens for one in made.generate(requests)] == [
        one.tokens for one in replies
    ]
    assert made.compiles == before


def test_load_replaces_the_policy(engine):
    requests = [world.request(i, tokens=world.prompt(9, 9)) for i in range(3)]
    engine.generate(requests)
    engine.load(llama.decode_form(world.params(1), world.CFG))
    replies = engine.generate(requests)
    engine.load(world.params(0))
    assert_same(replies, [world.oracle(one, world.params(1)) for one in requests])


def test_generate_reports_progress(engine):
    seen, finished = [], []
    replies = engine.generate(
        [world.request(i) for i in range(7)],
        on_reply=finished.append,
        progress=seen.append,
    )
    assert sorted(one.id for one in finished) == [str(i) for i in range(7)]
    assert seen[-1].done == seen[-1].total == 7
    assert seen[-1].seconds_left == 0
    assert seen[-1].tokens == sum(len(reply.tokens) for reply in replies)
    assert 0 < engine.stats["occupancy"] <= 1


def test_generate_goes_on_after_a_failed_callback(engine, expected):
    def fail(_):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        engine.generate(REQUESTS, on_reply=fail)
    assert_same(engine.generate(REQUESTS[:5]), expected[:5])


def test_generate_on_eight_devices_equals_one(expected):
    mesh = sharding.make_mesh(2, 2, 2)
    sharded = world.make_engine(num_slots=4, mesh=mesh)
    contrast = contrast_requests(1.5)[:2]
    replies = sharded.generate([*REQUESTS[:10], *contrast])
    others = [world.oracle(one) for one in contrast]
    assert_same(replies, [*expected[:10], *others], atol=1e-3)


def long_after_short(num_long):
    """Short replies, then some long ones that are left when nothing waits any more."""
    short = [world.request(i, max_new_tokens=2) for i in range(9)]
    last = [world.request(20 + i, max_new_tokens=16 + 4 * i) for i in range(num_long)]
    return [*last, *short]


@pytest.mark.parametrize(("ahead", "mesh_shape"), [(0, None), (1, (1, 2, 2))])
def test_the_last_replies_move_to_fewer_slots(ahead, mesh_shape):
    mesh = None
    if mesh_shape:
        devices = jax.devices()[: math.prod(mesh_shape)]
        mesh = sharding.make_mesh(*mesh_shape, devices=devices)
    settings = {"num_slots": 8, "mesh": mesh, "dispatches_ahead": ahead}
    whole, narrow = (world.make_engine(**settings, tail_tokens=n) for n in (0, 4))
    requests = [
        *long_after_short(3),
        *(dataclasses.replace(one, alpha=1.5) for one in contrast_requests(1.5)[:1]),
    ]
    expected = whole.generate(requests)
    for _ in range(2):  # all slots are there again for the next job
        replies = narrow.generate(requests)
        assert_same(replies, [(one.tokens, one.logprobs) for one in expected], 1e-3)
        assert narrow.stats["occupancy"] > 1.2 * whole.stats["occupancy"]
    with pytest.raises(RuntimeError, match="disk full"):
        narrow.generate(requests, on_reply=fail_at_last(len(requests)))
    narrow.load(world.params(1))
    other = narrow.generate(requests[:2])
    assert_same(other, [world.oracle(one, world.params(1)) for one in requests[:2]])


def fail_at_last(count):
    seen = []

    def note(reply):
        seen.append(reply)
        if len(seen) == count:
            raise RuntimeError("disk full")

    return note


def test_replies_that_end_soon_stay_where_they_are():
    engine = world.make_engine(num_slots=8, tail_tokens=30)
    made = engine.compiles
    engine.generate(long_after_short(3))
    assert engine.compiles["decode"] - made.get("decode", 0) <= 2  # a cache size each


def test_generate_in_bfloat16_stays_near_float32(expected):
    cfg = dataclasses.replace(world.CFG, dtype="bfloat16")
    rough = engine_lib.Engine(
        cfg, world.Tokenizer(), num_slots=2, max_length=48, prompt_buckets=(8,)
    )
    rough.load(world.params())
    one = world.request(6, temperature=0.0)
    reply = rough.generate([one, world.request(2)])[0]
    wanted = world.oracle(one)[1]
    # Eight bits of mantissa through two layers and logits of some ten nats.
    assert abs(reply.logprobs[0] - wanted[0]) < 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": ()}, "no tokens"),
        ({"tokens": (len(world.PIECES),)}, "accepted: 0 to"),
        ({"max_new_tokens": 63}, "max_length=64"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_k": -1}, "top_k=-1"),
        ({"seed": (1, 2**32)}, "seed="),
        ({"stop_strings": ("x" * 200,)}, "string_states="),
        ({"stop_strings": ("",)}, "empty string"),
    ],
)
def test_generate_refuses_bad_requests(engine, change, message):
    with pytest.raises(ValueError, match=message):
        engine.generate([world.request(0), world.request(5, **change)])


def test_engine_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"GiB a device .* GiB are available"):
        world.make_engine(num_slots=64, memory_budget=100_000)
    with pytest.raises(ValueError, match="load"):
        engine_lib.Engine(
            world.CFG, world.Tokenizer(), num_slots=1, max_length=8
        ).generate([world.request(0)])
    with pytest.raises(ValueError, match="multiple of 4"):
        world.make_engine(num_slots=3, mesh=sharding.make_mesh(2, 2, 2))
