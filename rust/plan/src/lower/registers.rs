//! Tile registers of a fused kernel: loads and instructions, written over any number of values, are given the
//! few registers that are alive at once.
//!
//! All loads are made before the first instruction, so each has a register from the start to its last use. An
//! instruction's result never takes the register of one of its operands, which kernels rely on.

use ckad_graph::{Error, Result};

/// The value of an instruction under construction: an index over loads, then instructions.
pub(crate) type Value = u32;

/// Registers of one kernel after another, in the same memory.
#[derive(Default)]
pub(crate) struct Assignment {
    /// Of all values.
    pub registers: Vec<u16>,
    /// How many registers they use.
    pub count: u16,
    last_use: Vec<usize>,
    free: Free,
}

/// A set of registers, a bit each.
#[derive(Default)]
struct Free {
    words: Vec<u64>,
}

impl Free {
    fn insert(&mut self, register: u16) {
        let word = usize::from(register / 64);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (register % 64);
    }

    fn take_lowest(&mut self) -> Option<u16> {
        let word = self.words.iter().position(|&word| word != 0)?;
        let bit = self.words[word].trailing_zeros();
        self.words[word] &= self.words[word] - 1;
        Some((word * 64) as u16 + bit as u16)
    }
}

impl Assignment {
    /// `operands[k]` are those of the k-th instruction, whose result is value `loads + k`; `kept` must survive to the
    /// end.
    pub fn assign<'a>(
        &mut self,
        loads: usize,
        operands: impl ExactSizeIterator<Item = &'a [Value]> + Clone,
        kept: &[Value],
    ) -> Result<()> {
        let too_many = |_| Error::internal("lower", "a fused kernel of more than 65535 registers");
        let values = loads + operands.len();
        self.last_use.clear();
        self.last_use.resize(values, 0);
        for (k, list) in operands.clone().enumerate() {
            for &operand in list {
                self.last_use[operand as usize] = k;
            }
        }
        for &value in kept {
            self.last_use[value as usize] = usize::MAX;
        }
        self.count = u16::try_from(loads).map_err(too_many)?;
        self.registers.clear();
        self.registers.extend(0..self.count);
        self.free.words.clear();
        for (k, list) in operands.enumerate() {
            // The operands still hold theirs: the lowest free register is none of them.
            let register = self.free.take_lowest().unwrap_or(self.count);
            self.count = self.count.max(u16::try_from(u32::from(register) + 1).map_err(too_many)?);
            self.registers.push(register);
            for (position, &operand) in list.iter().enumerate() {
                if self.last_use[operand as usize] == k && !list[..position].contains(&operand) {
                    self.free.insert(self.registers[operand as usize]);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_alternates_between_two_registers() {
        let operands: Vec<Vec<Value>> = (0..100).map(|k| vec![k]).collect();
        let mut assignment = Assignment::default();
        assignment.assign(1, operands.iter().map(Vec::as_slice), &[100]).unwrap();
        assert_eq!(assignment.count, 2);
        for (k, list) in operands.iter().enumerate() {
            assert_ne!(assignment.registers[1 + k], assignment.registers[list[0] as usize]);
        }
    }

    #[test]
    fn what_is_stored_survives() {
        // v2 = v0 + v1; v3 = v2 * v2; v4 = v3 - v1; v2 and v4 are stored.
        let lists: [&[Value]; 3] = [&[0, 1], &[2, 2], &[3, 1]];
        let mut assignment = Assignment::default();
        assignment.assign(2, lists.into_iter(), &[2, 4]).unwrap();
        let r = &assignment.registers;
        assert!(r[3] != r[2] && r[4] != r[2] && r[4] != r[3] && r[4] != r[1]);
        assert_eq!(assignment.count, 4);
    }
}
