//! Which steps can run together, rows at a time, and in which parts they then take place.
//!
//! All iterate over the same number of *rows*. The first may be a matrix product; the others are fused kernels, each of
//! which makes of a row a row of its results (`tile::Member`), or adds rows up. A kernel may read rows that an earlier
//! one makes, but no other rows than the one at hand, and no sum before all rows are done. Kernels of few elements that
//! need no rows run before all others, and those that need their sums after.

use ckad_graph::Op;
use ckad_plan::program::{ArrayRef, BufferId, FusedKernel, Kernel, Load, Source, Step};

use crate::matmul::Rows;
use crate::tile::{Member, reads_by_rows};

/// Bytes from which on an array is worth it: a smaller one is still in cache when the next kernel reads it.
const WORTH_JOINING: usize = 1 << 16;

/// A matrix product by rows.
#[derive(Debug)]
pub struct Product<'a> {
    pub rows: Rows,
    pub operands: &'a [ArrayRef; 2],
    pub result: BufferId,
}

/// A buffer whose rows are made here.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub buffer: BufferId,
    pub row_bytes: usize,
    /// The steps of the group that make it and that read it last.
    pub first: u32,
    pub last: u32,
}

/// Steps that can run as one.
#[derive(Debug)]
pub struct Group<'a> {
    pub rows: usize,
    /// Number of steps.
    pub len: usize,
    pub product: Option<Product<'a>>,
    /// Which step each is, and its kernel.
    pub members: Vec<(u32, &'a FusedKernel)>,
    pub before: Vec<&'a Kernel>,
    pub after: Vec<&'a Kernel>,
    pub made: Vec<Made>,
    /// What is there only when all rows are done.
    sums: Vec<BufferId>,
}

impl<'a> Group<'a> {
    /// The longest group that begins with the first of the steps; None if it has fewer than two kernels over rows.
    pub fn longest(steps: &'a [Step]) -> Option<Group<'a>> {
        let (first, rest) = steps.split_first()?;
        let mut group = match &first.kernel {
            Kernel::Structural { .. } => Group::of_product(&first.kernel)?,
            Kernel::Fused(kernel) => {
                // Most steps end here: a long program has many.
                if bytes(kernel) < WORTH_JOINING || !follows(kernel, rest) {
                    return None;
                }
                let natural = steps.iter().map_while(|step| match &step.kernel {
                    Kernel::Fused(kernel) => Some(kernel).filter(|kernel| !Member::is_small(kernel)),
                    Kernel::Structural { .. } => None,
                });
                let rows = natural.take(4).find_map(Member::natural_rows);
                let mut group = Group::empty(rows.unwrap_or(kernel.extents.iter().product()));
                group.add(0, &first.kernel).then_some(())?;
                group
            }
        };
        // Behind the last kernel over rows nothing is gained.
        let mut last = (1, group.before.len(), group.after.len());
        for (index, step) in rest.iter().enumerate() {
            let members = group.members.len();
            if !group.add(index as u32 + 1, &step.kernel) {
                break;
            }
            if group.members.len() > members {
                last = (index + 2, group.before.len(), group.after.len());
            }
        }
        group.len = last.0;
        group.before.truncate(last.1);
        group.after.truncate(last.2);
        (group.members.len() + usize::from(group.product.is_some()) >= 2).then_some(group)
    }

    fn empty(rows: usize) -> Group<'a> {
        Group {
            rows,
            len: 1,
            product: None,
            members: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            made: Vec::new(),
            sums: Vec::new(),
        }
    }

    fn of_product(kernel: &'a Kernel) -> Option<Group<'a>> {
        let Kernel::Structural { op: Op::Dot { absorb, .. }, parameters, operands, result } = kernel else {
            return None;
        };
        let operands: &[ArrayRef; 2] = operands.as_slice().try_into().ok()?;
        let ([a, b], Source::Buffer(buffer)) = (operands, result.source) else { return None };
        let bytes = result.shape.iter().product::<usize>() * result.dtype.size();
        if a.dtype != result.dtype || b.dtype != result.dtype || bytes < WORTH_JOINING {
            return None;
        }
        let rows = Rows::new(&parameters.list, *absorb, result.dtype, &a.shape, &b.shape, &result.shape)?;
        let mut group = Group::empty(rows.count());
        group.made.push(Made { buffer, row_bytes: rows.width() * result.dtype.size(), first: 0, last: 0 });
        group.product = Some(Product { rows, operands, result: buffer });
        Some(group)
    }

    /// Takes the kernel in, if it can run with the others.
    fn add(&mut self, step: u32, kernel: &'a Kernel) -> bool {
        let Kernel::Fused(fused) = kernel else { return false };
        let made = |load: &Load| self.made.iter().position(|made| load.source == Source::Buffer(made.buffer));
        let summed = |load: &&Load| self.sums.iter().any(|&sum| load.source == Source::Buffer(sum));
        let reads_sums = fused.loads.iter().any(|load| summed(&load));
        if Member::is_small(fused) {
            if fused.loads.iter().any(|load| made(load).is_some()) {
                return false;
            }
            if reads_sums {
                self.sums.extend(results(fused));
                self.after.push(kernel);
            } else {
                self.before.push(kernel);
            }
            return true;
        }
        let by_rows = fused.loads.iter().all(|load| {
            made(load).is_none_or(|made| reads_by_rows(load, &fused.extents, self.rows, self.made[made].row_bytes))
        });
        let Some(results) = Member::results(fused, self.rows).filter(|_| by_rows && !reads_sums) else { return false };
        let read: Vec<usize> = fused.loads.iter().filter_map(made).collect();
        read.into_iter().for_each(|made| self.made[made].last = step);
        for (buffer, row_bytes) in results {
            match row_bytes {
                Some(row_bytes) => self.made.push(Made { buffer, row_bytes, first: step, last: step }),
                None => self.sums.push(buffer),
            }
        }
        self.members.push((step, fused));
        true
    }
}

/// Whether the next step that is not small reads what the kernel writes.
fn follows(kernel: &FusedKernel, rest: &[Step]) -> bool {
    let small = |step: &&Step| matches!(&step.kernel, Kernel::Fused(kernel) if Member::is_small(kernel));
    match rest.iter().find(|step| !small(step)).map(|step| &step.kernel) {
        Some(Kernel::Fused(next)) => {
            results(kernel).any(|id| next.loads.iter().any(|load| load.source == Source::Buffer(id)))
        }
        _ => false,
    }
}

fn results(kernel: &FusedKernel) -> impl Iterator<Item = BufferId> + '_ {
    kernel.stores.iter().map(|store| store.buffer).chain(kernel.reduce.as_ref().map(|reduction| reduction.buffer))
}

/// Bytes of the largest array that a kernel reads or writes, were all of the iteration's shape.
fn bytes(kernel: &FusedKernel) -> usize {
    let loads = kernel.loads.iter().map(|load| load.dtype.size());
    let size = loads.chain(kernel.stores.iter().map(|store| store.dtype.size())).max();
    kernel.extents.iter().product::<usize>() * size.unwrap_or(0)
}
