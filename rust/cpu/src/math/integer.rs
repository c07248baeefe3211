//! Bools and integers: wrapping arithmetic, bits, and what NumPy says of division by zero and long shifts.

use super::number::{Element, Number};

/// A NumPy bool as it lies in memory: a byte, 0 or 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
#[repr(transparent)]
pub struct Bool(pub u8);

impl From<bool> for Bool {
    #[inline(always)]
    fn from(value: bool) -> Bool {
        Bool(u8::from(value))
    }
}

/// Integers and bools.
pub trait Bits: Copy {
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn not(self) -> Self;
}

pub trait Integer: Number {
    fn left_shift(self, count: Self) -> Self;
    fn right_shift(self, count: Self) -> Self;
    fn gcd(self, other: Self) -> Self;
    fn lcm(self, other: Self) -> Self;
    /// The number of bits set in |self|.
    fn bitwise_count(self) -> Self;
}

impl Bits for Bool {
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Bool(self.0 & other.0)
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Bool(self.0 | other.0)
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Bool(self.0 ^ other.0)
    }
    #[inline(always)]
    fn not(self) -> Self {
        Bool(self.0 ^ 1)
    }
}

impl Element for Bool {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.or(other)
    }
    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        self.and(other)
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        false
    }
    #[inline(always)]
    fn truth(self) -> bool {
        self.0 != 0
    }
}

macro_rules! integer {
    ($t:ty, $unsigned:ty, $signed:expr) => {
        impl Element for $t {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }
            #[inline(always)]
            fn truth(self) -> bool {
                self != 0
            }
        }

        impl Bits for $t {
            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self & other
            }
            #[inline(always)]
            fn or(self, other: Self) -> Self {
                self | other
            }
            #[inline(always)]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
            #[inline(always)]
            fn not(self) -> Self {
                !self
            }
        }

        #[allow(unused_comparisons)]
        impl Number for $t {
            #[inline(always)]
            fn subtract(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn negative(self) -> Self {
                self.wrapping_neg()
            }
            #[inline(always)]
            fn absolute(self) -> Self {
                if self < 0 { self.wrapping_neg() } else { self }
            }
            #[inline(always)]
            fn sign(self) -> Self {
                ((self > 0) as $t).wrapping_sub((self < 0) as $t)
            }
            #[inline(always)]
            fn floor_divide(self, divisor: Self) -> Self {
                if divisor == 0 {
                    return 0;
                }
                let quotient = self.wrapping_div(divisor);
                let inexact = self.wrapping_rem(divisor) != 0;
                if inexact && (self < 0) != (divisor < 0) { quotient.wrapping_sub(1) } else { quotient }
            }
            #[inline(always)]
            fn remainder(self, divisor: Self) -> Self {
                if divisor == 0 {
                    return 0;
                }
                let rest = self.wrapping_rem(divisor);
                if rest != 0 && (rest < 0) != (divisor < 0) { rest.wrapping_add(divisor) } else { rest }
            }
            #[inline(always)]
            fn fmod(self, divisor: Self) -> Self {
                if divisor == 0 { 0 } else { self.wrapping_rem(divisor) }
            }
            /// By repeated squaring; a negative exponent gives the value truncated to an integer.
            #[inline(always)]
            fn power(self, exponent: Self) -> Self {
                if exponent < 0 {
                    let odd = exponent & 1 != 0;
                    return match self {
                        1 => 1,
                        _ if $signed && self == (0 as $t).wrapping_sub(1) => {
                            if odd {
                                self
                            } else {
                                1
                            }
                        }
                        _ => 0,
                    };
                }
                let (mut base, mut left, mut product): ($t, $t, $t) = (self, exponent, 1);
                while left != 0 {
                    if left & 1 != 0 {
                        product = product.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    left >>= 1;
                }
                product
            }
        }

        #[allow(unused_comparisons)]
        impl Integer for $t {
            #[inline(always)]
            fn left_shift(self, count: Self) -> Self {
                if (count as $unsigned) < <$t>::BITS as $unsigned { self.wrapping_shl(count as u32) } else { 0 }
            }
            #[inline(always)]
            fn right_shift(self, count: Self) -> Self {
                let all = if self < 0 { (0 as $t).wrapping_sub(1) } else { 0 };
                if (count as $unsigned) < <$t>::BITS as $unsigned { self.wrapping_shr(count as u32) } else { all }
            }
            #[inline(always)]
            fn gcd(self, other: Self) -> Self {
                let (mut a, mut b) = (self.absolute() as $unsigned, other.absolute() as $unsigned);
                while b != 0 {
                    (a, b) = (b, a % b);
                }
                a as $t
            }
            #[inline(always)]
            fn lcm(self, other: Self) -> Self {
                let divisor = self.gcd(other) as $unsigned;
                if divisor == 0 {
                    return 0;
                }
                let product = (self.absolute() as $unsigned / divisor).wrapping_mul(other.absolute() as $unsigned);
                product as $t
            }
            #[inline(always)]
            fn bitwise_count(self) -> Self {
                (self.absolute() as $unsigned).count_ones() as $t
            }
        }
    };
}
integer!(i8, u8, true);
integer!(i16, u16, true);
integer!(i32, u32, true);
integer!(i64, u64, true);
integer!(u8, u8, false);
integer!(u16, u16, false);
integer!(u32, u32, false);
integer!(u64, u64, false);

#[inline(always)]
pub fn bitwise_and<T: Bits>(a: T, b: T) -> T {
    a.and(b)
}

#[inline(always)]
pub fn bitwise_or<T: Bits>(a: T, b: T) -> T {
    a.or(b)
}

#[inline(always)]
pub fn bitwise_xor<T: Bits>(a: T, b: T) -> T {
    a.xor(b)
}

#[inline(always)]
pub fn invert<T: Bits>(a: T) -> T {
    a.not()
}

#[inline(always)]
pub fn left_shift<T: Integer>(a: T, count: T) -> T {
    a.left_shift(count)
}

#[inline(always)]
pub fn right_shift<T: Integer>(a: T, count: T) -> T {
    a.right_shift(count)
}

#[inline(always)]
pub fn gcd<T: Integer>(a: T, b: T) -> T {
    a.gcd(b)
}

#[inline(always)]
pub fn bitwise_count<T: Integer>(a: T) -> T {
    a.bitwise_count()
}

#[inline(always)]
pub fn lcm<T: Integer>(a: T, b: T) -> T {
    a.lcm(b)
}
