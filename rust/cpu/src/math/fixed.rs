//! Fixed-point numbers of 176 binary places, for the few lanes in which cancellation takes all of a float's digits.

/// Below 2¹⁶, unsigned; the words of value · 2¹⁷⁶, lowest first. Results are truncated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fixed([u64; 3]);

const PLACES: i32 = 176;

impl Fixed {
    pub const ONE: Fixed = Fixed([0, 0, 1 << 48]);
    pub const LN2: Fixed = Fixed([0xf6af_40f3_4326_7298, 0x79ab_c9e3_b398_03f2, 0xb172_17f7_d1cf]);

    /// `x · 2^shift`, for a positive finite x where that is below 2¹⁶.
    #[inline]
    pub fn of(x: f64, shift: i32) -> Fixed {
        let bits = x.to_bits();
        let biased = (bits >> 52) as i32;
        let fraction = bits & ((1 << 52) - 1);
        let significand = if biased == 0 { fraction } else { fraction | 1 << 52 };
        // The place of the significand's lowest bit.
        let place = biased.max(1) - 1075 + PLACES + shift;
        if place < 0 {
            return Fixed([if place > -64 { significand >> -place } else { 0 }, 0, 0]);
        }
        let (word, bit) = ((place / 64) as usize, place % 64);
        let wide = u128::from(significand) << bit;
        let mut words = [0; 3];
        for (index, part) in [wide as u64, (wide >> 64) as u64].into_iter().enumerate() {
            if let Some(at) = words.get_mut(word + index) {
                *at = part;
            }
        }
        Fixed(words)
    }

    #[inline]
    pub fn whole(n: u16) -> Fixed {
        Fixed([0, 0, u64::from(n) << 48])
    }

    /// The sum, modulo 2¹⁶.
    #[inline]
    pub const fn plus(self, other: Fixed) -> Fixed {
        let mut words = [0; 3];
        let mut carry = 0u128;
        let mut index = 0;
        while index < 3 {
            let sum = self.0[index] as u128 + other.0[index] as u128 + carry;
            words[index] = sum as u64;
            carry = sum >> 64;
            index += 1;
        }
        Fixed(words)
    }

    /// The difference, modulo 2¹⁶.
    #[inline]
    pub const fn minus(self, other: Fixed) -> Fixed {
        let opposite = Fixed([!other.0[0], !other.0[1], !other.0[2]]);
        self.plus(opposite).plus(Fixed([1, 0, 0]))
    }

    #[inline]
    pub const fn times(self, other: Fixed) -> Fixed {
        let mut product = [0u64; 6];
        let mut i = 0;
        while i < 3 {
            let mut carry = 0u128;
            let mut j = 0;
            while j < 3 {
                let sum = self.0[i] as u128 * other.0[j] as u128 + product[i + j] as u128 + carry;
                product[i + j] = sum as u64;
                carry = sum >> 64;
                j += 1;
            }
            product[i + 3] = carry as u64;
            i += 1;
        }
        // 176 = 2 · 64 + 48.
        Fixed([
            product[2] >> 48 | product[3] << 16,
            product[3] >> 48 | product[4] << 16,
            product[4] >> 48 | product[5] << 16,
        ])
    }

    #[inline]
    pub const fn divided_by(self, divisor: u64) -> Fixed {
        let mut words = [0; 3];
        let mut rest = 0u128;
        let mut index = 3;
        while index > 0 {
            index -= 1;
            let dividend = rest << 64 | self.0[index] as u128;
            words[index] = (dividend / divisor as u128) as u64;
            rest = dividend % divisor as u128;
        }
        Fixed(words)
    }

    /// The product with a whole number, modulo 2¹⁶; no digit is truncated.
    #[inline]
    pub fn times_whole(self, n: u16) -> Fixed {
        let mut words = [0; 3];
        let mut carry = 0u128;
        for (word, own) in words.iter_mut().zip(self.0) {
            let product = u128::from(own) * u128::from(n) + carry;
            *word = product as u64;
            carry = product >> 64;
        }
        Fixed(words)
    }

    #[inline]
    pub fn below(self, other: Fixed) -> bool {
        self.0.iter().rev().lt(other.0.iter().rev())
    }

    /// `2^-shift` times the number, as a float and what that leaves.
    #[inline]
    pub fn parts(self, shift: i32) -> (f64, f64) {
        let zeros = match self.0 {
            [_, _, top] if top != 0 => top.leading_zeros(),
            [_, middle, _] if middle != 0 => 64 + middle.leading_zeros(),
            [low, ..] => 128 + low.leading_zeros(),
        };
        // The leading 128 bits, of which the two parts hold 53 each.
        let word = |index: i32| if index < 0 { 0 } else { u128::from(self.0[index as usize]) };
        let (skipped, bit) = ((zeros / 64) as i32, zeros % 64);
        let leading = word(2 - skipped) << 64 | word(1 - skipped);
        let below = if bit == 0 { 0 } else { word(-skipped) >> (64 - bit) };
        let leading = leading << bit | below;
        let exponent = 191 - 127 - PLACES - zeros as i32 - shift;
        let scaled = |part: u128, exponent: i32| scale(part as f64, exponent);
        (scaled(leading >> 75, exponent + 75), scaled(leading >> 22 & ((1 << 53) - 1), exponent + 22))
    }
}

/// `x · 2^exponent` in steps, none of which leaves the range before the last.
fn scale(x: f64, exponent: i32) -> f64 {
    let (mut x, mut left) = (x, exponent);
    while left < -900 {
        (x, left) = (x * 2f64.powi(-900), left + 900);
    }
    x * 2f64.powi(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_go_in_and_come_out() {
        for x in [1.0, 0.1, 745.2, 2f64.powi(-100), 1.5 * 2f64.powi(-122)] {
            assert_eq!(Fixed::of(x, 0).parts(0), (x, 0.0), "{x:e}");
        }
        let tiny = f64::from_bits(3);
        assert_eq!(Fixed::of(tiny, 1074).parts(1074), (tiny, 0.0));
        assert_eq!(Fixed::of(tiny, 0), Fixed::whole(0));
        // What is too small for the last place is dropped.
        assert_eq!(Fixed::of(1.5, -176), Fixed([1, 0, 0]));
        assert_eq!(Fixed::of(1.0, -177), Fixed([0, 0, 0]));
    }

    #[test]
    fn arithmetic_is_exact_to_the_last_place() {
        let third = Fixed::ONE.divided_by(3);
        assert_eq!(Fixed::ONE.minus(third.times_whole(3)), Fixed([1, 0, 0]));
        assert_eq!(third.plus(third), third.times(Fixed::whole(2)));
        let (high, low) = third.parts(0);
        assert_eq!(high, 1.0 / 3.0);
        assert!((low - 2f64.powi(-54) / 3.0).abs() < 2f64.powi(-106));
        assert!(third.below(Fixed::ONE) && !Fixed::ONE.below(third) && !third.below(third));
        // (2⁸ + 2⁻⁸⁸)² = 2¹⁶ + 2⁻⁷⁹ + 2⁻¹⁷⁶, of which the first is beyond.
        let sum = Fixed::of(256.0, 0).plus(Fixed::of(1.0, -88));
        assert_eq!(sum.times(sum), Fixed::of(1.0, -79).plus(Fixed([1, 0, 0])));
    }

    #[test]
    fn the_logarithm_of_two_is_right() {
        let (high, low) = Fixed::LN2.parts(0);
        assert_eq!(high, std::f64::consts::LN_2);
        assert!((low - 2.319_046_813_846_299_6e-17).abs() < 2f64.powi(-106));
    }
}
