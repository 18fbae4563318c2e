"""How a feature is removed: what takes the place of its values.

* `Constant(value)`: a number, or one value for each channel; the id of the mask token for tokens.
* `Mean(axes)`, `Least()`, `Largest()`: of the sample itself.
* `Uniform(low, high)`: random numbers. `Noise(std)`: the values plus noise.
* `Blur(sigma, axes)`: a Gaussian average of the sample.
* `Linear(axes)`: interpolation from the values that are kept (ROAD).
* `Donors(data)`: values of another sample: any sample, or one that is close in the kept values.
"""

from jaxlrp.metrics.removal.donors import Donors
from jaxlrp.metrics.removal.linear import Linear
from jaxlrp.metrics.removal.replacing import (
    Blur,
    Constant,
    Largest,
    Least,
    Mean,
    Noise,
    Removal,
    Replacement,
    Uniform,
)

__all__ = [
    "Blur",
    "Constant",
    "Donors",
    "Largest",
    "Least",
    "Linear",
    "Mean",
    "Noise",
    "Removal",
    "Replacement",
    "Uniform",
]
