"""Gates, their densities and statistics in `tl` alone: data, as `triton_functions.py` is."""

# pyright: reportOperatorIssue=false
# (a value of several parts is a tuple to Python and a tuple of tensors to Triton)

import triton
import triton.language as tl

from search.kernels.triton_functions import arcsin, larger, log1p_of_unit, reciprocal, smaller


@triton.jit
def normal_tail(a):
    # P(Z > a) * exp(a**2 / 2) for a >= 0 as a polynomial in t = 1 / (1 + a/4): relative error 4e-8.
    t = reciprocal(1.0 + 0.25 * a)
    p = 0.0330735168
    p = p * t - 0.19157554
    p = p * t + 0.384506358
    p = p * t - 0.319895668
    p = p * t + 0.293532557
    p = p * t - 0.0146711798
    p = p * t + 0.11964481
    p = p * t + 0.0952228744
    p = p * t + 0.100181449
    return p * t - 1.9186531e-05


@triton.jit
def normal_cdf(a):
    tail = normal_tail(tl.abs(a)) * tl.exp2((a * a) * -0.7213475204444817)
    return tl.where(a < 0.0, tail, 1.0 - tail)


@triton.jit
def normal_pdf(a):
    return tl.exp2((a * a) * -0.7213475204444817) * 0.3989422804014327


@triton.jit
def erfc(a):
    b = a * 1.4142135623730951
    tail = normal_tail(tl.abs(b)) * tl.exp2((a * a) * -1.4426950408889634)
    return tl.where(a < 0.0, 2.0 - 2.0 * tail, 2.0 * tail)


@triton.jit
def softplus(a):
    fraction = tl.exp2(tl.abs(a) * -1.4426950408889634)
    return larger(a, 0.0) + log1p_of_unit(fraction)


@triton.jit
def sigmoid(a):
    return reciprocal(1.0 + tl.exp2(a * -1.4426950408889634))


@triton.jit
def logistic_pdf(a):
    e = tl.exp2(tl.abs(a) * -1.4426950408889634)
    r = reciprocal(1.0 + e)
    return (e * r) * r


@triton.jit
def mish_power(a):
    # From a = 10 on the gate is 1 to the last bit; the clamp keeps its square from overflowing.
    return tl.exp2(smaller(a, 20.0) * 1.4426950408889634)


@triton.jit
def mish_gate(a):
    # tanh(softplus(a)) = n (n + 2) / (n (n + 2) + 2), n = e**a.
    n = mish_power(a)
    w = n * (n + 2.0)
    return w * reciprocal(w + 2.0)


@triton.jit
def mish_slope(a):
    # Its derivative, 4 n (n + 1) / (n (n + 2) + 2)**2.
    n = mish_power(a)
    r = reciprocal(n * (0.5 * n + 1.0) + 1.0)
    share = n * r
    return share * (share + r)


@triton.jit
def gompertz_exponent(a):
    # log2(e) * e**-a, with both factors in one multiply-add: 0.5287… = log2(log2(e)). The clamp
    # keeps a gate of -inf at 0 and its density from inf * 0; exp(-exp(7)) is 0 in every format.
    return tl.exp2(larger(a, -7.0) * -1.4426950408889634 + 0.5287663729448977)


@triton.jit
def gompertz_exponent_within(a):
    # Of an a that is known to be above -88.
    return tl.exp2(a * -1.4426950408889634 + 0.5287663729448977)


@triton.jit
def gompertz(a):
    return tl.exp2(-gompertz_exponent(a))


@triton.jit
def gumbel_pdf(a):
    exponent = gompertz_exponent(a)
    return (exponent * 0.6931471805599453) * tl.exp2(-exponent)


@triton.jit
def arcsin_gate(a):
    return 0.5 + arcsin(smaller(larger(a, -1.0), 1.0)) * 0.3183098861837907


# Statistics over the columns of a tile, where `inside` says which are there and `count` how many.


@triton.jit
def row_mean(z, inside, count):
    return (tl.sum(tl.where(inside, z, 0.0), axis=1) / count)[:, None]


@triton.jit
def row_var(z, inside, count):
    centred = z - row_mean(z, inside, count)
    return row_mean(centred * centred, inside, count)


@triton.jit
def row_std(z, inside, count):
    return tl.sqrt(row_var(z, inside, count))


@triton.jit
def row_rms(z, inside, count):
    return tl.sqrt(row_mean(z * z, inside, count))
