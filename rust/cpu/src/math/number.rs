//! Arithmetic on every dtype. Functions are rows of the table; the traits say what they need of an element.

use super::float::{Float, Lane, choose};
use super::integer::Bool;
use super::power::power as power_of_floats;

/// Any element: bools add as `or` and multiply as `and`, integers wrap.
pub trait Element: Copy + PartialEq + PartialOrd {
    fn add(self, other: Self) -> Self;
    fn multiply(self, other: Self) -> Self;
    fn is_nan(self) -> bool;
    /// Not equal to zero.
    fn truth(self) -> bool;
}

/// Integers and floats.
pub trait Number: Element {
    fn subtract(self, other: Self) -> Self;
    fn negative(self) -> Self;
    fn absolute(self) -> Self;
    fn sign(self) -> Self;
    fn floor_divide(self, divisor: Self) -> Self;
    fn remainder(self, divisor: Self) -> Self;
    fn fmod(self, divisor: Self) -> Self;
    fn power(self, exponent: Self) -> Self;
}

macro_rules! float_number {
    ($t:ty) => {
        impl<const FUSED: bool> Element for Lane<$t, FUSED> {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self * other
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                self.0.is_nan()
            }
            #[inline(always)]
            fn truth(self) -> bool {
                self.0 != 0.0
            }
        }

        impl<const FUSED: bool> Number for Lane<$t, FUSED> {
            #[inline(always)]
            fn subtract(self, other: Self) -> Self {
                self - other
            }
            #[inline(always)]
            fn negative(self) -> Self {
                -self
            }
            #[inline(always)]
            fn absolute(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn sign(self) -> Self {
                let below = choose(self.0 < 0.0, -1.0, if self.0.is_nan() { self.0 } else { 0.0 });
                Lane(choose(self.0 > 0.0, 1.0, below))
            }
            #[inline(always)]
            fn floor_divide(self, divisor: Self) -> Self {
                if divisor.0 == 0.0 { self / divisor } else { Lane(divide_with_remainder(self, divisor).0) }
            }
            #[inline(always)]
            fn remainder(self, divisor: Self) -> Self {
                if divisor.0 == 0.0 { self.fmod(divisor) } else { Lane(divide_with_remainder(self, divisor).1) }
            }
            #[inline(always)]
            fn fmod(self, divisor: Self) -> Self {
                Lane(self.0 % divisor.0)
            }
            #[inline(always)]
            fn power(self, exponent: Self) -> Self {
                if Self::DOUBLE && !FUSED {
                    // Numbers in two parts need fused multiply-add.
                    return Lane(self.0.powf(exponent.0));
                }
                power_of_floats(self, exponent)
            }
        }

        impl<const FUSED: bool> DivideWithRemainder<$t> for Lane<$t, FUSED> {
            /// Python's divmod, with the signs of zero that NumPy gives.
            #[inline(always)]
            fn pair(self, divisor: Self) -> ($t, $t) {
                let (a, b) = (self.0, divisor.0);
                let mut rest = a % b;
                let mut quotient = (a - rest) / b;
                if rest == 0.0 {
                    rest = (0.0 as $t).copysign(b);
                } else if (b < 0.0) != (rest < 0.0) {
                    rest += b;
                    quotient -= 1.0;
                }
                if quotient == 0.0 {
                    return ((0.0 as $t).copysign(a / b), rest);
                }
                let floor = quotient.floor();
                (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
            }
        }
    };
}

trait DivideWithRemainder<T> {
    fn pair(self, divisor: Self) -> (T, T);
}
float_number!(f32);
float_number!(f64);

#[inline(always)]
fn divide_with_remainder<T, L: DivideWithRemainder<T>>(a: L, b: L) -> (T, T) {
    a.pair(b)
}

#[inline(always)]
pub fn add<T: Element>(a: T, b: T) -> T {
    a.add(b)
}

#[inline(always)]
pub fn multiply<T: Element>(a: T, b: T) -> T {
    a.multiply(b)
}

/// Of two zeros the second, as NumPy's vector kernels give; so does `minimum`.
#[inline(always)]
pub fn maximum<T: Element>(a: T, b: T) -> T {
    choose(a > b || a.is_nan(), a, b)
}

#[inline(always)]
pub fn minimum<T: Element>(a: T, b: T) -> T {
    choose(a < b || a.is_nan(), a, b)
}

#[inline(always)]
pub fn fmax<T: Element>(a: T, b: T) -> T {
    choose(a >= b || b.is_nan(), a, b)
}

#[inline(always)]
pub fn fmin<T: Element>(a: T, b: T) -> T {
    choose(a <= b || b.is_nan(), a, b)
}

#[inline(always)]
pub fn select<T: Element>(condition: Bool, a: T, b: T) -> T {
    choose(condition.truth(), a, b)
}

#[inline(always)]
pub fn subtract<T: Number>(a: T, b: T) -> T {
    a.subtract(b)
}

#[inline(always)]
pub fn negative<T: Number>(a: T) -> T {
    a.negative()
}

#[inline(always)]
pub fn absolute<T: Number>(a: T) -> T {
    a.absolute()
}

#[inline(always)]
pub fn sign<T: Number>(a: T) -> T {
    a.sign()
}

#[inline(always)]
pub fn square<T: Number>(a: T) -> T {
    a.multiply(a)
}

#[inline(always)]
pub fn power<T: Number>(a: T, b: T) -> T {
    a.power(b)
}

#[inline(always)]
pub fn floor_divide<T: Number>(a: T, b: T) -> T {
    a.floor_divide(b)
}

#[inline(always)]
pub fn remainder<T: Number>(a: T, b: T) -> T {
    a.remainder(b)
}

#[inline(always)]
pub fn fmod<T: Number>(a: T, b: T) -> T {
    a.fmod(b)
}

#[inline(always)]
pub fn divide<F: Float>(a: F, b: F) -> F {
    a / b
}

/// The absorbing product of derivative rules: 0 when either factor is exactly 0, whatever the other.
#[inline(always)]
pub fn lmul<F: Float>(c: F, t: F) -> F {
    let zero = F::of(0.0);
    choose(c == zero || t == zero, zero, c * t)
}

#[inline(always)]
pub fn reciprocal<F: Float>(a: F) -> F {
    F::of(1.0) / a
}

#[inline(always)]
pub fn sqrt<F: Float>(a: F) -> F {
    a.sqrt()
}

#[inline(always)]
pub fn floor<F: Float>(a: F) -> F {
    a.floor()
}

#[inline(always)]
pub fn ceil<F: Float>(a: F) -> F {
    a.ceil()
}

#[inline(always)]
pub fn trunc<F: Float>(a: F) -> F {
    a.trunc()
}

#[inline(always)]
pub fn rint<F: Float>(a: F) -> F {
    a.rint()
}

#[inline(always)]
pub fn copysign<F: Float>(a: F, b: F) -> F {
    a.copysign(b)
}

#[inline(always)]
pub fn nextafter<F: Float>(a: F, b: F) -> F {
    a.next_after(b)
}

/// The distance to the next float away from zero, with the sign of a (0's for −0); NaN of infinities.
#[inline(always)]
pub fn spacing<F: Float>(a: F) -> F {
    let a = a + F::of(0.0);
    choose(a.abs() == F::INFINITY, F::NAN, a.next_after(F::INFINITY.copysign(a)) - a)
}

#[inline(always)]
pub fn heaviside<F: Float>(a: F, at_zero: F) -> F {
    let zero = F::of(0.0);
    let rest = choose(a == zero, at_zero, choose(a < zero, zero, a));
    choose(a > zero, F::of(1.0), rest)
}
