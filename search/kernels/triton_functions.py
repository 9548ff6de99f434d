"""Functions that Triton's language lacks, in `tl` alone: CUDA, ROCm and the interpreter run them.

The text of this file and of `triton_gates.py` is data: a rendered kernel carries the functions that
it uses (see `triton_code`), so that a generated file needs Triton only. libdevice is not an option:
it does not run under the interpreter and lacks functions on ROCm. Arguments and values are float32;
every polynomial is a minimax fit in relative error, its error stated; NaN comes out as NaN.

`exp2` is one instruction where `exp` is several, so exponentials carry log2(e) = 1.442695….
"""

# pyright: reportOperatorIssue=false
# (a value of several parts is a tuple to Python and a tuple of tensors to Triton)

import inspect

import triton
import triton.language as tl

# One instruction instead of five, since Triton 3.8 or so; older ones divide in full.
APPROXIMATE = tl.constexpr("approx" in inspect.signature(tl.fdiv).parameters)


@triton.jit
def reciprocal(a):
    # Of |a| > 2**126 it may be 0 where the full division is a subnormal number.
    if APPROXIMATE:
        return tl.fdiv(1.0, a, approx=True)
    else:
        return 1.0 / a


@triton.jit
def larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def smaller(a, b):
    return tl.minimum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def within(a, size):
    # a held to [-size, size]: one instruction since Hopper.
    return tl.clamp(a, -size, size, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def step(a):
    return tl.where(a > 0.0, 1.0, larger(a, 0.0))


@triton.jit
def sign(a):
    return tl.where(a > 0.0, 1.0, tl.where(a < 0.0, -1.0, a))


@triton.jit
def inside_of(a, b, c):
    # The slope of a clip: 1 inside, 0 at and beyond the ends, NaN for NaN.
    return tl.where((a > b) & (a < c), 1.0, tl.where(a == a, 0.0, a))


@triton.jit
def kept_inside(factor, a, b, c):
    # A factor times that slope; it is NaN itself where a is.
    return tl.where((a <= b) | (a >= c), 0.0, factor)


@triton.jit
def with_sign(size, a):
    # A value that is not negative, with the sign of a: one instruction on bits.
    bits = size.to(tl.int32, bitcast=True) | (a.to(tl.int32, bitcast=True) & -2147483648)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def exponential(a):
    return tl.exp2(a * 1.4426950408889634)


@triton.jit
def expm1(a):
    # (e**a - 1) / a on |a| < 0.35, where the difference cancels: relative error 2.3e-8.
    p = 0.00138929938
    p = p * a + 0.00836979056
    p = p * a + 0.0416670922
    p = p * a + 0.166664996
    p = p * a + 0.499999982
    return tl.where(tl.abs(a) < 0.35, (p * a) * a + a, tl.exp2(a * 1.4426950408889634) - 1.0)


@triton.jit
def log1p_of_unit(a):
    # log(1 + a) / a on [0, 1]: relative error 1.3e-8.
    p = -0.00328691393
    p = p * a + 0.0200461272
    p = p * a - 0.0573281397
    p = p * a + 0.106413516
    p = p * a - 0.153281047
    p = p * a + 0.196838562
    p = p * a - 0.249557028
    p = p * a + 0.333301189
    p = p * a - 0.499999085
    return (p * a + 0.999999996) * a


@triton.jit
def log1p(a):
    # The rounding of 1 + a is made good by a / ((1 + a) - 1); above 1e8 nothing was lost.
    whole = 1.0 + a
    lost = whole - 1.0
    small = tl.log(whole) * (a / tl.where(lost == 0.0, 1.0, lost))
    return tl.where(lost == 0.0, a, tl.where(a > 1e8, tl.log(whole), small))


@triton.jit
def power(a, b):
    whole = tl.floor(b) == b
    odd = whole & (tl.floor(0.5 * b) != 0.5 * b)
    size = tl.exp2(b * tl.log2(tl.abs(a)))
    below = tl.where(whole, tl.where(odd, -size, size), float("nan"))
    return tl.where(b == 0.0, 1.0, tl.where(a < 0.0, below, size))


@triton.jit
def near_angle(a):
    # An angle beyond 8192 as that in [-pi, pi) which differs by whole turns, to 2e-7; others stay.
    # |a| = m * 2**s with a whole m of 24 bits: the 64 bits of 2/pi that a shift by s leaves around
    # the point, times m, are the turn's fraction.
    bits = tl.abs(a).to(tl.int32, bitcast=True)
    m = ((bits & 0x7FFFFF) | 0x800000).to(tl.int64)
    offset = tl.maximum((bits >> 23) - 120, 0)  # s + 30 = exponent - 150 + 30
    i = offset >> 6
    shift = (offset & 63).to(tl.int64)
    high = tl.where(i == 1, 5639655903442982865, -777753015244122727)
    high = tl.where(i == 0, 2734261102, high)
    low = tl.where(i == 1, 8834495529232714444, 2171236539414655445)
    low = tl.where(i == 0, 2819827951721491432, low)
    window = (high << shift) | (low >> (63 - shift))
    near = (window * m).to(tl.float32) * 3.4061215800865545e-19
    far = (tl.abs(a) > 8192.0) & (tl.abs(a) < float("inf"))
    return tl.where(far, tl.where(a < 0.0, -near, near), a)


@triton.jit
def eighths_of(a, vector: tl.constexpr):
    # Eight tiles, the k-th of the k-th elements of all threads, which hold vector neighbours of
    # each half of a tile of float32, or of the whole.
    EACH: tl.constexpr = a.numel // 8
    own = tl.permute(tl.reshape(a, [8 // vector, EACH, vector]), 1, 0, 2)
    even, odd = tl.split(tl.reshape(own, [EACH, 4, 2]))
    a, c = tl.split(tl.reshape(even, [EACH, 2, 2]))
    b, d = tl.split(tl.reshape(odd, [EACH, 2, 2]))
    a0, a4 = tl.split(a)
    a1, a5 = tl.split(b)
    a2, a6 = tl.split(c)
    a3, a7 = tl.split(d)
    return a0, a1, a2, a3, a4, a5, a6, a7


@triton.jit
def of_eighths(a0, a1, a2, a3, a4, a5, a6, a7, vector: tl.constexpr):
    EACH: tl.constexpr = a0.numel
    even = tl.reshape(tl.join(tl.join(a0, a4), tl.join(a2, a6)), [EACH, 4])
    odd = tl.reshape(tl.join(tl.join(a1, a5), tl.join(a3, a7)), [EACH, 4])
    own = tl.reshape(tl.join(even, odd), [EACH, 8 // vector, vector])
    return tl.reshape(tl.permute(own, 1, 0, 2), [8 * EACH])


@triton.jit
def halves_of(a):
    # Of a tile's rows, every second one.
    two = tl.reshape(a, [a.shape[0] // 2, 2, a.shape[1]])
    return tl.split(tl.permute(two, 0, 2, 1))


@triton.jit
def of_halves(a, b):
    two = tl.permute(tl.join(a, b), 0, 2, 1)
    return tl.reshape(two, [2 * a.shape[0], a.shape[1]])


@triton.jit
def quarters_of(a):
    # Four tiles, of neighbours: they stay in the thread that holds them.
    b, c = tl.split(tl.reshape(a, [a.numel // 2, 2]))
    b, d = tl.split(tl.reshape(b, [a.numel // 4, 2]))
    c, e = tl.split(tl.reshape(c, [a.numel // 4, 2]))
    return b, c, d, e


@triton.jit
def of_quarters(b, c, d, e):
    even = tl.reshape(tl.join(b, d), [2 * b.numel])
    odd = tl.reshape(tl.join(c, e), [2 * b.numel])
    return tl.reshape(tl.join(even, odd), [4 * b.numel])


@triton.jit
def whole_turns_off(a):
    # A tile of angles with one beyond 8192 takes the long way as a whole, others stay as they are.
    largest = tl.max(tl.abs(a) + tl.zeros([1], tl.float32))
    if largest > 8192.0:
        if a.numel < 1024:
            a = near_angle(a)
        else:
            # In a loop, as compilers would else hold what all elements need at once: 126 registers
            # of snake's backward on gfx942 instead of 96. Its length is no constant, to them.
            b, c, d, e = quarters_of(a)
            for _ in range(0, tl.minimum(largest, 4.0).to(tl.int32)):
                b, c, d, e = c, d, e, near_angle(b)
            a = tl.reshape(of_quarters(b, c, d, e), a.shape)
    return a


@triton.jit
def quarters_off(a):
    # a - quarters * pi/2, with pi/2 in three parts whose products with up to 2**13 are exact; NaN
    # for an infinite a. In 1.5 * 2**23 plus the quarters their last bits are those of the sum: no
    # conversion, no rounding.
    sum = a * 0.6366197723675814 + 12582912.0
    turns = sum - 12582912.0
    rest = ((a - turns * 1.5703125) - turns * 4.837512969970703e-4) - turns * 7.549789954891882e-8
    return rest, sum.to(tl.int32, bitcast=True)


@triton.jit
def reduced_angle(a):
    return quarters_off(whole_turns_off(a))


@triton.jit
def wave(rest, quarters):
    # sin and cos on |rest| < pi/4 in rest**2: errors 6e-9 and 3e-9; of the quarters the last bit
    # says which, the one before is the sign.
    z = rest * rest
    s = -0.00019501854
    s = s * z + 0.00833201675
    s = s * z - 0.166666502
    c = 2.44628281e-05
    c = c * z - 0.00138875803
    c = c * z + 0.0416666504
    c = c * z - 0.5
    value = tl.where((quarters & 1) == 0, (s * z) * rest + rest, c * z + 1.0)
    bits = value.to(tl.int32, bitcast=True) ^ ((quarters << 30) & -2147483648)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def sin_at(angle):
    return wave(angle[0], angle[1])


@triton.jit
def cos_at(angle):
    return wave(angle[0], angle[1] + 1)


@triton.jit
def sin(a):
    return sin_at(reduced_angle(a))


@triton.jit
def cos(a):
    return cos_at(reduced_angle(a))


@triton.jit
def sinc(a):
    return tl.where(tl.abs(a) < 1e-4, 1.0, sin(a) / a)


@triton.jit
def sinh(a):
    # Below 1 a series in a**2, relative error 4e-8; above, halves taken in the exponent, so that
    # the value overflows where sinh does.
    z = a * a
    p = 0.000203940765
    p = p * z + 0.00832991064
    p = p * z + 0.166667339
    series = (p * z) * a + a
    up = tl.exp2(tl.abs(a) * 1.4426950408889634 - 1.0)
    down = tl.exp2(tl.abs(a) * -1.4426950408889634 - 1.0)
    return tl.where(z < 1.0, series, with_sign(up - down, a))


@triton.jit
def cosh(a):
    up = tl.exp2(tl.abs(a) * 1.4426950408889634 - 1.0)
    return up + tl.exp2(tl.abs(a) * -1.4426950408889634 - 1.0)


@triton.jit
def tanh(a):
    # tanh(a) / a on |a| < 0.6 in a**2: relative error 9e-8.
    z = a * a
    p = 0.015485144
    p = p * z - 0.0521085192
    p = p * z + 0.133103334
    p = p * z - 0.333323216
    far = 1.0 - 2.0 * reciprocal(1.0 + tl.exp2(tl.abs(a) * 2.885390081777927))
    return tl.where(z < 0.36, (p * z) * a + a, with_sign(far, a))


@triton.jit
def asinh(a):
    # log1p(|a| + a**2 / (1 + sqrt(1 + a**2))); far out, where a**2 overflows, log(2 |a|).
    size = tl.abs(a)
    inner = smaller(size, 1e9)
    square = inner * inner
    near = log1p(inner + square / (1.0 + tl.sqrt(1.0 + square)))
    far = tl.log(size) + 0.6931471805599453
    return with_sign(tl.where(size > 1e9, far, near), a)


@triton.jit
def arctan_of_unit(r):
    # arctan(r) / r on [0, 1] in r**2: relative error 2.8e-8.
    z = r * r
    p = 0.00288643512
    p = p * z - 0.0162156697
    p = p * z + 0.0429321033
    p = p * z - 0.0752481776
    p = p * z + 0.10650649
    p = p * z - 0.142061474
    p = p * z + 0.199929371
    p = p * z - 0.333330888
    return (p * z) * r + r


@triton.jit
def arctan(a):
    size = tl.abs(a)
    inverse = reciprocal(size)
    angle = arctan_of_unit(tl.where(size > 1.0, inverse, size))
    return with_sign(tl.where(size > 1.0, 1.5707963267948966 - angle, angle), a)


@triton.jit
def angle(y, x):
    # That of (x, y), not both 0: arctan of the smaller side over the larger, relative error 1.1e-7,
    # then the eighth of the circle.
    a = tl.abs(x)
    b = tl.abs(y)
    t = tl.minimum(a, b) * reciprocal(tl.maximum(a, b))
    z = t * t
    p = -0.00482253304
    p = p * z + 0.0247340589
    p = p * z - 0.0602031238
    p = p * z + 0.0996847265
    p = p * z - 0.140413276
    p = p * z + 0.199742141
    p = p * z - 0.333323916
    p = (p * z) * t + t
    p = tl.where(a > b, p, 1.5707963267948966 - p)
    return with_sign(tl.where(x < 0.0, 3.141592653589793 - p, p), y)


@triton.jit
def arctan_gate(a):
    # 1/2 + arctan(a)/pi; for a < -1 it is arctan(1/|a|)/pi, which does not cancel.
    size = tl.abs(a)
    inverse = reciprocal(size)
    angle = arctan_of_unit(tl.where(size > 1.0, inverse, size)) * 0.3183098861837907
    outside = tl.where(a < 0.0, angle, 1.0 - angle)
    inside = 0.5 + tl.where(a < 0.0, -angle, angle)
    return tl.where(size > 1.0, outside, inside)


@triton.jit
def arcsin(a):
    # arcsin(r) / r on |r| < 1/2 in r**2: relative error 9e-9; beyond, with h = (1 - |a|) / 2,
    # pi/2 - 2 arcsin(sqrt(h)).
    size = tl.abs(a)
    half = 0.5 - 0.5 * size
    z = tl.where(size > 0.5, half, size * size)
    r = tl.where(size > 0.5, tl.sqrt(half), size)
    p = 0.0427094885
    p = p * z + 0.0238120829
    p = p * z + 0.045560248
    p = p * z + 0.0749434513
    p = p * z + 0.166667929
    angle = (p * z) * r + r
    return with_sign(tl.where(size > 0.5, 1.5707963267948966 - 2.0 * angle, angle), a)
