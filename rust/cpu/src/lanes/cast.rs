//! Conversions between all dtypes, as C converts on x86-64; floats out of an integer's range give arbitrary values.

use ckad_graph::DType;

use super::{Compiled, Lane, compiled, element, loops};
use crate::{Isa, math};

/// The lane that converts `from` to `to`.
pub fn cast(from: DType, to: DType, isa: Isa) -> Lane {
    compiled_cast(from, to).get(isa)
}

/// Conversion of one element. Whether the float is fused is of no account; results say no.
pub trait CastTo<T> {
    fn cast(self) -> T;
}

macro_rules! integer_casts {
    ($from:ty => $($to:ty)*) => {
        $(impl CastTo<$to> for $from {
            #[inline(always)]
            fn cast(self) -> $to {
                self as $to
            }
        })*
        impl CastTo<math::Bool> for $from {
            #[inline(always)]
            fn cast(self) -> math::Bool {
                (self != 0).into()
            }
        }
        impl CastTo<math::Lane<f32, false>> for $from {
            #[inline(always)]
            fn cast(self) -> math::Lane<f32, false> {
                math::Lane(self as f32)
            }
        }
        impl CastTo<math::Lane<f64, false>> for $from {
            #[inline(always)]
            fn cast(self) -> math::Lane<f64, false> {
                math::Lane(self as f64)
            }
        }
        impl CastTo<$from> for math::Bool {
            #[inline(always)]
            fn cast(self) -> $from {
                self.0 as $from
            }
        }
    };
}
integer_casts!(i8 => i8 i16 i32 i64 u8 u16 u32 u64);
integer_casts!(i16 => i8 i16 i32 i64 u8 u16 u32 u64);
integer_casts!(i32 => i8 i16 i32 i64 u8 u16 u32 u64);
integer_casts!(i64 => i8 i16 i32 i64 u8 u16 u32 u64);
integer_casts!(u8 => i8 i16 i32 i64 u8 u16 u32 u64);
integer_casts!(u16 => i8 i16 i32 i64 u8 u16 u32 u64);
integer_casts!(u32 => i8 i16 i32 i64 u8 u16 u32 u64);
integer_casts!(u64 => i8 i16 i32 i64 u8 u16 u32 u64);

impl CastTo<math::Bool> for math::Bool {
    #[inline(always)]
    fn cast(self) -> math::Bool {
        self
    }
}

macro_rules! float_casts {
    ($from:ty => $($to:ty)*) => {
        $(impl<const FUSED: bool> CastTo<$to> for math::Lane<$from, FUSED> {
            #[inline(always)]
            fn cast(self) -> $to {
                // Through int64: narrow types wrap, as they do in C compiled for x86-64.
                self.0 as i64 as $to
            }
        })*
        impl<const FUSED: bool> CastTo<u64> for math::Lane<$from, FUSED> {
            #[inline(always)]
            fn cast(self) -> u64 {
                if self.0 < 0.0 { self.0 as i64 as u64 } else { self.0 as u64 }
            }
        }
        impl<const FUSED: bool> CastTo<math::Bool> for math::Lane<$from, FUSED> {
            #[inline(always)]
            fn cast(self) -> math::Bool {
                (self.0 != 0.0).into()
            }
        }
        impl<const FUSED: bool> CastTo<math::Lane<f32, false>> for math::Lane<$from, FUSED> {
            #[inline(always)]
            fn cast(self) -> math::Lane<f32, false> {
                math::Lane(self.0 as f32)
            }
        }
        impl<const FUSED: bool> CastTo<math::Lane<f64, false>> for math::Lane<$from, FUSED> {
            #[inline(always)]
            fn cast(self) -> math::Lane<f64, false> {
                math::Lane(self.0 as f64)
            }
        }
        impl CastTo<math::Lane<$from, false>> for math::Bool {
            #[inline(always)]
            fn cast(self) -> math::Lane<$from, false> {
                math::Lane(self.0 as $from)
            }
        }
    };
}
float_casts!(f32 => i8 i16 i32 i64 u8 u16 u32);
float_casts!(f64 => i8 i16 i32 i64 u8 u16 u32);

macro_rules! table {
    ($($from:ident)*) => {
        fn compiled_cast(from: DType, to: DType) -> Compiled {
            match from {
                $(DType::$from => table!(@to to, $from, [Bool I8 I16 I32 I64 U8 U16 U32 U64 F32 F64]),)*
            }
        }
    };
    (@to $on:ident, $from:ident, [$($to:ident)*]) => {
        match $on {
            $(DType::$to => table!(@one $from, $to),)*
        }
    };
    (@one $from:ident, $to:ident) => { compiled!($from, loops::unary, |x| CastTo::<element!($to, false)>::cast(x)) };
}
table! { Bool I8 I16 I32 I64 U8 U16 U32 U64 F32 F64 }
