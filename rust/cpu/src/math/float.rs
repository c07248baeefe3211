//! The number type that approximations are written in: a float that knows whether fused multiply-add is hardware.
//!
//! `Lane<f32, true>` is compiled into functions that have the FMA feature, `Lane<f32, false>` into the others; a
//! plain `f32::mul_add` would call a 60 times slower library function there. Everything is `inline(always)`,
//! because only code inlined into a function with target features may use them.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// A float as it lies in memory. `FUSED`: compiled where fused multiply-add is an instruction.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
#[repr(transparent)]
pub struct Lane<T, const FUSED: bool>(pub T);

/// What branch-free code needs of f32 and f64. Comparisons with NaN are false and select the second value.
pub trait Float:
    Copy
    + PartialEq
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// Integer of the same width, two's complement.
    type Int: Copy;
    /// f64 with the same `FUSED`.
    type Wide: Float<Wide = Self::Wide>;
    const DOUBLE: bool;
    const FUSED: bool;
    const NAN: Self;
    const INFINITY: Self;
    const SMALLEST_NORMAL: Self;

    fn of(value: f64) -> Self;
    fn wide(self) -> Self::Wide;
    fn narrow(value: Self::Wide) -> Self;
    fn to_f64(self) -> f64;

    /// `self * b + c`, rounded once where the hardware can (in f32 always, but for one case in 2²⁹).
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn abs(self) -> Self;
    fn copysign(self, sign: Self) -> Self;
    fn sqrt(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn trunc(self) -> Self;
    fn rint(self) -> Self;
    /// The sign bit.
    fn is_sign_negative(self) -> bool;

    /// The nearest integer as float and integer; for |self| < 2²¹ (f32), 2⁵⁰ (f64), arbitrary beyond.
    fn nearest(self) -> (Self, Self::Int);
    /// Bit `index` of an integer.
    fn bit(int: Self::Int, index: u32) -> bool;
    /// `self · 2ⁿ` in two steps, so that a subnormal result is rounded once and 2ⁿ itself may overflow.
    fn scale(self, n: Self::Int) -> Self;
    /// `2ⁿ` for n in the range of normal exponents.
    fn power_of_two(n: Self::Int) -> Self;
    fn int_add(n: Self::Int, summand: i32) -> Self::Int;
    /// `(k, m)` with `self = m · 2ᵏ`, √½ ≤ m < √2, for positive normal values.
    fn split_exponent(self) -> (Self, Self);
    /// The upper half of the significand: products of two such numbers are exact.
    fn upper_half(self) -> Self;
    /// The next float towards `other` (equal: `other`).
    fn next_after(self, other: Self) -> Self;
}

macro_rules! operator {
    ($trait:ident, $method:ident, $op:tt) => {
        impl<T: $trait<Output = T>, const FUSED: bool> $trait for Lane<T, FUSED> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Lane(self.0 $op other.0)
            }
        }
    };
}
operator!(Add, add, +);
operator!(Sub, sub, -);
operator!(Mul, mul, *);
operator!(Div, div, /);

impl<T: Neg<Output = T>, const FUSED: bool> Neg for Lane<T, FUSED> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Lane(-self.0)
    }
}

macro_rules! float {
    ($t:ty, $int:ty, double: $double:expr, fraction_bits: $fraction:expr, bias: $bias:expr, magic: $magic:expr,
     half_mask: $half:expr, unfused: $unfused:expr) => {
        impl<const FUSED_HARDWARE: bool> Float for Lane<$t, FUSED_HARDWARE> {
            type Int = $int;
            type Wide = Lane<f64, FUSED_HARDWARE>;
            const DOUBLE: bool = $double;
            const FUSED: bool = FUSED_HARDWARE;
            const NAN: Self = Lane(<$t>::NAN);
            const INFINITY: Self = Lane(<$t>::INFINITY);
            const SMALLEST_NORMAL: Self = Lane(<$t>::MIN_POSITIVE);

            #[inline(always)]
            fn of(value: f64) -> Self {
                Lane(value as $t)
            }
            #[inline(always)]
            fn wide(self) -> Self::Wide {
                Lane(self.to_f64())
            }
            #[inline(always)]
            fn narrow(value: Self::Wide) -> Self {
                Self::of(value.0)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.0 as f64
            }
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                if FUSED_HARDWARE { Lane(self.0.mul_add(b.0, c.0)) } else { Lane($unfused(self.0, b.0, c.0)) }
            }
            #[inline(always)]
            fn abs(self) -> Self {
                Lane(self.0.abs())
            }
            #[inline(always)]
            fn copysign(self, sign: Self) -> Self {
                Lane(self.0.copysign(sign.0))
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                Lane(self.0.sqrt())
            }
            #[inline(always)]
            fn floor(self) -> Self {
                Lane(self.0.floor())
            }
            #[inline(always)]
            fn ceil(self) -> Self {
                Lane(self.0.ceil())
            }
            #[inline(always)]
            fn trunc(self) -> Self {
                Lane(self.0.trunc())
            }
            #[inline(always)]
            fn rint(self) -> Self {
                Lane(self.0.round_ties_even())
            }
            #[inline(always)]
            fn is_sign_negative(self) -> bool {
                self.0.is_sign_negative()
            }
            #[inline(always)]
            fn nearest(self) -> (Self, $int) {
                // Adding 1.5·2^fraction leaves the rounded integer in the low bits of the sum.
                let magic: $t = $magic;
                let sum = self.0 + magic;
                (Lane(sum - magic), (sum.to_bits() as $int).wrapping_sub(magic.to_bits() as $int))
            }
            #[inline(always)]
            fn bit(int: $int, index: u32) -> bool {
                int & (1 << index) != 0
            }
            #[inline(always)]
            fn scale(self, n: $int) -> Self {
                let half = n >> 1;
                self * Self::power_of_two(half) * Self::power_of_two(n.wrapping_sub(half))
            }
            #[inline(always)]
            fn power_of_two(n: $int) -> Self {
                Lane(<$t>::from_bits((n.wrapping_add($bias) << $fraction) as _))
            }
            #[inline(always)]
            fn int_add(n: $int, summand: i32) -> $int {
                n.wrapping_add(summand as $int)
            }
            #[inline(always)]
            fn split_exponent(self) -> (Self, Self) {
                let bits = self.0.to_bits() as $int;
                let root_half = std::f64::consts::FRAC_1_SQRT_2 as $t;
                let k = bits.wrapping_sub(root_half.to_bits() as $int) >> $fraction;
                let m = <$t>::from_bits(bits.wrapping_sub(k << $fraction) as _);
                let magic: $t = $magic;
                let float = <$t>::from_bits((magic.to_bits() as $int).wrapping_add(k) as _) - magic;
                (Lane(float), Lane(m))
            }
            #[inline(always)]
            fn upper_half(self) -> Self {
                Lane(<$t>::from_bits(self.0.to_bits() & $half))
            }
            #[inline(always)]
            fn next_after(self, other: Self) -> Self {
                let (x, y) = (self.0, other.0);
                let bits = x.to_bits() as $int;
                let step = if (y > x) == (bits >= 0) { 1 } else { -1 };
                let next = <$t>::from_bits(bits.wrapping_add(step) as _);
                let from_zero = <$t>::from_bits(1).copysign(y);
                let moved = if x == 0.0 { from_zero } else { next };
                let result = if x == y { y } else { moved };
                Lane(if x.is_nan() || y.is_nan() { x + y } else { result })
            }
        }
    };
}

float!(f32, i32, double: false, fraction_bits: 23, bias: 127, magic: 12_582_912.0, half_mask: 0xffff_f000,
    unfused: |a: f32, b: f32, c: f32| (f64::from(a) * f64::from(b) + f64::from(c)) as f32);
float!(f64, i64, double: true, fraction_bits: 52, bias: 1023, magic: 6_755_399_441_055_744.0,
    half_mask: 0xffff_ffff_f800_0000, unfused: |a: f64, b: f64, c: f64| a * b + c);

/// `if condition { a } else { b }`, as a select that vectorises.
#[inline(always)]
pub fn choose<F>(condition: bool, a: F, b: F) -> F {
    if condition { a } else { b }
}

/// The polynomial with `coefficients` (constant first), by Horner's rule.
#[inline(always)]
pub fn horner<F: Float, const N: usize>(x: F, coefficients: [f64; N]) -> F {
    let mut sum = F::of(coefficients[N - 1]);
    let mut index = N - 1;
    while index > 0 {
        index -= 1;
        sum = sum.mul_add(x, F::of(coefficients[index]));
    }
    sum
}

/// `a + b` as the rounded sum and its error, for |a| ≥ |b| or a = 0.
#[inline(always)]
pub fn fast_two_sum<F: Float>(a: F, b: F) -> (F, F) {
    let sum = a + b;
    (sum, b - (sum - a))
}

/// `a + b` as the rounded sum and its error (Knuth).
#[inline(always)]
pub fn two_sum<F: Float>(a: F, b: F) -> (F, F) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// `a · b` as the rounded product and its error (by FMA, or Dekker's splitting).
#[inline(always)]
pub fn two_product<F: Float>(a: F, b: F) -> (F, F) {
    let product = a * b;
    if F::FUSED {
        return (product, a.mul_add(b, -product));
    }
    let (a_high, b_high) = (a.upper_half(), b.upper_half());
    let (a_low, b_low) = (a - a_high, b - b_high);
    (product, a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low))
}
