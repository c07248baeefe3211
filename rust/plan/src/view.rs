//! Chains of views resolved to strides.
//!
//! A view-like node (reshape, transpose, broadcast, strided read) inside a cluster is not computed: whoever
//! uses it loads from the memory at the chain's foot. [`compose`] finds that foot and the strides over the
//! user's iteration, or says that no strides exist and the view must be computed into an array of its own.
//! Clustering asks whether a chain is expressible; lowering asks for the load itself.

use ckad_graph::{Graph, NodeId, Op, StartId};
use smallvec::{SmallVec, smallvec};

/// One stride for each axis, in elements; in place where axes are few.
pub type Strides = SmallVec<[i64; 2]>;

/// `foot[offset + Σ starts + Σ i·strides]`, in elements of the foot's flat memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// The value or leaf that the chain ends at.
    pub foot: NodeId,
    pub offset: i64,
    /// Entries of the table of starts that are added to the offset; one may occur twice.
    pub starts: Vec<StartId>,
    /// One stride for each axis of the iteration.
    pub strides: Strides,
}

/// Operations that only rename the elements of their operand.
pub fn is_view(op: Op) -> bool {
    matches!(op, Op::Reshape | Op::Transpose { .. } | Op::Broadcast | Op::StridedRead { .. })
}

/// Strides of an array in C order.
pub fn packed_strides(shape: &[i64]) -> Strides {
    let mut strides: Strides = smallvec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

/// Strides of an array in C order under NumPy's broadcasting to `iteration`; `None` where it does not broadcast.
pub fn broadcast_strides(shape: &[i64], iteration: &[i64]) -> Option<Strides> {
    let missing = iteration.len().checked_sub(shape.len())?;
    let mut strides: Strides = smallvec![0; iteration.len()];
    let mut packed = 1;
    for ((stride, &extent), &target) in strides[missing..].iter_mut().zip(shape).zip(&iteration[missing..]).rev() {
        match extent {
            1 => {}
            _ if extent == target => *stride = packed,
            _ => return None,
        }
        packed *= extent.max(1);
    }
    Some(strides)
}

/// How `node`, broadcast to the shape `iteration`, reads the memory at the foot of its chain of views. `inner`
/// says of a view whether the chain goes through it; the first node that is no such view is the foot.
pub fn compose(graph: &Graph, node: NodeId, iteration: &[i64], inner: impl Fn(NodeId) -> bool) -> Option<View> {
    let strides = broadcast_strides(graph.shape(node), iteration)?;
    let mut view = View { foot: node, offset: 0, starts: Vec::new(), strides };
    while is_view(graph.op(view.foot)) && inner(view.foot) {
        step(graph, &mut view, iteration)?;
    }
    Some(view)
}

/// Replaces the view's foot by the foot's operand.
fn step(graph: &Graph, view: &mut View, iteration: &[i64]) -> Option<()> {
    let node = view.foot;
    let operand = *graph.operands(node).first()?;
    let shape = graph.shape(node);
    view.foot = operand;
    let (strides, start) = match graph.op(node) {
        Op::Reshape => return Some(()),
        Op::Transpose { perm } => {
            let packed = packed_strides(graph.shape(operand));
            (graph.lists.get(perm).iter().map(|&axis| packed[axis as usize]).collect(), None)
        }
        Op::Broadcast => (broadcast_strides(graph.shape(operand), shape)?, None),
        Op::StridedRead { strides, start } => (graph.lists.get(strides).into(), Some(start)),
        _ => return None,
    };
    if iteration.contains(&0) {
        view.strides.fill(0);
    } else {
        let (shape, strides) = coalesce(shape, &strides);
        through(view, iteration, &shape, &strides)?;
    }
    view.starts.extend(start);
    Some(())
}

/// Merges axes that one stride covers and drops axes of extent 1: fewer digits, so fewer carries below.
fn coalesce(shape: &[i64], strides: &[i64]) -> (Strides, Strides) {
    let mut merged: (Strides, Strides) = (Strides::new(), Strides::new());
    for (&extent, &stride) in shape.iter().zip(strides).filter(|&(&extent, _)| extent != 1) {
        match (merged.0.last_mut(), merged.1.last_mut()) {
            (Some(outer_extent), Some(outer_stride)) if *outer_stride == stride * extent => {
                *outer_extent *= extent;
                *outer_stride = stride;
            }
            _ => {
                merged.0.push(extent);
                merged.1.push(stride);
            }
        }
    }
    merged
}

/// Turns an affine map into the flat memory of an array of `shape` into one through the array's own `strides`.
/// Possible where no axis of the iteration, moved along alone or with the others, carries from one digit of
/// the flat index to the next.
fn through(view: &mut View, iteration: &[i64], shape: &[i64], strides: &[i64]) -> Option<()> {
    let [stride] = strides else {
        return if strides.is_empty() { through_scalar(view) } else { through_digits(view, iteration, shape, strides) };
    };
    if !view.starts.is_empty() && *stride != 1 {
        return None;
    }
    view.offset *= stride;
    view.strides.iter_mut().for_each(|own| *own *= stride);
    Some(())
}

/// One element: every index is 0.
fn through_scalar(view: &mut View) -> Option<()> {
    view.offset = 0;
    view.starts.clear();
    view.strides.fill(0);
    Some(())
}

fn through_digits(view: &mut View, iteration: &[i64], shape: &[i64], strides: &[i64]) -> Option<()> {
    // Where a start is known only to the run, so are its digits.
    if !view.starts.is_empty() {
        return None;
    }
    let packed = packed_strides(shape);
    let digits = |flat: i64| {
        let mut rest = flat.abs();
        packed.iter().map(move |&unit| {
            let digit = rest / unit;
            rest -= digit * unit;
            digit * flat.signum()
        })
    };
    let mut low: Vec<i64> = digits(view.offset).collect();
    let mut high = low.clone();
    let mut moved = Strides::with_capacity(iteration.len());
    for (&extent, &stride) in iteration.iter().zip(&view.strides) {
        let mut total = 0;
        for (axis, digit) in digits(stride).enumerate() {
            let reach = digit * (extent - 1);
            low[axis] += reach.min(0);
            high[axis] += reach.max(0);
            total += digit * strides[axis];
        }
        moved.push(if extent > 1 { total } else { 0 });
    }
    let inside = (0..shape.len()).all(|axis| low[axis] >= 0 && high[axis] < shape[axis]);
    if !inside {
        return None;
    }
    view.offset = digits(view.offset).zip(strides).map(|(digit, stride)| digit * stride).sum();
    view.strides = moved;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckad_graph::{Attributes, DType};

    fn push(graph: &mut Graph, op: Op, operands: &[NodeId], shape: &[i64]) -> NodeId {
        let shape = graph.lists.intern(shape).unwrap();
        graph.push(op, operands, DType::F64, shape, Attributes::default()).unwrap()
    }

    fn input(graph: &mut Graph, shape: &[i64]) -> NodeId {
        let shape = graph.lists.intern(shape).unwrap();
        graph.push_input(DType::F64, shape, Attributes::default()).unwrap()
    }

    fn transpose(graph: &mut Graph, x: NodeId, perm: &[i64]) -> NodeId {
        let shape: Vec<i64> = perm.iter().map(|&axis| graph.shape(x)[axis as usize]).collect();
        let perm = graph.lists.intern(perm).unwrap();
        push(graph, Op::Transpose { perm }, &[x], &shape)
    }

    fn read(graph: &mut Graph, x: NodeId, shape: &[i64], strides: &[i64], start: i64) -> NodeId {
        let strides = graph.lists.intern(strides).unwrap();
        let start = graph.push_start(start).unwrap();
        push(graph, Op::StridedRead { strides, start }, &[x], shape)
    }

    /// Flat index into the foot of each element of `node`, by the definition of each operation.
    fn by_definition(graph: &Graph, node: NodeId) -> Vec<i64> {
        let mut map: Vec<i64> = (0..graph.elements(node) as i64).collect();
        let mut at = node;
        while is_view(graph.op(at)) {
            let operand = graph.operands(at)[0];
            let shape = graph.shape(at).to_vec();
            let from = graph.shape(operand).to_vec();
            let (strides, start) = match graph.op(at) {
                Op::Reshape => (packed_strides(&shape), 0),
                Op::Transpose { perm } => {
                    let packed = packed_strides(&from);
                    (graph.lists.get(perm).iter().map(|&axis| packed[axis as usize]).collect(), 0)
                }
                Op::Broadcast => (broadcast_strides(&from, &shape).unwrap(), 0),
                Op::StridedRead { strides, start } => (graph.lists.get(strides).into(), graph.starts[start.0 as usize]),
                _ => unreachable!(),
            };
            for flat in &mut map {
                let mut rest = *flat;
                let mut moved = start;
                for (unit, stride) in packed_strides(&shape).iter().zip(&strides) {
                    moved += rest / unit * stride;
                    rest %= unit;
                }
                *flat = moved;
            }
            at = operand;
        }
        map
    }

    fn check(graph: &Graph, node: NodeId) -> bool {
        let shape = graph.shape(node).to_vec();
        let Some(view) = compose(graph, node, &shape, |_| true) else { return false };
        let base: i64 = view.offset + view.starts.iter().map(|start| graph.starts[start.0 as usize]).sum::<i64>();
        let found: Vec<i64> = (0..graph.elements(node) as i64)
            .map(|flat| {
                let mut rest = flat;
                let mut index = base;
                for (unit, stride) in packed_strides(&shape).iter().zip(&view.strides) {
                    index += rest / unit * stride;
                    rest %= unit;
                }
                index
            })
            .collect();
        assert_eq!(found, by_definition(graph, node));
        assert!(graph.op(view.foot).is_leaf());
        true
    }

    #[test]
    fn chains_that_strides_express() {
        let mut graph = Graph::new();
        let x = input(&mut graph, &[4, 6]);
        let t = transpose(&mut graph, x, &[1, 0]);
        assert!(check(&graph, t));
        let back = transpose(&mut graph, t, &[1, 0]);
        assert!(check(&graph, back));
        let split = push(&mut graph, Op::Reshape, &[t], &[2, 3, 2, 2]);
        assert!(check(&graph, split));
        // Rows are contiguous, so their reshape is expressible though the start is not known.
        let rows = read(&mut graph, x, &[2, 6], &[6, 1], 6);
        let flat = push(&mut graph, Op::Reshape, &[rows], &[12]);
        let every_other = read(&mut graph, flat, &[6], &[2], 1);
        assert!(check(&graph, every_other));
        let bias = input(&mut graph, &[6]);
        let wide = push(&mut graph, Op::Broadcast, &[bias], &[5, 6]);
        let turned = transpose(&mut graph, wide, &[1, 0]);
        assert!(check(&graph, turned));
        let reversed = read(&mut graph, x, &[4, 6], &[6, -1], 5);
        let turned = transpose(&mut graph, reversed, &[1, 0]);
        assert!(check(&graph, turned));
        let column = push(&mut graph, Op::Reshape, &[bias], &[6, 1]);
        let grid = push(&mut graph, Op::Broadcast, &[column], &[6, 6]);
        assert!(check(&graph, grid));
    }

    #[test]
    fn chains_that_need_a_copy() {
        let mut graph = Graph::new();
        let x = input(&mut graph, &[4, 6]);
        let t = transpose(&mut graph, x, &[1, 0]);
        let flat = push(&mut graph, Op::Reshape, &[t], &[24]);
        assert!(!check(&graph, flat));
        // A start known only to the run, into a transposed array.
        let part = read(&mut graph, t, &[2], &[4], 3);
        assert!(!check(&graph, part));
    }

    #[test]
    fn the_chain_stops_where_it_is_told() {
        let mut graph = Graph::new();
        let x = input(&mut graph, &[4, 6]);
        let t = transpose(&mut graph, x, &[1, 0]);
        let split = push(&mut graph, Op::Reshape, &[t], &[24]);
        let view = compose(&graph, split, &[2, 24], |node| node != t).unwrap();
        assert_eq!((view.foot, view.strides.as_slice()), (t, [0, 1].as_slice()));
        assert!(compose(&graph, split, &[2, 23], |_| true).is_none());
    }

    #[test]
    fn random_chains_agree_with_the_definition() {
        let mut state = 7u64;
        let mut random = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        let mut expressed = 0;
        for _ in 0..2000 {
            let mut graph = Graph::new();
            let mut node = input(&mut graph, &[2, 6, 4]);
            for _ in 0..random(5) {
                let shape = graph.shape(node).to_vec();
                node = match random(4) {
                    0 => {
                        let choices: [&[i64]; 4] = [&[48], &[6, 8], &[4, 3, 4], &[2, 2, 12]];
                        let choice = choices[random(4) as usize];
                        if graph.elements(node) != 48 {
                            continue;
                        }
                        push(&mut graph, Op::Reshape, &[node], choice)
                    }
                    1 => {
                        let mut perm: Vec<i64> = (0..shape.len() as i64).collect();
                        perm.rotate_left(random(shape.len() as u64) as usize);
                        transpose(&mut graph, node, &perm)
                    }
                    2 if shape.len() < 4 => {
                        let wide: Vec<i64> = std::iter::once(3).chain(shape.iter().copied()).collect();
                        push(&mut graph, Op::Broadcast, &[node], &wide)
                    }
                    _ => {
                        let strides = packed_strides(&shape);
                        let halved: Vec<i64> = shape.iter().map(|&extent| (extent + 1) / 2).collect();
                        let skip = 1 + random(2) as i64;
                        let strides: Vec<i64> = halved
                            .iter()
                            .zip(&strides)
                            .zip(&shape)
                            .map(|((&h, &s), &n)| if h * skip - skip < n { s * skip } else { s })
                            .collect();
                        read(&mut graph, node, &halved, &strides, 0)
                    }
                };
            }
            expressed += usize::from(check(&graph, node));
        }
        assert!(expressed > 1000, "{expressed}");
    }
}
