//! A graph as readable text: a line per node.

use crate::graph::shape_text;
use crate::nested::{Visit, visit};
use crate::{CallKind, Graph, NodeId, Op, Result, interrupt, tables};

/// The operation whose errors these are.
const OP: &str = "print";

/// How the printer names what this crate cannot know: operations and source lines.
pub struct NodeText<'a> {
    pub op: &'a dyn Fn(Op) -> String,
    /// `file:line` of a line id, or an empty string.
    pub line: &'a dyn Fn(u32) -> String,
}

/// One line per node: name, operation, operands, parameters, dtype and shape, source line. The bodies of a loop or
/// branch stand below it, once, indented.
pub fn print_graph(graph: &Graph, text: &NodeText<'_>) -> Result<String> {
    let mut out = String::new();
    visit(OP, graph, |visit, within| match visit {
        Visit::Node { graph, id, met_before } => {
            tables::write(OP, &mut out, &"    ".repeat(within.depth))?;
            print_node(&mut out, graph, id, text, met_before)
        }
        Visit::Enter { name, .. } => {
            tables::write(OP, &mut out, &format!("{}  {name}:\n", "    ".repeat(within.depth - 1)))
        }
        Visit::Leave { graph } => {
            tables::write(OP, &mut out, &format!("{}return ", "    ".repeat(within.depth)))?;
            names(&mut out, &graph.outputs)?;
            tables::write(OP, &mut out, "\n")
        }
    })?;
    Ok(out)
}

fn print_node(out: &mut String, graph: &Graph, id: NodeId, text: &NodeText<'_>, met_before: bool) -> Result<()> {
    let node = graph.node(id);
    let line = (text.line)(node.attributes.line);
    let begin = out.len();
    tables::write(OP, out, &format!("%{} = {}(", id.0, node_name(graph, id, text.op)))?;
    names(out, graph.operands(id))?;
    let above = if met_before { ", as above" } else { "" };
    tables::write(OP, out, &format!("){}{above}", parameters(graph, id)))?;
    let width = 48usize.saturating_sub(out[begin..].chars().count());
    let rest = format!("{:width$} {:<12}", "", value_text(graph, id));
    let line = if line.is_empty() { line } else { format!("  # {line}") };
    tables::write(OP, out, format!("{rest}{line}").trim_end())?;
    tables::write(OP, out, "\n")
}

/// The operation of a node: of a loop or branch which one.
pub fn node_name(graph: &Graph, id: NodeId, op: &dyn Fn(Op) -> String) -> String {
    match (graph.op(id), graph.call(id)) {
        (Op::Call(_), Some(call)) => call.kind.name().to_owned(),
        (known, _) => op(known),
    }
}

/// dtype and shape; nothing for a loop or branch, whose values are its parts.
pub fn value_text(graph: &Graph, id: NodeId) -> String {
    match graph.op(id) {
        Op::Call(_) => String::new(),
        _ => format!("{}{}", graph.dtype(id), shape_text(graph.shape(id))),
    }
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
            CallKind::Scan(scan) => format!(" trips={}{}", scan.trips, if scan.reverse { " reverse" } else { "" }),
            CallKind::Reverse(reverse) => format!(" trips={} slots={}", reverse.scan.trips, reverse.slots),
            CallKind::Rewind(rewind) => format!(" slots={}", rewind.slots),
            CallKind::While(_) | CallKind::Branch(_) | CallKind::Custom(_) | CallKind::Pullback(_) => String::new(),
        }),
        Op::Part(part) => format!(" [{part}]"),
        _ => String::new(),
    }
}
