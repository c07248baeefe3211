//! Lanes: one loop over slices for every row of the elementwise table, every dtype and every cast, compiled once
//! per instruction set and found through function pointers.
//!
//! The loops are plain Rust; they vectorise because the functions of `math` are branch-free and `inline(always)`,
//! and because destination and sources are slices that do not overlap.

mod cast;
mod loops;
mod random;
mod reduce;
mod repeat;
mod rows;

use crate::Isa;

pub use cast::cast;
pub use random::random_bits;
pub use reduce::{BLOCK, LEVELS, ReduceLanes, reduce};
pub use repeat::repeat;
pub use rows::elementwise;

/// `dst[i] = f(a[i], b[i], c[i])` for i < n; operands that the function does not have are not read.
///
/// Unsafe to call: dst and the operands must be valid for n elements of their dtypes and aligned, dst must overlap
/// no operand, bools must be 0 or 1, and the CPU must have the instruction set that the pointer was asked for.
pub type Lane = unsafe fn(dst: *mut u8, a: *const u8, b: *const u8, c: *const u8, n: usize);

/// Whether fused multiply-add is an instruction of every CPU of the target.
const FUSED_EVERYWHERE: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// One function compiled per instruction set.
#[derive(Clone, Copy)]
struct Compiled {
    scalar: Lane,
    avx2: Lane,
    avx512: Lane,
}

impl Compiled {
    fn get(self, isa: Isa) -> Lane {
        match isa {
            Isa::Scalar => self.scalar,
            Isa::Avx2 => self.avx2,
            Isa::Avx512 => self.avx512,
        }
    }
}

/// The element type of a dtype in functions of one instruction set.
macro_rules! element {
    (Bool, $fused:expr) => { crate::math::Bool };
    (I8, $fused:expr) => { i8 };
    (I16, $fused:expr) => { i16 };
    (I32, $fused:expr) => { i32 };
    (I64, $fused:expr) => { i64 };
    (U8, $fused:expr) => { u8 };
    (U16, $fused:expr) => { u16 };
    (U32, $fused:expr) => { u32 };
    (U64, $fused:expr) => { u64 };
    (F32, $fused:expr) => { crate::math::Lane<f32, { $fused }> };
    (F64, $fused:expr) => { crate::math::Lane<f64, { $fused }> };
}

/// A `Compiled` of `$loop::<element, …>(…, $functions…)`. Integers gain nothing from AVX-512 and share AVX2's code.
macro_rules! compiled {
    (F32, $loop:path, $($function:expr),+) => { compiled!(@each F32, true, $loop, $($function),+) };
    (F64, $loop:path, $($function:expr),+) => { compiled!(@each F64, true, $loop, $($function),+) };
    ($dtype:ident, $loop:path, $($function:expr),+) => { compiled!(@each $dtype, false, $loop, $($function),+) };
    (@each $dtype:ident, $wide:tt, $loop:path, $($function:expr),+) => {{
        compiled!(@one scalar, [], crate::lanes::FUSED_EVERYWHERE, $dtype, $loop, $($function),+);
        #[cfg(target_arch = "x86_64")]
        compiled!(@one avx2, [#[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]],
            true, $dtype, $loop, $($function),+);
        #[cfg(not(target_arch = "x86_64"))]
        let avx2 = scalar;
        compiled!(@wide $wide, $dtype, $loop, $($function),+)
    }};
    (@wide true, $dtype:ident, $loop:path, $($function:expr),+) => {{
        #[cfg(target_arch = "x86_64")]
        compiled!(@one avx512,
            [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]],
            true, $dtype, $loop, $($function),+);
        #[cfg(not(target_arch = "x86_64"))]
        let avx512 = scalar;
        crate::lanes::Compiled { scalar, avx2, avx512 }
    }};
    (@wide false, $dtype:ident, $loop:path, $($function:expr),+) => {
        crate::lanes::Compiled { scalar, avx2, avx512: avx2 }
    };
    (@one $name:ident, [$($feature:tt)*], $fused:expr, $dtype:ident, $loop:path, $($function:expr),+) => {
        $($feature)*
        unsafe fn $name(dst: *mut u8, a: *const u8, b: *const u8, c: *const u8, n: usize) {
            type Element = element!($dtype, $fused);
            // SAFETY: the caller's promises are the loop's.
            unsafe { $loop(dst, [a, b, c], n, std::marker::PhantomData::<Element>, $($function),+) }
        }
    };
}
use {compiled, element};

#[cfg(test)]
mod correct;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
