//! The scalar function of every row of the elementwise table, written so that loops over it vectorise.
//!
//! Each is generic over the element: [`Lane`] floats, integers, [`Bool`]. Hot functions are branch-free
//! approximations within 2 ulp over the whole range; rare ones go lane by lane through std's f64 functions, which
//! leaves f32 correct to half an ulp. Where NumPy fixes a result (signs of zero, division of integers by zero,
//! NaN in maximum), it is NumPy's.

mod exponential;
mod fixed;
mod float;
mod hyperbolic;
mod integer;
mod log_of_sum;
mod logarithm;
mod number;
mod power;
mod predicate;
mod rare;
mod trigonometric;

pub use exponential::{exp, exp2, expm1};
pub use float::{Float, Lane};
pub use hyperbolic::{cosh, sinh, tanh};
pub use integer::{
    Bool, bitwise_and, bitwise_count, bitwise_or, bitwise_xor, gcd, invert, lcm, left_shift, right_shift,
};
pub use log_of_sum::{logaddexp, logaddexp_far, logaddexp2, logaddexp2_far, sum_cancels, sum2_cancels};
pub use logarithm::{log, log1p, log2, log10};
pub use number::{
    Element, absolute, add, ceil, copysign, divide, floor, floor_divide, fmax, fmin, fmod, heaviside, lmul, maximum,
    minimum, multiply, negative, nextafter, power, reciprocal, remainder, rint, select, sign, spacing, sqrt, square,
    subtract, trunc,
};
pub use predicate::{
    equal, greater, greater_equal, isfinite, isinf, isnan, less, less_equal, logical_and, logical_not, logical_or,
    logical_xor, not_equal, signbit,
};
pub use rare::{arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh, cbrt, exponent, hypot, ldexp};
pub use trigonometric::{cos, cos_far, deg2rad, near, rad2deg, sin, sin_far, tan, tan_far};
