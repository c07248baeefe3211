//! Tile registers of a fused kernel: loads and instructions, written over any number of values, are given the
//! few registers that are alive at once.
//!
//! All loads are made before the first instruction, so each has a register from the start to its last use. An
//! instruction's result never takes the register of one of its operands, which kernels rely on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ckad_graph::{Error, Result};

/// The value of an instruction under construction: an index over loads, then instructions.
pub(crate) type Value = u32;

/// Registers of all values, and how many registers they use.
pub(crate) struct Assignment {
    pub registers: Vec<u16>,
    pub count: u16,
}

/// `operands[k]` are those of the k-th instruction, whose result is value `loads + k`; `kept` must survive to the end.
pub(crate) fn assign<'a>(
    loads: usize,
    operands: impl ExactSizeIterator<Item = &'a [Value]> + Clone,
    kept: &[Value],
) -> Result<Assignment> {
    let values = loads + operands.len();
    let mut last_use = vec![0; values];
    for (k, list) in operands.clone().enumerate() {
        for &operand in list {
            last_use[operand as usize] = k;
        }
    }
    for &value in kept {
        last_use[value as usize] = usize::MAX;
    }
    let mut registers: Vec<u32> = Vec::with_capacity(values);
    registers.extend(0..loads as u32);
    let mut count = loads as u32;
    let mut free: BinaryHeap<Reverse<u32>> = BinaryHeap::new();
    for (k, list) in operands.enumerate() {
        // The operands still hold theirs: the lowest free register is none of them.
        let register = free.pop().map_or(count, |Reverse(register)| register);
        count = count.max(register + 1);
        registers.push(register);
        for (position, &operand) in list.iter().enumerate() {
            if last_use[operand as usize] == k && !list[..position].contains(&operand) {
                free.push(Reverse(registers[operand as usize]));
            }
        }
    }
    let narrow = |register: u32| {
        u16::try_from(register).map_err(|_| Error::internal("lower", "a fused kernel of more than 65535 registers"))
    };
    Ok(Assignment { registers: registers.into_iter().map(narrow).collect::<Result<_>>()?, count: narrow(count)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_alternates_between_two_registers() {
        let operands: Vec<Vec<Value>> = (0..100).map(|k| vec![k]).collect();
        let assignment = assign(1, operands.iter().map(Vec::as_slice), &[100]).unwrap();
        assert_eq!(assignment.count, 2);
        for (k, list) in operands.iter().enumerate() {
            assert_ne!(assignment.registers[1 + k], assignment.registers[list[0] as usize]);
        }
    }

    #[test]
    fn what_is_stored_survives() {
        // v2 = v0 + v1; v3 = v2 * v2; v4 = v3 - v1; v2 and v4 are stored.
        let lists: [&[Value]; 3] = [&[0, 1], &[2, 2], &[3, 1]];
        let assignment = assign(2, lists.into_iter(), &[2, 4]).unwrap();
        let r = &assignment.registers;
        assert!(r[3] != r[2] && r[4] != r[2] && r[4] != r[3] && r[4] != r[1]);
        assert_eq!(assignment.count, 4);
    }
}
