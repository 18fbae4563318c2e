"""The page on large models, on eight devices; `test_shard_map.py` runs it in a process that has them."""

from pathlib import Path

import jax
import numpy as np

from test_docs import blocks, run

PAGE = Path(__file__).parents[1] / "docs" / "howto" / "large_models.md"

assert jax.device_count() == 8, "run me through test_shard_map.py"


def test_a_decoder_split_over_eight_devices_is_explained_as_on_one() -> None:
    """The page itself compares the relevance with that on one device."""
    namespace: dict = {"__name__": "__main__"}
    for line, source in blocks(PAGE.read_text(encoding="utf-8")):
        run(source, namespace, PAGE.name, line)
    assert namespace["mesh"].shape == {"data": 2, "model": 4}
    layers = namespace["variables"]["params"]["layers"]
    for name in ("q", "k", "v", "o", "gate", "up", "down"):
        kernel = layers[name]["kernel"]
        held = {shard.device: shard.data.size for shard in kernel.addressable_shards}
        assert held == dict.fromkeys(jax.devices(), kernel.size // 8)
    assert len(namespace["result"].sharding.device_set) == 8
    assert len(namespace["whole"].sharding.device_set) == 1
    assert np.abs(namespace["whole"]).max() > 1e-3
