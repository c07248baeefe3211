//! Kernels of few elements: evaluated at once, without preparation, in registers on the stack.
//!
//! A loop over scalars or short vectors becomes many thousands of such kernels, and finding out how best to run one
//! would take longer than running it. The lanes are those of larger kernels, and so are the bits.

use std::mem::MaybeUninit;

use ckad_graph::{DType, Error, Result};
use ckad_plan::program::{FusedKernel, Load, Reduction, Source};

use super::bind::{first_element, first_position, lane};
use super::load::{fill, read_bits};
use super::prepare::{Spread, signature, spread};
use crate::lanes::reduce;
use crate::{Environment, Isa};

/// Most elements of the iteration.
const ELEMENTS: usize = 64;
/// Most registers.
const REGISTERS: usize = 32;

/// Room for the elements of one register, of whatever dtype.
#[repr(align(64))]
struct Slot([MaybeUninit<u64>; ELEMENTS]);

pub(super) fn broken(what: impl Into<String>) -> Error {
    Error::internal("fused kernel", what)
}

/// The number of elements, if the kernel is to be run here.
pub fn elements(kernel: &FusedKernel) -> Option<usize> {
    if usize::from(kernel.registers) > REGISTERS || kernel.extents.iter().any(|&extent| extent > ELEMENTS) {
        return None;
    }
    let elements = kernel.extents.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))?;
    let row = kernel.reduce.as_ref().map(|reduction| row_length(&kernel.extents, reduction));
    (elements <= ELEMENTS && row.is_none_or(|row| row.is_some() && elements > 0)).then_some(elements)
}

/// The number of elements that make one result, where these lie together.
pub(super) fn row_length(extents: &[usize], reduction: &Reduction) -> Option<usize> {
    let long_axes = || extents.iter().zip(&reduction.reduced).filter(|(extent, _)| **extent != 1);
    let rows = long_axes().skip_while(|(_, reduced)| !**reduced);
    let in_rows = rows.clone().count() > 0 && rows.clone().all(|(_, reduced)| *reduced);
    in_rows.then(|| rows.map(|(extent, _)| extent).product())
}

/// What the registers hold: an address and a dtype, or nothing yet.
struct Registers<'a> {
    slots: &'a mut [Slot; REGISTERS],
    at: [Option<(*const u8, DType)>; REGISTERS],
}

/// Asked for each operand of each instruction: what goes wrong is said elsewhere.
impl Registers<'_> {
    #[inline]
    fn slot(&mut self, register: u16) -> Result<*mut u8> {
        match self.slots.get_mut(usize::from(register)) {
            Some(slot) => Ok(slot.0.as_mut_ptr().cast()),
            None => Err(too_few(register)),
        }
    }

    #[inline]
    fn set(&mut self, register: u16, address: *const u8, dtype: DType) -> Result<()> {
        match self.at.get_mut(usize::from(register)) {
            Some(at) => *at = Some((address, dtype)),
            None => return Err(too_few(register)),
        }
        Ok(())
    }

    #[inline]
    fn get(&self, register: u16, dtype: DType) -> Result<*const u8> {
        match self.at.get(usize::from(register)) {
            Some(&Some((address, held))) if held == dtype => Ok(address),
            at => Err(holds_another(register, at.copied().flatten().map(|(_, held)| held), dtype)),
        }
    }
}

#[cold]
fn too_few(register: u16) -> Error {
    broken(format!("register {register} of too few"))
}

#[cold]
fn holds_another(register: u16, held: Option<DType>, dtype: DType) -> Error {
    match held {
        Some(held) => broken(format!("register {register} holds {held}, not {dtype}")),
        None => broken(format!("register {register} is read before it is written")),
    }
}

/// Runs a kernel of `n` elements, as [`elements`] counts them.
///
/// # Safety
/// As for `crate::execute`.
pub unsafe fn execute(kernel: &FusedKernel, n: usize, isa: Isa, environment: &Environment<'_>) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let mut slots = [const { Slot([MaybeUninit::uninit(); ELEMENTS]) }; REGISTERS];
    let mut registers = Registers { slots: &mut slots, at: [None; REGISTERS] };
    for load in &kernel.loads {
        if load.strides.len() != kernel.extents.len() {
            return Err(broken("a load needs a stride per axis"));
        }
        let slot = registers.slot(load.register)?;
        // SAFETY: a slot has room for all elements; the caller's promises.
        let address = unsafe { read(load, &kernel.extents, n, slot, environment)? };
        registers.set(load.register, address, load.dtype)?;
    }
    for instruction in &kernel.instructions {
        let (arity, typed) = signature(instruction)?;
        let mut operands = [std::ptr::null(); 3];
        for (position, operand) in operands.iter_mut().enumerate().take(arity) {
            let dtype = if position < typed { DType::Bool } else { instruction.dtype };
            *operand = registers.get(instruction.operands[position], dtype)?;
        }
        let slot = registers.slot(instruction.result)?;
        if operands[..arity].contains(&slot.cast_const()) {
            return Err(broken("an instruction writes its operand"));
        }
        let [a, b, c] = operands;
        // SAFETY: each address holds n elements of the dtype that was just checked, the result's is none of the
        // operands', and the lane was chosen for an instruction set that the CPU has.
        unsafe { lane(instruction, isa)?(slot, a, b, c, n) };
        registers.set(instruction.result, slot, instruction.result_dtype)?;
    }
    for store in &kernel.stores {
        let memory = environment.buffer(store.buffer)?;
        let bytes = n * store.dtype.size();
        if memory.bytes < bytes {
            return Err(broken("a store is larger than its buffer"));
        }
        let source = registers.get(store.register, store.dtype)?;
        // SAFETY: both have room for n elements; results overlap no operands.
        unsafe { std::ptr::copy_nonoverlapping(source, memory.pointer, bytes) };
    }
    if let Some(reduction) = &kernel.reduce {
        let length = row_length(&kernel.extents, reduction).ok_or_else(|| broken("not a reduction of rows"))?;
        let lanes = reduce(reduction.kind, reduction.dtype, isa);
        let target = environment.buffer(reduction.buffer)?;
        if target.bytes < n / length * lanes.dtype.size() {
            return Err(broken("a reduction is larger than its buffer"));
        }
        let source = registers.get(reduction.register, reduction.dtype)?;
        // SAFETY: the source holds n elements, the target the result of each row; results overlap no operands.
        unsafe { (lanes.rows)(target.pointer, source, length, n / length) };
    }
    Ok(())
}

/// The load's elements in the order of the iteration: where they are, or in `slot`.
///
/// # Safety
/// `slot` has room for `n` elements of 8 bytes, and `n`, not 0, is the product of the extents; as for `crate::execute`.
unsafe fn read(
    load: &Load,
    extents: &[usize],
    n: usize,
    slot: *mut u8,
    environment: &Environment<'_>,
) -> Result<*const u8> {
    let dtype = load.dtype;
    if let Some(bits) = environment.scalar(load.source, dtype)? {
        // SAFETY: the slot has room.
        unsafe { fill(slot, dtype, bits, n) };
        return Ok(slot);
    }
    let Source::Buffer(buffer) = load.source else {
        let first = first_position(load, environment)?;
        for (flat, position) in positions(extents, &load.strides, n).enumerate() {
            // SAFETY: the slot has room.
            unsafe { fill(slot.add(flat * dtype.size()), dtype, dtype.bits_of_i64(first.wrapping_add(position)), 1) };
        }
        return Ok(slot);
    };
    let first = first_element(load, buffer, extents, environment)?;
    match spread(load, extents) {
        Spread::InOrder => return Ok(first),
        Spread::Scalar if n == 1 => return Ok(first),
        // SAFETY: an element of an operand; the slot has room.
        Spread::Scalar => unsafe { fill(slot, dtype, read_bits(first, dtype), n) },
        Spread::Elsewhere => {
            for (flat, position) in positions(extents, &load.strides, n).enumerate() {
                // SAFETY: all elements of the load lie inside its buffer, as `first_element` has checked.
                unsafe {
                    let bits = read_bits(first.offset(position as isize * dtype.size() as isize), dtype);
                    fill(slot.add(flat * dtype.size()), dtype, bits, 1);
                }
            }
        }
    }
    Ok(slot)
}

/// The positions of the iteration's elements under these strides, in C order.
pub(super) fn positions(extents: &[usize], strides: &[i64], n: usize) -> impl Iterator<Item = i64> {
    (0..n).map(move |flat| {
        let mut rest = flat;
        let axes = extents.iter().zip(strides).rev();
        axes.fold(0i64, |position, (&extent, &stride)| {
            let digit = (rest % extent) as i64;
            rest /= extent;
            position.wrapping_add(digit.wrapping_mul(stride))
        })
    })
}
