"""JAX models and explainers in Quantus, without PyTorch or TensorFlow.

    import quantus
    from jaxlrp.metrics import quantus as bridge

    model = bridge.quantus_model(module.apply, variables)
    with bridge.accepted():
        scores = quantus.PixelFlipping()(
            model=model, x_batch=bridge.channels_first(x), y_batch=y, channel_first=True,
            explain_func=bridge.explain_func(explainer),
        )

Quantus stores images as (n, channels, height, width) and signals as (n, channels, length). Models and
explainers of jaxlrp get them channels-last, unless the model says otherwise.

This needs quantus 0.6. Quantus only accepts PyTorch and TensorFlow models; inside `accepted` it also
accepts these.
"""

from jaxlrp.metrics.quantus.bridge import accepted, channels_first, explain_func
from jaxlrp.metrics.quantus.model import QuantusModel, quantus_model

__all__ = ["QuantusModel", "accepted", "channels_first", "explain_func", "quantus_model"]
