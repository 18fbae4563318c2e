"""Autoencoders, flows, fields and experts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from zoo.entries import Family, Model, linen, normal

FAMILY = Family()


class VaeEncoder(nn.Module):
    """The mean of the posterior; the variance is computed and not asked for."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), (2, 2))(x))
        x = nn.relu(nn.Dense(8)(x.reshape(x.shape[0], -1)))
        mean, _ = nn.Dense(3, name="mean")(x), nn.Dense(3, name="log_variance")(x)
        return mean


@FAMILY.add(convolutional=True)
def vae_encoder(rng: np.random.Generator) -> Model:
    return linen(rng, VaeEncoder(), normal(rng, 2, 6, 6, 2))


class VaeDecoder(nn.Module):
    """From a latent to a picture of probabilities."""

    @nn.compact
    def __call__(self, z):
        x = nn.relu(nn.Dense(2 * 2 * 4)(z)).reshape(-1, 2, 2, 4)
        x = nn.relu(nn.ConvTranspose(4, (3, 3), (2, 2))(x))
        return nn.sigmoid(nn.ConvTranspose(2, (3, 3), (2, 2))(x))


@FAMILY.add(convolutional=True)
def vae_decoder(rng: np.random.Generator) -> Model:
    return linen(rng, VaeDecoder(), normal(rng, 2, 3))


class Vae(nn.Module):
    """Encoder and decoder, the sample replaced by the mean plus a constant times the deviation."""

    @nn.compact
    def __call__(self, x):
        h = nn.tanh(nn.Dense(8)(x))
        mean, log_variance = nn.Dense(3)(h), nn.Dense(3)(h)
        z = mean + jnp.exp(0.5 * log_variance) * jnp.array([0.3, -0.2, 0.5])
        return nn.Dense(6)(nn.tanh(nn.Dense(8)(z)))


@FAMILY.add()
def vae_fixed_noise(rng: np.random.Generator) -> Model:
    return linen(rng, Vae(), normal(rng, 2, 6))


class Coupling(nn.Module):
    """A flow: one half scales and shifts the other, by an exponential."""

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            a, b = jnp.split(x, 2, axis=-1)
            s, t = jnp.split(nn.Dense(6)(nn.relu(nn.Dense(8)(a))), 2, axis=-1)
            x = jnp.concatenate([b * jnp.exp(jnp.tanh(s)) + t, a], axis=-1)
        return x


@FAMILY.add()
def real_nvp(rng: np.random.Generator) -> Model:
    return linen(rng, Coupling(), normal(rng, 2, 6))


class Siren(nn.Module):
    """A field: sines of places, then sines again."""

    @nn.compact
    def __call__(self, x):
        turns = x[..., None, :] * 2.0 ** jnp.arange(2)[:, None] * jnp.pi
        encoded = jnp.concatenate([jnp.sin(turns), jnp.cos(turns)], -1).reshape(x.shape[0], -1)
        x = jnp.sin(3.0 * nn.Dense(8)(jnp.concatenate([x, encoded], axis=-1)))
        return nn.Dense(3)(jnp.sin(nn.Dense(8)(x)))


@FAMILY.add()
def siren(rng: np.random.Generator) -> Model:
    return linen(rng, Siren(), normal(rng, 2, 2))


class Prototypes(nn.Module):
    """Distances to prototypes: a radial basis, and the logarithmic similarity of ProtoPNet."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(6)(x))
        centers = self.param("center", nn.initializers.normal(), (4, 6))
        distance = jnp.sum((x[:, None] - centers) ** 2, axis=-1)
        near = jnp.exp(-0.5 * distance)
        similar = jnp.log((distance + 1) / (distance + 1e-4))
        return nn.Dense(3)(jnp.concatenate([near, similar], axis=-1))


@FAMILY.add()
def prototypes(rng: np.random.Generator) -> Model:
    return linen(rng, Prototypes(), normal(rng, 2, 5))


class DenseExperts(nn.Module):
    """All experts, weighed by a softmax."""

    @nn.compact
    def __call__(self, x):
        gate = nn.softmax(nn.Dense(3, name="router")(x))
        up = self.param("up", nn.initializers.normal(), (3, x.shape[-1], 8))
        down = self.param("down", nn.initializers.normal(), (3, 8, 4))
        y = jnp.einsum("nef,efd->ned", nn.gelu(jnp.einsum("nd,edf->nef", x, up)), down)
        return nn.Dense(3)(jnp.einsum("ne,ned->nd", gate, y))


@FAMILY.add()
def experts_dense(rng: np.random.Generator) -> Model:
    return linen(rng, DenseExperts(), normal(rng, 2, 5))


class TopExperts(nn.Module):
    """The two best experts of each token, chosen by `top_k`, mixed by a one-hot matrix."""

    gathered: bool = False

    @nn.compact
    def __call__(self, x):
        up = self.param("up", nn.initializers.normal(), (4, x.shape[-1], 8))
        down = self.param("down", nn.initializers.normal(), (4, 8, x.shape[-1]))
        scores, chosen = jax.lax.top_k(nn.Dense(4, name="router", use_bias=False)(x), 2)
        weights = nn.softmax(scores)
        if self.gathered:  # the kernels of the chosen
            h = nn.silu(jnp.einsum("btd,btkdf->btkf", x, up[chosen]))
            y = jnp.einsum("btkf,btkfd->btkd", h, down[chosen])
            y = (y * weights[..., None]).sum(axis=2)
        else:
            combine = (jax.nn.one_hot(chosen, 4) * weights[..., None]).sum(axis=-2)
            h = nn.silu(jnp.einsum("btd,edf->btef", x, up))
            y = jnp.einsum("bte,btef,efd->btd", combine, h, down)
        return nn.Dense(3)(x + y)


@FAMILY.add()
def experts_top(rng: np.random.Generator) -> Model:
    return linen(rng, TopExperts(), normal(rng, 2, 5, 4))


@FAMILY.add()
def experts_gathered(rng: np.random.Generator) -> Model:
    return linen(rng, TopExperts(gathered=True), normal(rng, 2, 5, 4))


class Switch(nn.Module):
    """One expert for each token, with a capacity: dispatched and combined by one-hot tensors."""

    @nn.compact
    def __call__(self, x):
        _, t, d = x.shape
        probability = nn.softmax(nn.Dense(3, name="router")(x))
        best = probability.argmax(axis=-1)
        mask = jax.nn.one_hot(best, 3, dtype=x.dtype)
        place = (jnp.cumsum(mask, axis=1) * mask - 1).astype(int)
        dispatch = jax.nn.one_hot(place, t, dtype=x.dtype) * mask[..., None]
        combine = dispatch * (probability * mask).sum(-1)[..., None, None]
        up = self.param("up", nn.initializers.normal(), (3, d, 8))
        down = self.param("down", nn.initializers.normal(), (3, 8, d))
        inside = jnp.einsum("btec,btd->becd", dispatch, x)
        inside = jnp.einsum(
            "becf,efd->becd", nn.relu(jnp.einsum("becd,edf->becf", inside, up)), down
        )
        return nn.Dense(3)(x + jnp.einsum("btec,becd->btd", combine, inside))


@FAMILY.add()
def experts_switch(rng: np.random.Generator) -> Model:
    return linen(rng, Switch(), normal(rng, 2, 5, 4))


class Autoregressive(nn.Module):
    """Masked dense layers (MADE): the kernel times a mask."""

    @nn.compact
    def __call__(self, x):
        d, h = x.shape[-1], 16
        order = np.arange(h) % (d - 1)
        w = self.param("w", nn.initializers.normal(), (d, h))
        v = self.param("v", nn.initializers.normal(), (h, d))
        x = nn.elu(
            x @ (w * (np.arange(d)[:, None] <= order))
            + self.param("bias", nn.initializers.zeros, (h,))
        )
        return x @ (v * (order[:, None] < np.arange(d)))


@FAMILY.add()
def made(rng: np.random.Generator) -> Model:
    return linen(rng, Autoregressive(), normal(rng, 4, 5))
