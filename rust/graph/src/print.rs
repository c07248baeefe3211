//! A graph as readable text: a line per node.

use crate::graph::shape_text;
use crate::{CallKind, Graph, NodeId, Op, Result, interrupt, tables};

/// The operation whose errors these are.
const OP: &str = "print";

/// How the printer names what this crate cannot know: operations and source lines.
pub struct NodeText<'a> {
    pub op: &'a dyn Fn(Op) -> String,
    /// `file:line` of a line id, or an empty string.
    pub line: &'a dyn Fn(u32) -> String,
}

/// One line per node: name, operation, operands, parameters, dtype and shape, source line.
pub fn print_graph(graph: &Graph, text: &NodeText<'_>) -> Result<String> {
    let mut out = String::new();
    for id in graph.ids() {
        interrupt::check_at(id.index())?;
        let node = graph.node(id);
        let shape = shape_text(graph.shape(id));
        let line = (text.line)(node.attributes.line);
        let parameters = parameters(graph, id);
        let begin = out.len();
        tables::write(OP, &mut out, &format!("%{} = {}(", id.0, (text.op)(node.op)))?;
        names(&mut out, graph.operands(id))?;
        tables::write(OP, &mut out, &format!("){parameters}"))?;
        let width = 48usize.saturating_sub(out[begin..].chars().count());
        let rest = format!("{:width$} {}{shape:<12}", "", node.dtype);
        let line = if line.is_empty() { line } else { format!("  # {line}") };
        tables::write(OP, &mut out, format!("{rest}{line}").trim_end())?;
        tables::write(OP, &mut out, "\n")?;
    }
    tables::write(OP, &mut out, "return ")?;
    names(&mut out, &graph.outputs)?;
    tables::write(OP, &mut out, "\n")?;
    Ok(out)
}

/// `%1, %2`: a node may have as many operands as a graph has nodes.
fn names(out: &mut String, ids: &[NodeId]) -> Result<()> {
    for (index, id) in ids.iter().enumerate() {
        interrupt::check_at(index)?;
        tables::write(OP, out, &format!("{}%{}", if index == 0 { "" } else { ", " }, id.0))?;
    }
    Ok(())
}

fn parameters(graph: &Graph, id: NodeId) -> String {
    let list = |list| shape_text(graph.lists.get(list));
    match graph.op(id) {
        Op::Input(index) => format!(" [{index}]"),
        Op::Literal(bits) => format!(" {}", f32::from_bits(bits)),
        Op::Scalar(index) => {
            let dtype = graph.dtype(id);
            let bits = graph.scalars[index as usize];
            if dtype.is_float() {
                format!(" {}", dtype.f64_of_bits(bits))
            } else {
                format!(" {}", dtype.i64_of_bits(bits))
            }
        }
        Op::Constant(index) => format!(" [{index}]"),
        Op::Iota { axis } | Op::Concatenate { axis } | Op::Argsort { axis } | Op::ArgReduce { axis, .. } => {
            format!(" axis={axis}")
        }
        Op::CumulativeSum { axis, reverse } | Op::LinearRecurrence { axis, reverse, .. } => {
            format!(" axis={axis}{}", if reverse { " reverse" } else { "" })
        }
        Op::Transpose { perm } => format!(" axes={}", list(perm)),
        Op::StridedRead { strides, start }
        | Op::StridedWrite { strides, start }
        | Op::StridedAdd { strides, start } => {
            format!(" start={} strides={}", graph.starts[start.0 as usize], list(strides))
        }
        Op::Pad { widths } => format!(" widths={}", list(widths)),
        Op::Reduce { axes, .. } => format!(" axes={}", list(axes)),
        Op::Dot { axes, .. } => format!(" axes={}", list(axes)),
        Op::Call(_) => graph.call(id).map_or_else(String::new, |call| match call.kind {
            CallKind::Scan(scan) => {
                let nodes = call.bodies.iter().map(Graph::len).sum::<usize>();
                format!(" trips={}{} of {nodes} nodes", scan.trips, if scan.reverse { " reverse" } else { "" })
            }
            CallKind::Reverse(reverse) => format!(" trips={} slots={}", reverse.scan.trips, reverse.slots),
            CallKind::Rewind(rewind) => format!(" slots={}", rewind.slots),
            CallKind::While(_) => " while".to_owned(),
            CallKind::Branch(_) => " cond".to_owned(),
            CallKind::Custom(_) => " with a derivative of its own".to_owned(),
            CallKind::Pullback(_) => " pullback".to_owned(),
        }),
        Op::Part(part) => format!(" [{part}]"),
        _ => String::new(),
    }
}
