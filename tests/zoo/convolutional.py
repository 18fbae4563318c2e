"""Convolutional and mixing networks in Linen."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from zoo.entries import Family, linen, normal

FAMILY = Family()


def picture(rng: np.random.Generator, size: int = 6) -> jax.Array:
    return normal(rng, 2, size, size, 3)


class ConvNeXt(nn.Module):
    """Depthwise convolutions, LayerNorm, wide dense layers, layer scale."""

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Conv(6, (2, 2), (2, 2))(x))
        for i in range(2):
            y = nn.LayerNorm()(nn.Conv(6, (3, 3), feature_group_count=6)(x))
            y = nn.Dense(6)(nn.gelu(nn.Dense(12)(y)))
            x = x + y * self.param(f"gamma_{i}", nn.initializers.ones, (6,))
        return nn.Dense(3)(nn.LayerNorm()(x.mean(axis=(1, 2))))


class MlpMixer(nn.Module):
    """Dense layers over patches, then over features."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (2, 2), (2, 2))(x)
        x = x.reshape(x.shape[0], -1, 6)
        for _ in range(2):
            y = nn.LayerNorm()(x).swapaxes(1, 2)
            x = x + nn.Dense(x.shape[1])(nn.gelu(nn.Dense(8)(y))).swapaxes(1, 2)
            x = x + nn.Dense(6)(nn.gelu(nn.Dense(8)(nn.LayerNorm()(x))))
        return nn.Dense(3)(nn.LayerNorm()(x).mean(axis=1))


class ConvMixer(nn.Module):
    """GELU before BatchNorm, so that nothing absorbs it."""

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        x = norm()(nn.gelu(nn.Conv(6, (2, 2), (2, 2))(x)))
        for _ in range(2):
            x = x + norm()(nn.gelu(nn.Conv(6, (3, 3), feature_group_count=6)(x)))
            x = norm()(nn.gelu(nn.Conv(6, (1, 1))(x)))
        return nn.Dense(3)(x.mean(axis=(1, 2)))


class SqueezeExcite(nn.Module):
    """Inverted bottlenecks: a gate for each channel; SiLU or hard swish."""

    hard: bool = False

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        act = nn.hard_swish if self.hard else nn.silu
        x = act(norm()(nn.Conv(6, (3, 3), (2, 2), use_bias=False)(x)))
        for _ in range(2):
            y = act(norm()(nn.Conv(12, (1, 1), use_bias=False)(x)))
            y = act(norm()(nn.Conv(12, (3, 3), feature_group_count=12, use_bias=False)(y)))
            s = (nn.relu if self.hard else act)(nn.Conv(4, (1, 1))(y.mean((1, 2), keepdims=True)))
            s = nn.Conv(12, (1, 1))(s)
            y = y * (nn.hard_sigmoid(s) if self.hard else nn.sigmoid(s))
            x = x + norm()(nn.Conv(6, (1, 1), use_bias=False)(y))
        return nn.Dense(3)(act(nn.Dense(8)(x.mean(axis=(1, 2)))))


class StandardizedConv(nn.Module):
    """A convolution with a kernel of mean zero and variance one for each output."""

    features: int

    @nn.compact
    def __call__(self, x):
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        mean = kernel.mean(axis=(0, 1, 2), keepdims=True)
        kernel = (kernel - mean) / jnp.sqrt(kernel.var(axis=(0, 1, 2), keepdims=True) + 1e-5)
        kernel = kernel / np.sqrt(np.prod(shape[:3]))
        dims = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims)


class ResNetGN(nn.Module):
    """GroupNorm and standardized weights, as in BiT."""

    @nn.compact
    def __call__(self, x):
        x = StandardizedConv(6)(x)
        for _ in range(2):
            y = StandardizedConv(6)(nn.relu(nn.GroupNorm(2)(x)))
            x = x + StandardizedConv(6)(nn.relu(nn.GroupNorm(2)(y)))
        x = nn.max_pool(nn.relu(nn.GroupNorm(2)(x)), (2, 2), (2, 2))
        return nn.Dense(3)(x.mean(axis=(1, 2)))


class DenseNet(nn.Module):
    """BatchNorm and ReLU before the convolution, features joined."""

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        x = nn.Conv(4, (3, 3))(x)
        for _ in range(3):
            x = jnp.concatenate([x, nn.Conv(4, (3, 3))(nn.relu(norm()(x)))], axis=-1)
        x = nn.avg_pool(nn.Conv(6, (1, 1))(nn.relu(norm()(x))), (2, 2), (2, 2))
        return nn.log_softmax(nn.Dense(3)(x.mean(axis=(1, 2))))


class UNet(nn.Module):
    """Down and up again, by a transposed convolution and by resizing; what it skips is joined."""

    @nn.compact
    def __call__(self, x):
        block = lambda c, h: nn.silu(nn.GroupNorm(2)(nn.Conv(c, (3, 3))(h)))  # noqa: E731
        a = block(4, x)
        b = block(6, nn.avg_pool(a, (2, 2), (2, 2)))
        c = block(8, nn.max_pool(b, (2, 2), (2, 2)))
        up = jax.image.resize(c, (*b.shape[:3], c.shape[-1]), "bilinear")
        b = block(6, jnp.concatenate([b, up], axis=-1))
        up = nn.ConvTranspose(4, (2, 2), (2, 2))(b)
        return nn.Conv(2, (1, 1))(block(4, jnp.concatenate([a, up], axis=-1)))


class TimeUNet(nn.Module):
    """A noise predictor: the time enters as scale and shift, attention in the middle."""

    @nn.compact
    def __call__(self, x):
        t = jnp.concatenate([jnp.sin(jnp.arange(1.0, 4.0)), jnp.cos(jnp.arange(1.0, 4.0))])
        t = nn.silu(nn.Dense(8)(t))
        y = nn.GroupNorm(2)(nn.Conv(6, (3, 3))(x))
        scale, shift = jnp.split(nn.Dense(12)(t), 2)
        y = nn.silu(y * (1 + scale) + shift)
        z = nn.Conv(8, (3, 3), (2, 2))(y)
        flat = nn.GroupNorm(2)(z).reshape(z.shape[0], -1, 8)
        z = z + nn.MultiHeadDotProductAttention(2)(flat).reshape(z.shape)
        up = jax.image.resize(z, (*x.shape[:3], 8), "nearest")
        return nn.Conv(3, (3, 3))(jnp.concatenate([nn.Conv(6, (3, 3))(up), y], axis=-1))


class WaveNet(nn.Module):
    """Dilated causal convolutions, tanh times sigmoid, skips summed."""

    @nn.compact
    def __call__(self, x):
        x, skips = nn.Conv(6, (2,), padding="CAUSAL")(x), 0.0
        for i in range(3):
            conv = functools.partial(nn.Conv, 6, (2,), kernel_dilation=2**i, padding="CAUSAL")
            h = jnp.tanh(conv()(x)) * nn.sigmoid(conv()(x))
            skips = skips + nn.Conv(6, (1,))(h)
            x = x + nn.Conv(6, (1,))(h)
        return nn.Conv(3, (1,))(nn.relu(nn.Conv(6, (1,))(nn.relu(skips))))


class Maxout(nn.Module):
    """The greatest of three dense layers, then the greater of two."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(24)(x).reshape(x.shape[0], 8, 3).max(axis=-1)
        return nn.Dense(3)(jnp.maximum(nn.Dense(6)(x), nn.Dense(6)(x)))


class Activations(nn.Module):
    """PReLU, leaky ReLU, ELU, SELU, CELU, softplus, soft sign, mish, swish with a learned slope."""

    @nn.compact
    def __call__(self, x):
        x = nn.PReLU()(nn.Dense(8)(x))
        mish = lambda h: h * jnp.tanh(nn.softplus(h))  # noqa: E731
        acts = (nn.leaky_relu, nn.elu, nn.selu, nn.celu, nn.softplus, nn.soft_sign, mish)
        for act in acts:
            x = x + act(nn.Dense(8)(x))
        beta = self.param("beta", nn.initializers.ones, (8,))
        x = nn.Dense(8)(x)
        return nn.Dense(3)(x * nn.sigmoid(beta * x))


class Discriminator(nn.Module):
    """Spectral norm and weight norm, leaky ReLU."""

    @nn.compact
    def __call__(self, x):
        x = nn.SpectralNorm(nn.Conv(6, (3, 3), (2, 2)))(x, update_stats=False)
        x = nn.leaky_relu(x, 0.2)
        x = nn.leaky_relu(nn.WeightNorm(nn.Conv(8, (3, 3)))(x), 0.2)
        return nn.SpectralNorm(nn.Dense(2))(x.reshape(x.shape[0], -1), update_stats=False)


class Cbam(nn.Module):
    """Channel and spatial attention by means and maxima."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3))(x))
        squeeze, excite = nn.Dense(4), nn.Dense(6)
        shared = lambda h: excite(nn.relu(squeeze(h)))  # noqa: E731
        channel = nn.sigmoid(shared(x.mean(axis=(1, 2))) + shared(x.max(axis=(1, 2))))
        x = x * channel[:, None, None]
        where = jnp.stack([x.mean(axis=-1), x.max(axis=-1)], axis=-1)
        x = x * nn.sigmoid(nn.Conv(1, (3, 3))(where))
        return nn.Dense(3)(x.mean(axis=(1, 2)))


class SimClr(nn.Module):
    """A projection of length one."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3), (2, 2))(x)).mean(axis=(1, 2))
        x = nn.Dense(4)(nn.relu(nn.Dense(8)(x)))
        return x / jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)


class GMlp(nn.Module):
    """A spatial gating unit: half of the features, mixed over tokens, multiply the others."""

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            u, v = jnp.split(nn.gelu(nn.Dense(12)(nn.LayerNorm()(x))), 2, axis=-1)
            v = nn.Dense(x.shape[1])(nn.LayerNorm()(v).swapaxes(1, 2)).swapaxes(1, 2)
            x = x + nn.Dense(x.shape[-1])(u * v)
        return nn.Dense(3)(nn.LayerNorm()(x).mean(axis=1))


class StyleBlock(nn.Module):
    """Instance norm steered by the input's own style (AdaIN), upsampling by shuffled pixels."""

    @nn.compact
    def __call__(self, x):
        style = nn.relu(nn.Dense(6)(x.mean(axis=(1, 2))))
        y = nn.Conv(6, (3, 3))(x)
        mean, var = y.mean((1, 2), keepdims=True), y.var((1, 2), keepdims=True)
        y = (y - mean) / jnp.sqrt(var + 1e-5)
        scale, shift = jnp.split(nn.Dense(12)(style)[:, None, None], 2, axis=-1)
        y = nn.leaky_relu(y * (1 + scale) + shift, 0.2)
        y = nn.Conv(8, (3, 3))(nn.InstanceNorm()(y))
        b, h, w, _ = y.shape
        y = y.reshape(b, h, w, 2, 2, 2).transpose(0, 1, 3, 2, 4, 5)
        return jnp.tanh(y.reshape(b, 2 * h, 2 * w, 2))


class SplitAttention(nn.Module):
    """ResNeSt: grouped convolution, branches weighed by a softmax between them."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3))(x))
        y = nn.relu(nn.Conv(12, (3, 3), feature_group_count=2)(x))
        y = y.reshape(*y.shape[:3], 2, 6)
        gap = y.sum(axis=3).mean(axis=(1, 2))
        weights = nn.softmax(nn.Dense(12)(nn.relu(nn.Dense(4)(gap))).reshape(-1, 2, 6), axis=1)
        x = x + (y * weights[:, None, None]).sum(axis=3)
        return nn.Dense(3)(x.mean(axis=(1, 2)))


def _enter(name: str, module: nn.Module, make_x=picture, convolutional: bool = True) -> None:
    build = lambda rng: linen(rng, module, make_x(rng))  # noqa: E731
    build.__name__ = name
    FAMILY.add(convolutional=convolutional)(build)


_enter("convnext", ConvNeXt())
_enter("mlp_mixer", MlpMixer())
_enter("convmixer", ConvMixer())
_enter("efficientnet", SqueezeExcite())
_enter("mobilenet_v3", SqueezeExcite(hard=True))
_enter("resnet_group_norm", ResNetGN())
_enter("densenet", DenseNet())
_enter("unet", UNet(), lambda rng: picture(rng, 8))
_enter("diffusion_unet", TimeUNet(), lambda rng: picture(rng, 4))
_enter("wavenet", WaveNet(), lambda rng: normal(rng, 2, 8, 2))
_enter("maxout", Maxout(), lambda rng: normal(rng, 2, 5), convolutional=False)
_enter("activations", Activations(), lambda rng: normal(rng, 2, 5), convolutional=False)
_enter("discriminator", Discriminator())
_enter("cbam", Cbam())
_enter("simclr", SimClr())
_enter("gmlp", GMlp(), lambda rng: normal(rng, 2, 5, 6), convolutional=False)
_enter("style", StyleBlock())
_enter("split_attention", SplitAttention())
