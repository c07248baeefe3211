//! Random bits: Threefry2x32 with 20 rounds, a block of two words for each counter.
//!
//! The counters of a tile are independent, so the loop vectorises as any other does: a few hundred integer operations
//! for sixteen elements at a time, and no state that one element hands to the next.
//!
//! Source: Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3 (2011), section 3.2.
#![allow(clippy::needless_range_loop)] // As in `loops`.

use std::slice::{from_raw_parts, from_raw_parts_mut};

use ckad_graph::DType;

use super::Lane;
use crate::Isa;

/// Blocks that are computed beside each other.
const WIDTH: usize = 16;

/// By how many bits each round rotates; groups of four rounds take turns.
const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];

/// What the third word of the key is made with, so that a key of zeros does not leave zeros.
const PARITY: u32 = 0x1bd1_1bda;

/// The low word.
#[inline(always)]
const fn low(word: u64) -> u32 {
    word as u32
}

/// The high word.
#[inline(always)]
const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The blocks of some counters, in place: `x` holds their high words, `y` their low ones.
#[inline(always)]
fn blocks<const N: usize>(key: u64, x: &mut [u32; N], y: &mut [u32; N]) {
    let words = [high(key), low(key), PARITY ^ high(key) ^ low(key)];
    for i in 0..N {
        x[i] = x[i].wrapping_add(words[0]);
        y[i] = y[i].wrapping_add(words[1]);
    }
    for group in 0..5 {
        for by in ROTATIONS[group % 2] {
            for i in 0..N {
                x[i] = x[i].wrapping_add(y[i]);
                y[i] = y[i].rotate_left(by) ^ x[i];
            }
        }
        let (first, second) = (words[(group + 1) % 3], words[(group + 2) % 3].wrapping_add(group as u32 + 1));
        for i in 0..N {
            x[i] = x[i].wrapping_add(first);
            y[i] = y[i].wrapping_add(second);
        }
    }
}

/// An element of a block: both words in 64 bits, or the low bits of what they differ in.
trait Bits: Copy {
    fn of(x: u32, y: u32) -> Self;
}

macro_rules! narrow {
    ($($t:ty)*) => {
        $(impl Bits for $t {
            #[inline(always)]
            fn of(x: u32, y: u32) -> $t {
                (x ^ y) as $t
            }
        })*
    };
}
narrow!(u8 u16 u32);

impl Bits for u64 {
    #[inline(always)]
    fn of(x: u32, y: u32) -> u64 {
        u64::from(x) << 32 | u64::from(y)
    }
}

/// `dst[i]` is the element of counter `first[0] + index[i]`, for the one key `key[0]`.
#[inline(always)]
unsafe fn draw<T: Bits>(dst: *mut u8, index: *const u8, key: *const u8, first: *const u8, n: usize) {
    if n == 0 {
        return;
    }
    // SAFETY: the caller promises n > 0 aligned elements of each operand that do not overlap.
    let (dst, index, key, first) = unsafe {
        let index = from_raw_parts(index.cast::<u64>(), n);
        (from_raw_parts_mut(dst.cast::<T>(), n), index, *key.cast::<u64>(), *first.cast::<u64>())
    };
    let whole = n - n % WIDTH;
    let mut at = 0;
    while at < whole {
        let (mut x, mut y) = ([0u32; WIDTH], [0u32; WIDTH]);
        for i in 0..WIDTH {
            let counter = first.wrapping_add(index[at + i]);
            (x[i], y[i]) = (high(counter), low(counter));
        }
        blocks(key, &mut x, &mut y);
        for i in 0..WIDTH {
            dst[at + i] = T::of(x[i], y[i]);
        }
        at += WIDTH;
    }
    for i in whole..n {
        let counter = first.wrapping_add(index[i]);
        let (mut x, mut y) = ([high(counter)], [low(counter)]);
        blocks(key, &mut x, &mut y);
        dst[i] = T::of(x[0], y[0]);
    }
}

/// The lane that draws elements of one width, compiled for an instruction set.
macro_rules! drawn {
    ($t:ty, $isa:expr) => {{
        unsafe fn scalar(dst: *mut u8, a: *const u8, b: *const u8, c: *const u8, n: usize) {
            // SAFETY: the caller's promises.
            unsafe { draw::<$t>(dst, a, b, c, n) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        unsafe fn avx2(dst: *mut u8, a: *const u8, b: *const u8, c: *const u8, n: usize) {
            // SAFETY: the caller's promises.
            unsafe { draw::<$t>(dst, a, b, c, n) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
        unsafe fn avx512(dst: *mut u8, a: *const u8, b: *const u8, c: *const u8, n: usize) {
            // SAFETY: the caller's promises.
            unsafe { draw::<$t>(dst, a, b, c, n) }
        }
        match $isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2 as Lane,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512,
            _ => scalar,
        }
    }};
}

/// The lane whose operands are, in 64 bits, the index of each element, the key, and the counter of index 0; of the last
/// two only the first element is read. None where bits have no such dtype.
pub fn random_bits(dtype: DType, isa: Isa) -> Option<Lane> {
    match dtype {
        DType::U8 => Some(drawn!(u8, isa)),
        DType::U16 => Some(drawn!(u16, isa)),
        DType::U32 => Some(drawn!(u32, isa)),
        DType::U64 => Some(drawn!(u64, isa)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn<T: Copy + Default>(dtype: DType, isa: Isa, key: u64, first: u64, index: &[u64]) -> Vec<T> {
        let mut found = vec![T::default(); index.len()];
        let lane = random_bits(dtype, isa).unwrap();
        let (index, key, first) = (index.as_ptr().cast(), (&raw const key).cast(), (&raw const first).cast());
        // SAFETY: the slices have as many elements, of the dtypes, and do not overlap.
        unsafe { lane(found.as_mut_ptr().cast(), index, key, first, found.len()) };
        found
    }

    fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The known answers that come with the generator's reference implementation, Random123: key, counter, block.
    const KNOWN: [(u64, u64, u64); 3] = [
        (0, 0, 0x6b20_0159_99ba_4efe),
        (u64::MAX, u64::MAX, 0x1cb9_96fc_bb00_2be7),
        (0x1319_8a2e_0370_7344, 0x243f_6a88_85a3_08d3, 0xc492_3a9c_483d_f7a0),
    ];

    #[test]
    fn known_answers() {
        for isa in available() {
            for (key, counter, block) in KNOWN {
                for n in [1, WIDTH, WIDTH + 3] {
                    let found: Vec<u64> = drawn(DType::U64, isa, key, counter, &vec![0; n]);
                    assert_eq!(found, vec![block; n], "{isa:?}");
                }
            }
        }
    }

    #[test]
    fn narrow_elements_are_the_words_differences() {
        let index: Vec<u64> = (0..100).map(|i| i * 0x0123_4567_89ab).collect();
        for isa in available() {
            let blocks: Vec<u64> = drawn(DType::U64, isa, 42, 7, &index);
            let words: Vec<u32> = blocks.iter().map(|&block| high(block) ^ low(block)).collect();
            assert_eq!(drawn::<u32>(DType::U32, isa, 42, 7, &index), words);
            let halves: Vec<u16> = words.iter().map(|&word| word as u16).collect();
            assert_eq!(drawn::<u16>(DType::U16, isa, 42, 7, &index), halves);
            let bytes: Vec<u8> = words.iter().map(|&word| word as u8).collect();
            assert_eq!(drawn::<u8>(DType::U8, isa, 42, 7, &index), bytes);
        }
        assert!(random_bits(DType::I32, Isa::Scalar).is_none());
    }

    #[test]
    fn elements_depend_on_their_counter_alone() {
        let counters: Vec<u64> = (0..61).collect();
        for isa in available() {
            let all: Vec<u64> = drawn(DType::U64, isa, 3, u64::MAX - 30, &counters);
            for (&counter, &element) in counters.iter().zip(&all) {
                let alone: Vec<u64> = drawn(DType::U64, isa, 3, counter.wrapping_sub(31), &[0]);
                assert_eq!(alone, [element], "across the wrap at 2⁶⁴");
            }
        }
    }
}
