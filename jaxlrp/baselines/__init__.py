"""Explanation methods for comparison with LRP, with the same call and the same result.

Each is called like `lrp.explain`: `method(fun, **options)(*args, target=..., **kwargs)`, and returns
an `lrp.Explanation`. They need only `fun` and its derivative, no layers and no rules, except for
`grad_cam`, which uses one layer. They explain the score

    s(x) = sum(c * f(x)),

where c is one at the target and zero elsewhere: a class index selects the value of that output, and an
array shaped like the output gives c itself. A target that depends on the output, such as
`targets.predicted`, is evaluated at x and held fixed while x is varied.

Methods that sample or take steps work in batches: `batch_size` evaluations are in memory at
once, whatever their total. All methods work with `jit` and `vmap`. The model is used as it is: a model in
training mode is explained in training mode, without an error.

==================== ============== ====================================================
method               evaluations    relevance sums to
==================== ============== ====================================================
gradient             1              nothing in particular
input_x_gradient     1              s(x), if f is piecewise linear without biases
smooth_grad          n_samples      nothing in particular
integrated_gradients n_steps        s(x) - s(baseline), up to quadrature error
smooth_taylor        n_samples      s(x) - mean s(x'), if f is linear
occlusion            windows        nothing in particular
grad_cam             1              nothing in particular; never negative
==================== ============== ====================================================
"""

from jaxlrp.baselines.adaptive import Adapted, adaptive_noise
from jaxlrp.baselines.cam import grad_cam
from jaxlrp.baselines.gradients import gradient, input_x_gradient, integrated_gradients
from jaxlrp.baselines.noise import smooth_grad, smooth_taylor
from jaxlrp.baselines.occlude import occlusion

__all__ = [
    "Adapted",
    "adaptive_noise",
    "grad_cam",
    "gradient",
    "input_x_gradient",
    "integrated_gradients",
    "occlusion",
    "smooth_grad",
    "smooth_taylor",
]
