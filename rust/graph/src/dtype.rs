//! Element types and NumPy 2's promotion between them.

use std::fmt;

/// Element type of an array. The order is that of `DType::ALL`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum DType {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
}

/// NumPy's kinds, in the order in which a weak Python scalar is absorbed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum DTypeKind {
    Bool,
    Integer,
    Float,
}

/// One element's bits, zero-extended to 64; which type they are of is known from the node.
pub type ScalarBits = u64;

impl DType {
    pub const ALL: [DType; 11] = [
        DType::Bool,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::F32,
        DType::F64,
    ];

    /// Bytes of one element.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            DType::Bool | DType::I8 | DType::U8 => 1,
            DType::I16 | DType::U16 => 2,
            DType::I32 | DType::U32 | DType::F32 => 4,
            DType::I64 | DType::U64 | DType::F64 => 8,
        }
    }

    #[inline]
    pub const fn kind(self) -> DTypeKind {
        match self {
            DType::Bool => DTypeKind::Bool,
            DType::F32 | DType::F64 => DTypeKind::Float,
            _ => DTypeKind::Integer,
        }
    }

    #[inline]
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64)
    }

    #[inline]
    pub const fn is_integer(self) -> bool {
        matches!(self.kind(), DTypeKind::Integer)
    }

    pub const fn is_signed(self) -> bool {
        matches!(self, DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::F32 | DType::F64)
    }

    /// NumPy's name.
    pub const fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::I8 => "int8",
            DType::I16 => "int16",
            DType::I32 => "int32",
            DType::I64 => "int64",
            DType::U8 => "uint8",
            DType::U16 => "uint16",
            DType::U32 => "uint32",
            DType::U64 => "uint64",
            DType::F32 => "float32",
            DType::F64 => "float64",
        }
    }

    /// NumPy 2's `promote_types`.
    pub fn promote(self, other: DType) -> DType {
        let (low, high) = if self.kind() <= other.kind() { (self, other) } else { (other, self) };
        match (low.kind(), high.kind()) {
            _ if low == high => low,
            (DTypeKind::Bool, _) => high,
            (DTypeKind::Float, _) => DType::F64,
            // float32 holds integers of up to 16 bits exactly.
            (DTypeKind::Integer, DTypeKind::Float) => {
                if low.size() <= 2 {
                    high
                } else {
                    DType::F64
                }
            }
            _ => Self::promote_integers(low, high),
        }
    }

    fn promote_integers(a: DType, b: DType) -> DType {
        if a.is_signed() == b.is_signed() {
            return if a.size() >= b.size() { a } else { b };
        }
        let (signed, unsigned) = if a.is_signed() { (a, b) } else { (b, a) };
        if signed.size() > unsigned.size() {
            return signed;
        }
        match unsigned.size() {
            1 => DType::I16,
            2 => DType::I32,
            4 => DType::I64,
            _ => DType::F64,
        }
    }

    /// The bits of `value` converted to this type, as C would convert it.
    pub fn bits_of_f64(self, value: f64) -> ScalarBits {
        match self {
            DType::F64 => value.to_bits(),
            DType::F32 => u64::from((value as f32).to_bits()),
            DType::Bool => u64::from(value != 0.0),
            DType::U64 => value as u64,
            _ => self.bits_of_i64(value as i64),
        }
    }

    /// The bits of the integer `value`, wrapped to this type.
    pub fn bits_of_i64(self, value: i64) -> ScalarBits {
        match self {
            DType::F64 | DType::F32 => self.bits_of_f64(value as f64),
            DType::Bool => u64::from(value != 0),
            DType::I64 | DType::U64 => value as u64,
            _ => (value as u64) & ((1u64 << (8 * self.size())) - 1),
        }
    }

    /// The value of `bits` as a float64 (inexact beyond 2^53).
    pub fn f64_of_bits(self, bits: ScalarBits) -> f64 {
        match self {
            DType::F64 => f64::from_bits(bits),
            DType::F32 => f64::from(f32::from_bits(bits as u32)),
            DType::U64 => bits as f64,
            _ => self.i64_of_bits(bits) as f64,
        }
    }

    /// The value of `bits` as an int64, sign-extended; floats are truncated.
    pub fn i64_of_bits(self, bits: ScalarBits) -> i64 {
        match self {
            DType::I8 => bits as u8 as i8 as i64,
            DType::I16 => bits as u16 as i16 as i64,
            DType::I32 => bits as u32 as i32 as i64,
            DType::F32 | DType::F64 => self.f64_of_bits(bits) as i64,
            _ => bits as i64,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promotion_follows_numpy() {
        assert_eq!(DType::I8.promote(DType::U8), DType::I16);
        assert_eq!(DType::I64.promote(DType::U64), DType::F64);
        assert_eq!(DType::I16.promote(DType::F32), DType::F32);
        assert_eq!(DType::I32.promote(DType::F32), DType::F64);
        assert_eq!(DType::Bool.promote(DType::U8), DType::U8);
        assert_eq!(DType::U32.promote(DType::I32), DType::I64);
        for a in DType::ALL {
            for b in DType::ALL {
                assert_eq!(a.promote(b), b.promote(a));
            }
        }
    }

    #[test]
    fn bits_round_trip() {
        assert_eq!(DType::I8.i64_of_bits(DType::I8.bits_of_i64(-3)), -3);
        assert_eq!(DType::I8.i64_of_bits(DType::I8.bits_of_i64(300)), 44);
        assert_eq!(DType::F32.f64_of_bits(DType::F32.bits_of_f64(0.5)), 0.5);
    }
}
