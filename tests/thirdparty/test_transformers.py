"""The Flax models of Hugging Face transformers, brought as a user would, without a line for any of them.

Optional: `pip install "transformers==4.57.*" && python -m pytest -m thirdparty`. Weights are random,
configurations small. A model is a function of parameters and input; the last position of a language
model, or the logits of a classifier, are explained.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp as lrp
from jaxlrp import composites

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
if not hasattr(transformers, "FlaxBertModel"):
    pytest.skip("this version of transformers has no Flax models", allow_module_level=True)

pytestmark = [
    pytest.mark.thirdparty,
    pytest.mark.filterwarnings("ignore"),  # of transformers, about its own future
]

RNG = np.random.default_rng(0)
IDS = jnp.asarray(RNG.integers(3, 40, (2, 8)), jnp.int32)
ENDED = IDS.at[:, -1].set(2)  # with the token of the end
PIXELS = jnp.asarray(RNG.normal(size=(2, 3, 32, 32)), jnp.float32)

ENCODER = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 32, "max_position_embeddings": 66,
}  # fmt: skip
SMALL = {**ENCODER, "embedding_size": 8}
GROUPED = {**ENCODER, "num_key_value_heads": 2}
VISION = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
TWO_SIDED = {
    "vocab_size": 50, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}  # fmt: skip
GPT = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 4}
STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}

# Name of the configuration, name of the model, hyperparameters, inputs: the first is explained.
MODELS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "BERT": ("Bert", "BertForSequenceClassification", ENCODER, {"input_ids": IDS}),
    "RoBERTa": ("Roberta", "RobertaForSequenceClassification", ENCODER, {"input_ids": IDS}),
    "ALBERT": ("Albert", "AlbertForSequenceClassification", SMALL, {"input_ids": IDS}),
    "ELECTRA": ("Electra", "ElectraForSequenceClassification", SMALL, {"input_ids": IDS}),
    "RoFormer": ("RoFormer", "RoFormerForSequenceClassification", SMALL, {"input_ids": IDS}),
    "DistilBERT": (
        "DistilBert",
        "DistilBertForSequenceClassification",
        {"vocab_size": 50, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 32},
        {"input_ids": IDS},
    ),
    "BigBird": (
        "BigBird",
        "BigBirdForSequenceClassification",
        {**ENCODER, "attention_type": "original_full"},
        {"input_ids": IDS},
    ),
    "GPT-2": ("GPT2", "GPT2LMHeadModel", GPT, {"input_ids": IDS}),
    "GPT-J": ("GPTJ", "GPTJForCausalLM", {**GPT, "rotary_dim": 4}, {"input_ids": IDS}),
    "GPT-Neo": (
        "GPTNeo",
        "GPTNeoForCausalLM",
        {
            "vocab_size": 50, "hidden_size": 16, "num_layers": 2, "num_heads": 4,
            "attention_types": [[["global", "local"], 1]], "intermediate_size": 32,
        },
        {"input_ids": IDS},
    ),
    "BLOOM": (
        "Bloom",
        "BloomForCausalLM",
        {"vocab_size": 50, "hidden_size": 16, "n_layer": 2, "n_head": 4},
        {"input_ids": IDS, "attention_mask": jnp.ones_like(IDS)},
    ),
    "XGLM": (
        "XGLM",
        "XGLMForCausalLM",
        {"vocab_size": 50, "d_model": 16, "num_layers": 2, "attention_heads": 4, "ffn_dim": 32},
        {"input_ids": IDS},
    ),
    "OPT": (
        "OPT",
        "OPTForCausalLM",
        {
            "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
            "ffn_dim": 32, "word_embed_proj_dim": 16,
        },
        {"input_ids": IDS},
    ),
    "Llama": ("Llama", "LlamaForCausalLM", GROUPED, {"input_ids": IDS}),
    "Mistral": ("Mistral", "MistralForCausalLM", GROUPED, {"input_ids": IDS}),
    "Gemma": ("Gemma", "GemmaForCausalLM", {**GROUPED, "head_dim": 4}, {"input_ids": IDS}),
    "BART": ("Bart", "BartForConditionalGeneration", TWO_SIDED, {"input_ids": ENDED}),
    "Pegasus": (
        "Pegasus",
        "PegasusForConditionalGeneration",
        TWO_SIDED,
        {"input_ids": ENDED, "decoder_input_ids": IDS},
    ),
    "Whisper": (
        "Whisper",
        "WhisperForAudioClassification",
        {**TWO_SIDED, "num_mel_bins": 8, "max_source_positions": 16, "classifier_proj_size": 8},
        {"input_features": jnp.asarray(RNG.normal(size=(2, 8, 32)), jnp.float32)},
    ),
    "wav2vec 2.0": (
        "Wav2Vec2",
        "Wav2Vec2ForCTC",
        {
            "vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 32, "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3),
            "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
            "do_stable_layer_norm": True, "feat_extract_norm": "layer",
        },
        {"input_values": jnp.asarray(RNG.normal(size=(2, 400)), jnp.float32)},
    ),
    "ViT": ("ViT", "ViTForImageClassification", VISION, {"pixel_values": PIXELS}),
    "BEiT": ("Beit", "BeitForImageClassification", VISION, {"pixel_values": PIXELS}),
    "DINOv2": ("Dinov2", "Dinov2ForImageClassification", VISION, {"pixel_values": PIXELS}),
    "CLIP, vision": ("CLIPVision", "CLIPVisionModel", VISION, {"pixel_values": PIXELS}),
    "CLIP, text": ("CLIPText", "CLIPTextModel", {**ENCODER, "eos_token_id": 2}, {"input_ids": ENDED}),
    "ResNet": ("ResNet", "ResNetForImageClassification", STAGES, {"pixel_values": PIXELS}),
    "RegNet": (
        "RegNet",
        "RegNetForImageClassification",
        {**STAGES, "groups_width": 8},
        {"pixel_values": PIXELS},
    ),
}  # fmt: skip


def load(name: str) -> tuple[Any, Any, jax.Array]:
    """(a function of (parameters, input) to logits (2, K), parameters that are not degenerate, input)."""
    config, cls, options, inputs = MODELS[name]
    made = getattr(transformers, f"{config}Config")(**options)
    model = getattr(transformers, f"Flax{cls}")(made, seed=0)
    explained, *rest = inputs
    rng = np.random.default_rng(1)

    def drawn(leaf: jax.Array) -> jax.Array:
        return jnp.asarray(2 * np.asarray(leaf) + 0.1 * rng.normal(size=leaf.shape), leaf.dtype)

    def logits(params: Any, x: jax.Array) -> jax.Array:
        out = model(**{explained: x}, **{key: inputs[key] for key in rest}, params=params)
        found = out.logits if hasattr(out, "logits") else out.pooler_output
        return found[:, -1] if found.ndim == 3 else found

    return logits, jax.tree.map(drawn, model.params), inputs[explained]


@pytest.mark.parametrize("name", MODELS)
def test_explained_as_it_is(name):
    logits, params, x = load(name)
    expected = logits(params, x)
    for composite in (None, composites.attnlrp(), composites.epsilon_plus()):
        explain = lrp.explain(logits, composite, argnums=1)
        result = explain(params, x, target=1)
        # compiled, so that XLA may fuse differently
        np.testing.assert_allclose(result.output, expected, rtol=1e-4, atol=1e-5)
        assert result.relevance.shape == x.shape
        assert np.isfinite(result.relevance).all()
        assert np.abs(result.relevance).max() > 0
    alone = explain(params, x, target=jnp.array([1, 0])).relevance
    np.testing.assert_allclose(
        alone[0], result.relevance[0], rtol=1e-3, atol=1e-5 * np.abs(alone).max()
    )
