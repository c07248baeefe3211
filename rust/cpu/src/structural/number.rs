//! NumPy's arithmetic for each dtype, for the structural kernels that compute (the others move bytes).
//!
//! `with_dtype!` and `with_size!` turn a run-time dtype into the type parameter of a kernel.

/// An element: integers wrap, bool adds by or and multiplies by and.
pub trait Number: Copy + Send + Sync + PartialEq + 'static {
    const ZERO: Self;
    /// What running sums are carried in: float64 for floats, the type itself otherwise.
    type Wide: Copy;
    fn add(self, other: Self) -> Self;
    fn multiply(self, other: Self) -> Self;
    fn less(self, other: Self) -> bool;
    fn is_nan(self) -> bool;
    /// Converts as C does; integers wrap, any non-zero index is true.
    fn from_index(index: i64) -> Self;
    fn widen(self) -> Self::Wide;
    fn add_wide(sum: Self::Wide, value: Self) -> Self::Wide;
    fn narrow(sum: Self::Wide) -> Self;

    /// The product, 0 when either factor is exactly 0.
    #[inline(always)]
    fn absorb(self, other: Self) -> Self {
        if self == Self::ZERO || other == Self::ZERO { Self::ZERO } else { self.multiply(other) }
    }
}

/// float32 and float64.
pub trait Float: Number {
    /// `self·b + c` rounded once.
    fn fused(self, b: Self, c: Self) -> Self;
    fn is_finite(self) -> bool;
}

/// A bool as it lies in memory: a byte that is 0 or 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Bool(pub u8);

impl Number for Bool {
    const ZERO: Self = Bool(0);
    type Wide = Bool;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Bool(self.0 | other.0)
    }
    #[inline(always)]
    fn multiply(self, other: Self) -> Self {
        Bool(self.0 & other.0)
    }
    #[inline(always)]
    fn less(self, other: Self) -> bool {
        self.0 < other.0
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        false
    }
    #[inline(always)]
    fn from_index(index: i64) -> Self {
        Bool(u8::from(index != 0))
    }
    #[inline(always)]
    fn widen(self) -> Bool {
        self
    }
    #[inline(always)]
    fn add_wide(sum: Bool, value: Self) -> Bool {
        sum.add(value)
    }
    #[inline(always)]
    fn narrow(sum: Bool) -> Self {
        sum
    }
}

macro_rules! integers {
    ($($t:ty)*) => {$(
        impl Number for $t {
            const ZERO: Self = 0;
            type Wide = $t;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn less(self, other: Self) -> bool {
                self < other
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }
            #[inline(always)]
            fn from_index(index: i64) -> Self {
                index as $t
            }
            #[inline(always)]
            fn widen(self) -> $t {
                self
            }
            #[inline(always)]
            fn add_wide(sum: $t, value: Self) -> $t {
                sum.wrapping_add(value)
            }
            #[inline(always)]
            fn narrow(sum: $t) -> Self {
                sum
            }
        }
    )*};
}
integers!(i8 i16 i32 i64 u8 u16 u32 u64);

macro_rules! floats {
    ($($t:ty)*) => {$(
        impl Number for $t {
            const ZERO: Self = 0.0;
            type Wide = f64;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self * other
            }
            #[inline(always)]
            fn less(self, other: Self) -> bool {
                self < other
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                <$t>::is_nan(self)
            }
            #[inline(always)]
            fn from_index(index: i64) -> Self {
                index as $t
            }
            #[inline(always)]
            fn widen(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn add_wide(sum: f64, value: Self) -> f64 {
                sum + f64::from(value)
            }
            #[inline(always)]
            fn narrow(sum: f64) -> Self {
                sum as $t
            }
        }
        impl Float for $t {
            #[inline(always)]
            fn fused(self, b: Self, c: Self) -> Self {
                self.mul_add(b, c)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                <$t>::is_finite(self)
            }
        }
    )*};
}
floats!(f32 f64);

/// Evaluates `body` with `T` standing for the [`Number`] of a dtype.
macro_rules! with_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            ckad_graph::DType::Bool => {
                type $T = $crate::structural::number::Bool;
                $body
            }
            ckad_graph::DType::I8 => {
                type $T = i8;
                $body
            }
            ckad_graph::DType::I16 => {
                type $T = i16;
                $body
            }
            ckad_graph::DType::I32 => {
                type $T = i32;
                $body
            }
            ckad_graph::DType::I64 => {
                type $T = i64;
                $body
            }
            ckad_graph::DType::U8 => {
                type $T = u8;
                $body
            }
            ckad_graph::DType::U16 => {
                type $T = u16;
                $body
            }
            ckad_graph::DType::U32 => {
                type $T = u32;
                $body
            }
            ckad_graph::DType::U64 => {
                type $T = u64;
                $body
            }
            ckad_graph::DType::F32 => {
                type $T = f32;
                $body
            }
            ckad_graph::DType::F64 => {
                type $T = f64;
                $body
            }
        }
    };
}

/// Evaluates `body` with `T` standing for an unsigned integer of a dtype's size: for kernels that only move.
macro_rules! with_size {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype.size() {
            1 => {
                type $T = u8;
                $body
            }
            2 => {
                type $T = u16;
                $body
            }
            4 => {
                type $T = u32;
                $body
            }
            _ => {
                type $T = u64;
                $body
            }
        }
    };
}

pub(crate) use {with_dtype, with_size};
