//! Operands and results of a structural kernel, resolved: where the elements are.

use ckad_graph::{DType, Error, Result, ScalarBits};
use ckad_plan::program::{ArrayRef, Source};

use crate::Environment;

/// An array in C order, or a scalar that lies in no buffer.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    pub dtype: DType,
    pub shape: &'a [usize],
    pointer: *mut u8,
    /// The element itself, where there is no buffer; its low bytes come first.
    bits: Option<ScalarBits>,
}

// SAFETY: an address whose use `execute` justifies.
unsafe impl Sync for Array<'_> {}

impl<'a> Array<'a> {
    pub fn resolve(array: &'a ArrayRef, environment: &Environment<'_>) -> Result<Array<'a>> {
        let (dtype, shape) = (array.dtype, array.shape.as_slice());
        if let Source::Buffer(id) = array.source {
            let memory = environment.buffer(id)?;
            let bytes = elements(shape) * dtype.size();
            if memory.bytes < bytes {
                let what = format!("buffer {} has {} bytes, its array {bytes}", id.0, memory.bytes);
                return Err(Error::internal("run", what));
            }
            return Ok(Array { dtype, shape, pointer: memory.pointer, bits: None });
        }
        let bits = environment.scalar(array.source, dtype)?;
        if bits.is_none() || elements(shape) != 1 {
            return Err(Error::internal("run", "only a scalar can lie in no buffer"));
        }
        Ok(Array { dtype, shape, pointer: std::ptr::null_mut(), bits })
    }

    /// The first element.
    pub fn pointer<T>(&self) -> *const T {
        match &self.bits {
            Some(bits) if cfg!(target_endian = "little") => std::ptr::from_ref(bits).cast(),
            // The low bytes of a big-endian word are its last.
            Some(bits) => std::ptr::from_ref(bits).cast::<u8>().wrapping_add(8 - self.dtype.size()).cast(),
            None => self.pointer.cast(),
        }
    }

    /// The first element, of a result.
    pub fn pointer_mut<T>(&self) -> *mut T {
        self.pointer.cast()
    }

    pub fn elements(&self) -> usize {
        elements(self.shape)
    }

    pub fn is_at(&self, other: &Array<'_>) -> bool {
        self.bits.is_none() && self.pointer == other.pointer
    }
}

pub fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The strides of an array in C order, in elements.
pub fn packed_strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let mut stride = 1;
    for (place, &extent) in strides.iter_mut().zip(shape).rev() {
        *place = stride;
        stride *= extent as isize;
    }
    strides
}

/// The extents before, along and behind `axis`, multiplied up.
pub fn around(shape: &[usize], axis: usize) -> Result<(usize, usize, usize)> {
    match shape.get(axis) {
        Some(&extent) => Ok((elements(&shape[..axis]), extent, elements(&shape[axis + 1..]))),
        None => Err(Error::internal("run", format!("axis {axis} of an array of rank {}", shape.len()))),
    }
}
