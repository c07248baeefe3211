//! Lanes of reductions. Their order of combination is fixed here and in `tile::cascade`: sixteen interleaved
//! accumulators over blocks of 256 elements, blocks pairwise. Every instruction set gives the same bits.
#![allow(clippy::needless_range_loop)] // As in `loops`.

use std::marker::PhantomData;
use std::slice::{from_raw_parts, from_raw_parts_mut};

use ckad_graph::{DType, ReduceKind, ScalarBits};

use super::element;
use crate::Isa;
use crate::math::{self, Bool, Element};

/// Elements that sixteen accumulators take before they are combined.
pub const BLOCK: usize = 256;

/// Levels of a cascade: enough for 2⁶⁴ blocks.
pub const LEVELS: usize = 64;

const ACCUMULATORS: usize = 16;

/// The functions of one kind of reduction on one dtype. All are unsafe to call for the reasons that `Lane` gives.
#[derive(Clone, Copy, Debug)]
pub struct ReduceLanes {
    /// dtype of accumulators and results.
    pub dtype: DType,
    /// What changes nothing: the accumulator to start with.
    pub identity: ScalarBits,
    /// `(dst, src, length, rows)`: each of `rows` consecutive runs of `length` elements to one result.
    pub rows: unsafe fn(*mut u8, *const u8, usize, usize),
    /// `(levels, count, src, n) → count`: puts n elements on a cascade that has taken `count` blocks. n is a multiple
    /// of the block but in the last call.
    pub push: unsafe fn(*mut u8, usize, *const u8, usize) -> usize,
    /// `(accumulators, src, width, rows)`: takes `rows` rows of `width` elements into as many accumulators, in turn.
    pub accumulate: unsafe fn(*mut u8, *const u8, usize, usize),
    /// `(accumulators, later, n)`: takes accumulators of later elements into those of earlier ones.
    pub merge: unsafe fn(*mut u8, *const u8, usize),
}

/// The lanes of a reduction of elements of `dtype`.
pub fn reduce(kind: ReduceKind, dtype: DType, isa: Isa) -> ReduceLanes {
    match kind {
        ReduceKind::Sum => sum(dtype, isa),
        ReduceKind::Max => max(dtype, isa),
        ReduceKind::Min => min(dtype, isa),
        ReduceKind::Any => any(dtype, isa),
        ReduceKind::All => all(dtype, isa),
    }
}

/// Least and greatest element, and what a sum starts from: 0, so that a sum of −0 is 0 as NumPy's.
trait Range: Element {
    const LEAST: Self;
    const GREATEST: Self;
    const NEUTRAL: Self;
}

macro_rules! integer_range {
    ($($t:ty)*) => {
        $(impl Range for $t {
            const LEAST: Self = <$t>::MIN;
            const GREATEST: Self = <$t>::MAX;
            const NEUTRAL: Self = 0;
        })*
    };
}
integer_range!(i8 i16 i32 i64 u8 u16 u32 u64);

impl Range for Bool {
    const LEAST: Self = Bool(0);
    const GREATEST: Self = Bool(1);
    const NEUTRAL: Self = Bool(0);
}

macro_rules! float_range {
    ($($t:ty)*) => {
        $(impl<const FUSED: bool> Range for math::Lane<$t, FUSED> {
            const LEAST: Self = math::Lane(<$t>::NEG_INFINITY);
            const GREATEST: Self = math::Lane(<$t>::INFINITY);
            const NEUTRAL: Self = math::Lane(0.0);
        })*
    };
}
float_range!(f32 f64);

/// One kind of reduction on one element type.
trait Combine {
    type Item: Copy;
    type Accumulator: Copy;
    const IDENTITY: Self::Accumulator;
    fn lift(item: Self::Item) -> Self::Accumulator;
    fn combine(earlier: Self::Accumulator, later: Self::Accumulator) -> Self::Accumulator;
}

macro_rules! combine {
    ($name:ident, $accumulator:ty, $identity:expr, $lift:expr, $combine:expr) => {
        struct $name<E>(PhantomData<E>);

        impl<E: Range> Combine for $name<E> {
            type Item = E;
            type Accumulator = $accumulator;
            const IDENTITY: $accumulator = $identity;
            #[inline(always)]
            fn lift(item: E) -> $accumulator {
                $lift(item)
            }
            #[inline(always)]
            fn combine(earlier: $accumulator, later: $accumulator) -> $accumulator {
                $combine(earlier, later)
            }
        }
    };
}
combine!(Sum, E, E::NEUTRAL, |x| x, |a, b| math::add(a, b));
combine!(Max, E, E::LEAST, |x| x, |a, b| math::maximum(a, b));
combine!(Min, E, E::GREATEST, |x| x, |a, b| math::minimum(a, b));
combine!(Any, Bool, Bool(0), |x: E| Bool::from(x.truth()), math::bitwise_or::<Bool>);
combine!(All, Bool, Bool(1), |x: E| Bool::from(x.truth()), math::bitwise_and::<Bool>);

/// At most `BLOCK` elements.
#[inline(always)]
fn block<C: Combine>(items: &[C::Item]) -> C::Accumulator {
    let mut sums = [C::IDENTITY; ACCUMULATORS];
    let (chunks, rest) = items.as_chunks::<ACCUMULATORS>();
    for chunk in chunks {
        for index in 0..ACCUMULATORS {
            sums[index] = C::combine(sums[index], C::lift(chunk[index]));
        }
    }
    for index in 0..rest.len() {
        sums[index] = C::combine(sums[index], C::lift(rest[index]));
    }
    // Seen through, the tree below makes the compiler keep the accumulators in pairs, and the loop take eight times as
    // many instructions.
    let sums = std::hint::black_box(sums);
    // Each level in an array of its own: in one place, a load would wait for two smaller stores to reach the cache.
    let sums: [C::Accumulator; 8] = halved::<C, 16, 8>(sums);
    let sums: [C::Accumulator; 4] = halved::<C, 8, 4>(sums);
    let [first, second] = halved::<C, 4, 2>(sums);
    C::combine(first, second)
}

/// Each of the first half combined with its counterpart in the second.
#[inline(always)]
fn halved<C: Combine, const N: usize, const HALF: usize>(sums: [C::Accumulator; N]) -> [C::Accumulator; HALF] {
    let mut half = [C::IDENTITY; HALF];
    for index in 0..HALF {
        half[index] = C::combine(sums[index], sums[index + HALF]);
    }
    half
}

/// Level l holds the sum of 2ˡ blocks where bit l of `count` is set.
#[inline(always)]
fn push_blocks<C: Combine>(levels: &mut [C::Accumulator; LEVELS], mut count: usize, items: &[C::Item]) -> usize {
    for items in items.chunks(BLOCK) {
        let mut value = block::<C>(items);
        let mut level = 0;
        while count >> level & 1 != 0 {
            value = C::combine(levels[level], value);
            level += 1;
        }
        levels[level] = value;
        count += 1;
    }
    count
}

#[inline(always)]
unsafe fn rows<C: Combine>(dst: *mut u8, src: *const u8, length: usize, rows: usize) {
    // SAFETY: the caller promises that many aligned elements.
    let (dst, src) = unsafe {
        (from_raw_parts_mut(dst.cast::<C::Accumulator>(), rows), from_raw_parts(src.cast::<C::Item>(), rows * length))
    };
    for (out, row) in dst.iter_mut().zip(src.chunks_exact(length)) {
        if length <= BLOCK {
            *out = block::<C>(row);
            continue;
        }
        let mut levels = [C::IDENTITY; LEVELS];
        let count = push_blocks::<C>(&mut levels, 0, row);
        let mut value = C::IDENTITY;
        let mut left = count;
        while left != 0 {
            value = C::combine(levels[left.trailing_zeros() as usize], value);
            left &= left - 1;
        }
        *out = value;
    }
}

#[inline(always)]
unsafe fn push<C: Combine>(levels: *mut u8, count: usize, src: *const u8, n: usize) -> usize {
    // SAFETY: the caller promises n aligned elements and `LEVELS` accumulators.
    let (levels, src) =
        unsafe { (&mut *levels.cast::<[C::Accumulator; LEVELS]>(), from_raw_parts(src.cast::<C::Item>(), n)) };
    push_blocks::<C>(levels, count, src)
}

#[inline(always)]
unsafe fn accumulate<C: Combine>(sums: *mut u8, src: *const u8, width: usize, rows: usize) {
    // SAFETY: the caller promises that many aligned elements, and that the two do not overlap.
    let (sums, src) = unsafe {
        (from_raw_parts_mut(sums.cast::<C::Accumulator>(), width), from_raw_parts(src.cast::<C::Item>(), width * rows))
    };
    for row in src.chunks_exact(width) {
        for index in 0..width {
            sums[index] = C::combine(sums[index], C::lift(row[index]));
        }
    }
}

#[inline(always)]
unsafe fn merge<C: Combine>(sums: *mut u8, later: *const u8, n: usize) {
    // SAFETY: the caller promises n aligned accumulators each, and that the two do not overlap.
    let (sums, later) = unsafe {
        (from_raw_parts_mut(sums.cast::<C::Accumulator>(), n), from_raw_parts(later.cast::<C::Accumulator>(), n))
    };
    for index in 0..n {
        sums[index] = C::combine(sums[index], later[index]);
    }
}

/// `ReduceLanes` of a combination on one instruction set.
macro_rules! lanes {
    ([$($feature:tt)*], $fused:expr, $kind:ident, $dtype:ident, $result:expr, $identity:expr) => {{
        type C = $kind<element!($dtype, $fused)>;
        $($feature)*
        unsafe fn rows_of(dst: *mut u8, src: *const u8, length: usize, count: usize) {
            // SAFETY: the caller's promises.
            unsafe { rows::<C>(dst, src, length, count) }
        }
        $($feature)*
        unsafe fn push_of(levels: *mut u8, count: usize, src: *const u8, n: usize) -> usize {
            // SAFETY: the caller's promises.
            unsafe { push::<C>(levels, count, src, n) }
        }
        $($feature)*
        unsafe fn accumulate_of(sums: *mut u8, src: *const u8, width: usize, rows: usize) {
            // SAFETY: the caller's promises.
            unsafe { accumulate::<C>(sums, src, width, rows) }
        }
        $($feature)*
        unsafe fn merge_of(sums: *mut u8, later: *const u8, n: usize) {
            // SAFETY: the caller's promises.
            unsafe { merge::<C>(sums, later, n) }
        }
        ReduceLanes {
            dtype: $result,
            identity: $identity,
            rows: rows_of,
            push: push_of,
            accumulate: accumulate_of,
            merge: merge_of,
        }
    }};
}

/// A function from dtype and instruction set to the lanes of one kind.
macro_rules! kind {
    ($name:ident, $kind:ident, $result:expr, $identity:expr) => {
        kind!(@dtypes $name, $kind, $result, $identity, [Bool I8 I16 I32 I64 U8 U16 U32 U64 F32 F64]);
    };
    (@dtypes $name:ident, $kind:ident, $result:expr, $identity:expr, [$($dtype:ident)*]) => {
        fn $name(dtype: DType, isa: Isa) -> ReduceLanes {
            let result: DType = $result(dtype);
            let identity: ScalarBits = $identity(dtype);
            match (dtype, isa) {
                $(
                    #[cfg(target_arch = "x86_64")]
                    (DType::$dtype, Isa::Avx512) => lanes!(
                        [#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]],
                        true, $kind, $dtype, result, identity
                    ),
                    #[cfg(target_arch = "x86_64")]
                    (DType::$dtype, Isa::Avx2) => lanes!(
                        [#[target_feature(enable = "avx2,fma")]], true, $kind, $dtype, result, identity
                    ),
                    (DType::$dtype, _) => lanes!([], false, $kind, $dtype, result, identity),
                )*
            }
        }
    };
}
kind!(sum, Sum, |dtype| dtype, |dtype: DType| dtype.bits_of_f64(0.0));
kind!(max, Max, |dtype| dtype, least);
kind!(min, Min, |dtype| dtype, greatest);
kind!(any, Any, |_| DType::Bool, |_| 0);
kind!(all, All, |_| DType::Bool, |_| 1);

fn least(dtype: DType) -> ScalarBits {
    match dtype {
        DType::F32 | DType::F64 => dtype.bits_of_f64(f64::NEG_INFINITY),
        _ if dtype.is_signed() => 1 << (8 * dtype.size() - 1),
        _ => 0,
    }
}

fn greatest(dtype: DType) -> ScalarBits {
    match dtype {
        DType::F32 | DType::F64 => dtype.bits_of_f64(f64::INFINITY),
        DType::Bool => 1,
        _ if dtype.is_signed() => (1 << (8 * dtype.size() - 1)) - 1,
        _ => u64::MAX >> (64 - 8 * dtype.size()),
    }
}
