"""All architectures of the zoo, by name."""

from __future__ import annotations

from zoo import (
    convolutional,
    generative,
    graphs,
    recurrent,
    state_space,
    transformers_linen,
    transformers_nnx,
    vision_linen,
)
from zoo.entries import Entry

ZOO: dict[str, Entry] = {
    name: entry
    for module in (
        transformers_linen,
        transformers_nnx,
        vision_linen,
        convolutional,
        recurrent,
        state_space,
        graphs,
        generative,
    )
    for name, entry in module.FAMILY.items()
}

# Also explained without `jit`, operation by operation, which costs seconds each.
EAGER = frozenset(
    {"llama", "nnx_vit", "lstm", "nnx_gru", "early_exit", "mamba", "gcn", "experts_top"}
)

# `jax.nn.dot_product_attention`, which NNX uses too, has its weights in float32.
SINGLE = frozenset(
    {"fused_attention", "nnx_vit", "nnx_vit_remat", "nnx_vit_scan", "nnx_llama", "nnx_perceiver"}
)

# What fails, by the name of the check or of the preset, and why. A check that passes must leave.
KNOWN: dict[str, dict[str, str]] = {}

KNOWN_TWINS: dict[str, str] = {}
