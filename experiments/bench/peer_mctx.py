"""mctx at the same work: networks of the same size, as many actions a node.

This file is a small server for an environment of its own and imports nothing of ours. Each line of its input
is a setting as JSON, each line of its output what one call of the policy took. `make bench-mctx` makes the
environment; `forethought bench planner peer=.venv-mctx/bin/python` asks.

Two ways in which a node gets its chunks, the same as on our side:

* ``shared``: drawn once per decision, every node chooses among them. Nothing is drawn inside the search.
* ``sampled``: every node has its own (Sampled MuZero, arXiv 2104.06303) around the policy's samples, with a
  kernel that moves all steps of a chunk together. A node keeps the key that they are drawn with, so that only
  the one that is tried is made; the prior is uniform, as for samples of the prior. (Drawing
  all and keeping them in the embedding is several times slower.)
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from typing import Any, NamedTuple

BANDWIDTH = 0.08


class Setting(NamedTuple):
    """One line of input.

    Attributes:
        batch: Trees side by side.
        simulations: Of one decision; each evaluates one new node.
        actions: ``shared`` or ``sampled``.
        rule: ``gumbel`` or ``puct``.
        latent, hidden, horizon, action_size, candidates: Sizes of the networks and of the actions.
    """

    batch: int
    simulations: int
    actions: str
    rule: str = "gumbel"
    latent: int = 128
    hidden: int = 256
    horizon: int = 8
    action_size: int = 7
    candidates: int = 16


def build(setting: Setting) -> Any:
    """A compiled function of a seed that makes one decision and waits for it."""
    import jax  # pyright: ignore[reportMissingImports]
    import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
    import mctx  # pyright: ignore[reportMissingImports]

    size = setting.horizon * setting.action_size

    def layers(key: Any, inputs: int, outputs: int) -> list[Any]:
        widths = [inputs, setting.hidden, setting.hidden, outputs]
        keys = jax.random.split(key, 3)
        return [
            (jax.random.normal(k, (a, b)) / a**0.5, jnp.zeros(b)) for k, a, b in zip(keys, widths, widths[1:])
        ]

    def forward(network: list[Any], x: Any) -> Any:
        for weight, bias in network[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return x @ network[-1][0] + network[-1][1]

    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    parameters = layers(keys[0], setting.latent + size, setting.latent), layers(keys[1], setting.latent, 1)
    latent = jax.random.normal(keys[2], (setting.batch, setting.latent))
    samples = jax.random.uniform(keys[3], (setting.batch, setting.candidates, size), minval=-0.8, maxval=0.8)

    def drawn(keys: Any, action: Any) -> Any:
        """Of the chunks that nodes drew with their keys, the chosen one; the others need not be made."""
        centre = samples[jnp.arange(setting.batch), action]
        if setting.actions == "shared":
            return centre
        own = jax.vmap(jax.random.fold_in)(keys, action)
        noise = jax.vmap(lambda k: jax.random.normal(k, (1 + setting.horizon, setting.action_size)))(own)
        mixed = BANDWIDTH * (0.92 * noise[:, :1] + 0.39 * noise[:, 1:])
        return jnp.clip(centre + mixed.reshape(centre.shape), -1.0, 1.0)

    def value(parameters: Any, latent: Any) -> Any:
        return jax.nn.sigmoid(forward(parameters[1], latent)[:, 0])

    def recurrent(parameters: Any, key: Any, action: Any, embedding: Any) -> Any:
        state, keys = embedding
        chosen = drawn(keys, action)
        after = jnp.tanh(forward(parameters[0], jnp.concatenate([state, chosen], axis=1)))
        output = mctx.RecurrentFnOutput(
            reward=jnp.zeros(setting.batch),
            discount=jnp.full(setting.batch, 0.9),
            prior_logits=jnp.zeros((setting.batch, setting.candidates)),
            value=value(parameters, after),
        )
        if setting.actions == "sampled":
            keys = jax.random.split(key, setting.batch)
        return output, (after, keys)

    @jax.jit
    def decide(key: Any) -> Any:
        first, inside = jax.random.split(key)
        root = mctx.RootFnOutput(
            prior_logits=jnp.zeros((setting.batch, setting.candidates)),
            value=value(parameters, latent),
            embedding=(latent, jax.random.split(first, setting.batch)),
        )
        policy = mctx.gumbel_muzero_policy if setting.rule == "gumbel" else mctx.muzero_policy
        output = policy(parameters, inside, root, recurrent, setting.simulations)
        visited = output.search_tree.node_visits > 0
        return output.action, visited.sum(axis=1) - 1

    def run(seed: int) -> int:
        action, evaluated = decide(jax.random.PRNGKey(seed))
        action.block_until_ready()
        return int(evaluated.sum())

    return run


built = functools.lru_cache(maxsize=None)(build)


def main() -> None:
    """Answers every line of the input: seconds by both clocks, and distinct evaluations."""
    if os.environ.get("PEER_THREADS") == "1":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for number, line in enumerate(sys.stdin):
        setting = Setting(**json.loads(line))
        fresh = built.cache_info().misses
        run = built(setting)
        if built.cache_info().misses > fresh:
            run(0)  # compiles
        wall, cpu = time.perf_counter(), time.process_time()
        evaluated = run(number)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"wall": wall, "cpu": cpu, "evaluated": evaluated}), flush=True)


if __name__ == "__main__":
    main()
