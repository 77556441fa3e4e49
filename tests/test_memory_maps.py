"""Tests of dropping compiled programs before the memory maps run out."""

import jax
import jax.numpy as jnp
import pytest

from rlcd_jax.job import memory_maps
from rlcd_jax.paper import graph


def test_few_maps_drop_nothing():
    assert not memory_maps.drop_programs_if_many(share=1.0)


@pytest.mark.skipif(not memory_maps._OWN.exists(), reason="Linux alone tells")
def test_programs_are_dropped_and_made_again():
    double = jax.jit(lambda x: 2 * x)
    assert double(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]
    assert double._cache_size() == 1
    assert memory_maps.drop_programs_if_many(share=0.0)
    assert double._cache_size() == 0
    assert double(jnp.ones(3)).tolist() == [2.0, 2.0, 2.0]


def test_a_system_that_does_not_tell_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(memory_maps, "_OWN", tmp_path / "none")
    assert not memory_maps.drop_programs_if_many(share=0.0)


def test_a_graph_looks_after_every_node(monkeypatch):
    looks = []
    monkeypatch.setattr(graph, "needed", lambda root, nodes: list(nodes))
    monkeypatch.setattr(graph, "make_one", lambda root, node, functions: None)
    monkeypatch.setattr(graph, "name_of", str)
    monkeypatch.setattr(memory_maps, "drop_programs_if_many", lambda: looks.append(1))
    assert graph.make("root", ["a", "b"], {}) == ["a", "b"]
    assert looks == [1, 1]
