//! Which steps can run together, rows at a time, and in which parts they then take place.
//!
//! All iterate over the same number of *rows*. The first may be a matrix product; the others are fused kernels, each of
//! which makes of a row a row of its results (`tile::Member`), or adds rows up, and gathers and scatters of about an
//! element a row (`Indexed`). A kernel may read rows that an earlier one makes, but no other rows than the one at hand,
//! and no sum before all rows are done; what is gathered is there when sums are. Kernels of few elements that need no
//! rows run before all others, and those that need sums after.

use ckad_graph::Op;
use ckad_plan::program::{ArrayRef, BufferId, FusedKernel, Kernel, Load, Source, Step};

use super::indexed::Indexed;
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

/// What a step does with rows.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    Fused(&'a FusedKernel),
    Indexed(Indexed<'a>),
}

/// Steps that can run as one.
#[derive(Debug)]
pub struct Group<'a> {
    pub rows: usize,
    /// Number of steps.
    pub len: usize,
    pub product: Option<Product<'a>>,
    /// Which step each is, and what it does.
    pub members: Vec<(u32, Work<'a>)>,
    pub before: Vec<(u32, &'a Kernel)>,
    pub after: Vec<(u32, &'a Kernel)>,
    pub made: Vec<Made>,
    /// What is read by rows and made by none of the steps, with the bytes of a row.
    pub streams: Vec<(BufferId, usize)>,
    /// What is there only when all rows are done.
    sums: Vec<BufferId>,
    /// What gathers and scatters read before any row is worked on.
    first_of_all: Vec<BufferId>,
}

impl<'a> Group<'a> {
    /// The longest group that begins with the first of the steps; None if it has fewer than two kernels over rows.
    pub fn longest(steps: &'a [Step]) -> Option<Group<'a>> {
        let (first, rest) = steps.split_first()?;
        let mut group = match &first.kernel {
            Kernel::Structural { .. } => Group::of_product(&first.kernel)?,
            Kernel::Loop(_) => return None,
            Kernel::Fused(kernel) => {
                // Most steps end here: a long program has many.
                if bytes(kernel) < WORTH_JOINING || !follows(kernel, rest) {
                    return None;
                }
                let natural = steps.iter().map_while(|step| match &step.kernel {
                    Kernel::Fused(kernel) => Some(kernel).filter(|kernel| !Member::is_small(kernel)),
                    Kernel::Structural { .. } | Kernel::Loop(_) => None,
                });
                let rows = natural.take(4).find_map(Member::natural_rows);
                let mut group = Group::empty(rows.unwrap_or(kernel.extents.iter().product()));
                group.add(0, &first.kernel).then_some(())?;
                group
            }
        };
        group.first_of_all = first_of_all(steps);
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
            streams: Vec::new(),
            sums: Vec::new(),
            first_of_all: Vec::new(),
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
        match kernel {
            Kernel::Fused(fused) => self.add_fused(step, kernel, fused),
            Kernel::Structural { .. } => {
                Indexed::of(kernel).is_some_and(|indexed| self.add_indexed(step, kernel, indexed))
            }
            Kernel::Loop(_) => false,
        }
    }

    fn add_fused(&mut self, step: u32, kernel: &'a Kernel, fused: &'a FusedKernel) -> bool {
        let loaded = || fused.loads.iter().filter_map(|load| buffer(load.source));
        let reads_made = loaded().any(|id| self.made(id).is_some());
        let reads_sums = loaded().any(|id| self.sums.contains(&id));
        let small = Member::is_small(fused);
        let few = small || fused.extents.iter().product::<usize>() <= self.rows;
        // Blocks of rows are hardly ever nodes of the tree by which a number a row is added up.
        let adds_up = || Member::results(fused, self.rows).is_some_and(|all| all.iter().any(|(_, row)| row.is_none()));
        if few && (reads_sums || reads_made && !small && adds_up()) {
            // Of rows it may need a number each, which then lies in memory.
            let numbers = |id: BufferId| self.made(id).is_none_or(|made| made.row_bytes <= size_of::<u64>());
            if !loaded().all(numbers) {
                return false;
            }
            self.sums.extend(results(fused));
            self.after.push((step, kernel));
            return true;
        }
        if !reads_made && (small || few && results(fused).any(|id| self.first_of_all.contains(&id))) {
            self.before.push((step, kernel));
            return true;
        }
        let by_rows = fused.loads.iter().all(|load| {
            let made = buffer(load.source).and_then(|id| self.made(id));
            made.is_none_or(|made| reads_by_rows(load, &fused.extents, self.rows, made.row_bytes))
        });
        if small || reads_sums || !by_rows {
            return false;
        }
        let Some(results) = Member::results(fused, self.rows) else { return false };
        loaded().for_each(|id| self.is_read(id, step));
        for load in &fused.loads {
            self.streams.extend(self.stream(load, &fused.extents));
        }
        for (buffer, row_bytes) in results {
            match row_bytes {
                Some(row_bytes) => self.made.push(Made { buffer, row_bytes, first: step, last: step }),
                None => self.sums.push(buffer),
            }
        }
        self.members.push((step, Work::Fused(fused)));
        true
    }

    fn add_indexed(&mut self, step: u32, kernel: &'a Kernel, indexed: Indexed<'a>) -> bool {
        let (Some(row_bytes), Some(rows), Some(result)) =
            (indexed.row_bytes(self.rows), indexed.rows_buffer(), indexed.result_buffer())
        else {
            return false;
        };
        let is_made_here = |id: BufferId| self.made(id).is_some() || self.sums.contains(&id);
        if indexed.read_as_a_whole().any(is_made_here) || self.sums.contains(&rows) {
            return false;
        }
        let made = self.made(rows);
        if made.is_some_and(|made| made.row_bytes != row_bytes) {
            return false;
        }
        match (indexed.is_gather(), made) {
            // It needs no rows of this group.
            (true, None) => {
                self.before.push((step, kernel));
                return true;
            }
            (true, Some(_)) => self.sums.push(result),
            // Rows that somebody has read, or reads later, are not overwritten.
            (false, _) if result == rows && self.reads(rows) => return false,
            (false, Some(_)) if result == rows => {}
            (false, _) => self.made.push(Made { buffer: result, row_bytes, first: step, last: step }),
        }
        self.is_read(rows, step);
        self.members.push((step, Work::Indexed(indexed)));
        true
    }

    /// What a kernel reads row after row from memory, if it is not known yet.
    fn stream(&self, load: &Load, extents: &[usize]) -> Option<(BufferId, usize)> {
        let id = buffer(load.source)?;
        let row_bytes = extents.iter().product::<usize>() / self.rows * load.dtype.size();
        let known = self.made(id).is_some() || self.streams.iter().any(|&(stream, _)| stream == id);
        (!known && reads_by_rows(load, extents, self.rows, row_bytes)).then_some((id, row_bytes))
    }

    fn made(&self, id: BufferId) -> Option<&Made> {
        self.made.iter().find(|made| made.buffer == id)
    }

    fn is_read(&mut self, id: BufferId, step: u32) {
        self.made.iter_mut().filter(|made| made.buffer == id).for_each(|made| made.last = step);
    }

    /// Whether a kernel of the group reads the buffer.
    fn reads(&self, id: BufferId) -> bool {
        let of_product =
            self.product.iter().flat_map(|product| product.operands).any(|array| buffer(array.source) == Some(id));
        let of_members = self.members.iter().any(|(_, work)| match work {
            Work::Fused(fused) => fused.loads.iter().any(|load| load.source == Source::Buffer(id)),
            Work::Indexed(indexed) => {
                indexed.rows_buffer() == Some(id) || indexed.read_as_a_whole().any(|read| read == id)
            }
        });
        of_product || of_members || self.reads_apart(id)
    }

    /// Whether a kernel that runs before or after all rows reads the buffer, which then lies in memory.
    pub fn reads_apart(&self, id: BufferId) -> bool {
        let reads = |kernel: &Kernel| match kernel {
            Kernel::Fused(fused) => fused.loads.iter().any(|load| load.source == Source::Buffer(id)),
            Kernel::Structural { operands, .. } => operands.iter().any(|array| array.source == Source::Buffer(id)),
            Kernel::Loop(kernel) => kernel.operands.iter().any(|array| array.source == Source::Buffer(id)),
        };
        self.before.iter().chain(&self.after).any(|(_, kernel)| reads(kernel))
    }
}

/// What the gathers and scatters among the steps read as a whole.
fn first_of_all(steps: &[Step]) -> Vec<BufferId> {
    steps.iter().filter_map(|step| Indexed::of(&step.kernel)).flat_map(|indexed| indexed.read_as_a_whole()).collect()
}

fn buffer(source: Source) -> Option<BufferId> {
    match source {
        Source::Buffer(id) => Some(id),
        _ => None,
    }
}

/// Whether the next step that has to do with rows reads what the kernel writes.
fn follows(kernel: &FusedKernel, rest: &[Step]) -> bool {
    let written = |id: BufferId| results(kernel).any(|result| result == id);
    let next = rest.iter().find_map(|step| match &step.kernel {
        Kernel::Fused(next) if Member::is_small(next) => None,
        Kernel::Fused(next) => Some(next.loads.iter().filter_map(|load| buffer(load.source)).any(written)),
        next => match Indexed::of(next) {
            // A gather from another array runs before all rows.
            Some(indexed) => {
                Some(indexed.rows_buffer().is_some_and(written)).filter(|&reads| reads || !indexed.is_gather())
            }
            None => Some(false),
        },
    });
    next.unwrap_or(false)
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
