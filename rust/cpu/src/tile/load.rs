//! Loads that do not lie in memory in the order of the iteration: strided views, broadcasts, iotas.

use ckad_graph::{DType, Error, Result, ScalarBits};

use crate::Isa;
use crate::lanes::{self, Lane};

/// NumPy's limit on axes, and so ours.
const MAX_AXES: usize = 64;

/// Where the elements come from.
#[derive(Clone, Copy, Debug)]
enum Elements {
    /// Memory; the address of the element at the origin.
    At(*const u8),
    /// The position itself, from this value at the origin.
    Index(i64),
}

/// A strided view of the iteration, with axes merged where that changes nothing.
#[derive(Debug)]
pub struct Gather {
    /// Innermost first: (extent, stride in elements).
    axes: Vec<(usize, i64)>,
    elements: Elements,
    dtype: DType,
    /// Writes one element many times.
    repeat: Lane,
}

impl Gather {
    pub fn from_memory(
        origin: *const u8,
        dtype: DType,
        extents: &[usize],
        strides: &[i64],
        isa: Isa,
    ) -> Result<Gather> {
        Gather::new(Elements::At(origin), dtype, extents, strides, isa)
    }

    pub fn of_index(origin: i64, dtype: DType, extents: &[usize], strides: &[i64], isa: Isa) -> Result<Gather> {
        Gather::new(Elements::Index(origin), dtype, extents, strides, isa)
    }

    fn new(elements: Elements, dtype: DType, extents: &[usize], strides: &[i64], isa: Isa) -> Result<Gather> {
        Ok(Gather { axes: merge_axes(extents, strides)?, elements, dtype, repeat: lanes::repeat(dtype.size(), isa) })
    }

    /// The elements with flat indices `flat..flat + n`: written to `slot`, or, where `in_place` allows it and they
    /// lie together, where they are.
    ///
    /// # Safety
    /// The range is inside the iteration, the view inside its allocation, and `slot` has room for n elements.
    pub unsafe fn read(&self, flat: usize, n: usize, slot: *mut u8, in_place: bool) -> *mut u8 {
        let mut index = [0usize; MAX_AXES];
        let mut rest = flat;
        let mut position = 0i64;
        for (digit, &(extent, stride)) in index.iter_mut().zip(&self.axes) {
            *digit = rest % extent;
            rest /= extent;
            position += *digit as i64 * stride;
        }
        let (inner, stride) = self.axes[0];
        let together = stride == 1 && index[0] + n <= inner;
        match self.elements {
            Elements::At(origin) if in_place && together => {
                origin.wrapping_offset(position as isize * self.dtype.size() as isize).cast_mut()
            }
            Elements::At(origin) => {
                let run = Run { axes: &self.axes, index: &mut index, position, n };
                // SAFETY: the caller's promises; elements are copied as bits of their size.
                unsafe {
                    match self.dtype.size() {
                        1 => run.copy(origin, slot, self.repeat),
                        2 => run.copy(origin.cast::<u16>(), slot.cast(), self.repeat),
                        4 => run.copy(origin.cast::<u32>(), slot.cast(), self.repeat),
                        _ => run.copy(origin.cast::<u64>(), slot.cast(), self.repeat),
                    }
                }
                slot
            }
            Elements::Index(first) => {
                let run = Run { axes: &self.axes, index: &mut index, position: position.wrapping_add(first), n };
                // SAFETY: the caller's promises.
                unsafe {
                    match self.dtype {
                        DType::Bool => run.count(slot, |i| u8::from(i != 0)),
                        DType::I8 | DType::U8 => run.count(slot, |i| i as u8),
                        DType::I16 | DType::U16 => run.count(slot.cast(), |i| i as u16),
                        DType::I32 | DType::U32 => run.count(slot.cast(), |i| i as u32),
                        DType::I64 | DType::U64 => run.count(slot.cast(), |i| i as u64),
                        DType::F32 => run.count(slot.cast(), |i| i as f32),
                        DType::F64 => run.count(slot.cast(), |i| i as f64),
                    }
                }
                slot
            }
        }
    }
}

/// A walk over n elements from an index on.
struct Run<'a> {
    axes: &'a [(usize, i64)],
    index: &'a mut [usize; MAX_AXES],
    position: i64,
    n: usize,
}

impl Run<'_> {
    /// Calls `visit(done, position, length)` for each run along the innermost axis.
    #[inline(always)]
    fn each(self, mut visit: impl FnMut(usize, i64, usize)) {
        let (inner, stride) = self.axes[0];
        let mut position = self.position;
        let mut done = 0;
        while done < self.n {
            let length = (inner - self.index[0]).min(self.n - done);
            visit(done, position, length);
            done += length;
            // To the start of the next run: past this axis's end, then as an odometer.
            position -= self.index[0] as i64 * stride;
            self.index[0] = 0;
            for (digit, &(extent, stride)) in self.index.iter_mut().zip(self.axes).skip(1) {
                *digit += 1;
                position += stride;
                if *digit < extent {
                    break;
                }
                position -= extent as i64 * stride;
                *digit = 0;
            }
        }
    }

    /// # Safety
    /// The walk stays inside the allocation of `origin`, `slot` has room for n elements, and `repeat` is of their size.
    unsafe fn copy<T: Copy>(self, origin: *const T, slot: *mut T, repeat: Lane) {
        let stride = self.axes[0].1 as isize;
        self.each(|done, position, length| {
            // SAFETY: the caller's promises; source and slot are different allocations.
            unsafe {
                let source = origin.wrapping_offset(position as isize);
                let target = std::slice::from_raw_parts_mut(slot.add(done), length);
                match stride {
                    0 => repeat(target.as_mut_ptr().cast(), source.cast(), source.cast(), source.cast(), length),
                    1 => target.copy_from_slice(std::slice::from_raw_parts(source, length)),
                    _ => {
                        for (step, out) in target.iter_mut().enumerate() {
                            *out = *source.offset(step as isize * stride);
                        }
                    }
                }
            }
        });
    }

    /// # Safety
    /// `slot` has room for n elements.
    unsafe fn count<T>(self, slot: *mut T, convert: impl Fn(i64) -> T) {
        let stride = self.axes[0].1;
        self.each(|done, position, length| {
            // SAFETY: done + length ≤ n.
            let target = unsafe { std::slice::from_raw_parts_mut(slot.add(done), length) };
            for (step, out) in target.iter_mut().enumerate() {
                *out = convert(position.wrapping_add((step as i64).wrapping_mul(stride)));
            }
        });
    }
}

/// Writes `n` copies of an element.
///
/// # Safety
/// `slot` has room for n elements.
pub unsafe fn fill(slot: *mut u8, dtype: DType, bits: ScalarBits, n: usize) {
    // SAFETY: the caller's promise, for elements of the dtype's size.
    unsafe {
        match dtype.size() {
            1 => std::slice::from_raw_parts_mut(slot, n).fill(bits as u8),
            2 => std::slice::from_raw_parts_mut(slot.cast::<u16>(), n).fill(bits as u16),
            4 => std::slice::from_raw_parts_mut(slot.cast::<u32>(), n).fill(bits as u32),
            _ => std::slice::from_raw_parts_mut(slot.cast::<u64>(), n).fill(bits),
        }
    }
}

/// The bits of the element at an address.
///
/// # Safety
/// There is an aligned element of the dtype.
pub unsafe fn read_bits(source: *const u8, dtype: DType) -> ScalarBits {
    // SAFETY: the caller's promise.
    unsafe {
        match dtype.size() {
            1 => u64::from(*source),
            2 => u64::from(*source.cast::<u16>()),
            4 => u64::from(*source.cast::<u32>()),
            _ => *source.cast::<u64>(),
        }
    }
}

/// Axes innermost first, without those of one element, and with neighbours joined where one stride serves both.
fn merge_axes(extents: &[usize], strides: &[i64]) -> Result<Vec<(usize, i64)>> {
    let mut axes: Vec<(usize, i64)> = Vec::with_capacity(extents.len().max(1));
    for (&extent, &stride) in extents.iter().zip(strides).rev().filter(|(extent, _)| **extent != 1) {
        match axes.last_mut() {
            Some((inner, step)) if stride == step.wrapping_mul(*inner as i64) => *inner *= extent,
            _ => axes.push((extent, stride)),
        }
    }
    if axes.is_empty() {
        axes.push((1, 1));
    }
    if axes.len() > MAX_AXES {
        return Err(Error::internal("fused kernel", format!("more than {MAX_AXES} axes")));
    }
    Ok(axes)
}
