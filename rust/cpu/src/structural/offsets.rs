//! Where index tuples point, worked out for many at once: the part of gather and scatter that vectorises.

use crate::Isa;

use crate::parallel::Shared;

/// Tuples whose offsets are worked out together; their offsets stay in L1.
pub const RUN: usize = 512;

/// The indices along one axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    pub values: Shared<i64>,
    pub extent: i64,
    pub stride: isize,
}

/// Writes `offsets[k] = Σ index·stride` of the tuples from `first` on; false where one of them is out of range, and
/// then its offset means nothing.
///
/// Unsafe to call: each axis has indices for all these tuples, every offset is below 2³¹, and the CPU has the
/// instruction set that the pointer was asked for.
pub type Offsets = unsafe fn(axes: &[Axis], first: usize, offsets: &mut [i32]) -> bool;

#[inline(always)]
unsafe fn offsets_of(axes: &[Axis], first: usize, offsets: &mut [i32]) -> bool {
    offsets.fill(0);
    let mut outside = 0;
    for &Axis { values, extent, stride } in axes {
        // SAFETY: the caller promises that many indices. An array of the caller's may be written by another thread:
        // what is checked and what is used are therefore one read of each.
        let values = unsafe { std::slice::from_raw_parts(values.at(first as isize), offsets.len()) };
        let stride = stride as i32;
        for (offset, &index) in offsets.iter_mut().zip(values) {
            let wrapped = index.wrapping_add(extent & (index >> 63));
            // Negative where either is.
            outside |= wrapped | (extent - 1).wrapping_sub(wrapped);
            *offset = offset.wrapping_add((wrapped as i32).wrapping_mul(stride));
        }
    }
    outside >= 0
}

unsafe fn plain(axes: &[Axis], first: usize, offsets: &mut [i32]) -> bool {
    // SAFETY: the caller's promises.
    unsafe { offsets_of(axes, first, offsets) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx2(axes: &[Axis], first: usize, offsets: &mut [i32]) -> bool {
    // SAFETY: the caller's promises.
    unsafe { offsets_of(axes, first, offsets) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn avx512(axes: &[Axis], first: usize, offsets: &mut [i32]) -> bool {
    // SAFETY: the caller's promises.
    unsafe { offsets_of(axes, first, offsets) }
}

/// The function for an instruction set that the CPU has.
pub fn offsets(isa: Isa) -> Offsets {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512,
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_finds_them_and_what_is_out_of_range() {
        let (rows, columns): (Vec<i64>, Vec<i64>) = (0..777).map(|k| (k * 7 % 9 - 4, k * 5 % 13 - 6)).unzip();
        let axis = |values: &[i64], extent, stride| Axis { values: Shared::read_only(values.as_ptr()), extent, stride };
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let find = |rows: &[i64]| {
                let axes = [axis(rows, 5, 30), axis(&columns, 7, 4)];
                let mut found = vec![0; 700];
                // SAFETY: the axes have 777 indices.
                let inside = unsafe { offsets(isa)(&axes, 77, &mut found) };
                (inside, found)
            };
            let (inside, found) = find(&rows);
            assert!(inside);
            for (offset, (row, column)) in found.iter().zip(rows.iter().zip(&columns).skip(77)) {
                assert_eq!(i64::from(*offset), row.rem_euclid(5) * 30 + column.rem_euclid(7) * 4);
            }
            for wrong in [5, -6, i64::MAX, i64::MIN] {
                let mut rows = rows.clone();
                rows[400] = wrong;
                assert!(!find(&rows).0, "{wrong}");
            }
        }
    }
}
