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
    {
        "bert", "llama",  "fused_attention", "nnx_vit",  "vit",  
        "map_head", "maxout", "lstm", "gru", "nnx_gru",
        "neural_ode", "early_exit",  "mamba", "linear_attention", "gcn", "gin", 
        "experts_top", "real_nvp",
    }
)  # fmt: skip

# What fails, by the name of the check or of the preset, and why. A check that passes must leave.
_SOFTMAX = "what a softmax keeps stands in no row of the ledger"
_SHIFT = "a constant subtracted across new axes stands in no row of the ledger"

KNOWN: dict[str, dict[str, str]] = {
    "prototypes": {"ledger": _SHIFT},
    "message_passing": {"ledger": "what edge features, joined to those of nodes, take stands in no row"},
    "early_exit": {"ledger": "layers in a branch stand in no row of the ledger"},
    **{
        name: {"ledger": _SOFTMAX}
        for name in (
            "bert", "alibi", "gat", "gpt_pre_norm", "gpt_post_norm", "gemma", "llama", "t5",
            "cached_step", "fused_attention",
            "nnx_vit", "nnx_vit_remat", "nnx_vit_scan", "nnx_llama", "nnx_perceiver", "vit", "vit_scan",
            "vit_remat", "vit_scan_remat", "clip", "swin", "map_head", "detr", "cross_covariance",
            "densenet", "diffusion_unet", "split_attention", "bidirectional", "seq2seq", "gated_pooling",
            "experts_dense", "experts_top", "experts_gathered", "experts_switch",
        )
    },
}  # fmt: skip

KNOWN_TWINS: dict[str, str] = {}
