//! Forward mode (`jvp`) and reverse mode (`vjp`: forward mode transposed) over whole graphs, with no care for speed.

use ckad_graph::{Graph, NodeId, Op, Result};
use ckad_prim::{Accumulator, Builder, Expr};

fn float_inputs(graph: &Graph) -> Vec<NodeId> {
    graph.inputs.iter().copied().filter(|&input| graph.dtype(input).is_float()).collect()
}

fn input_like(builder: &Builder, source: &Graph, node: NodeId) -> Result<NodeId> {
    builder.graph_mut().push_input(source.dtype(node), source.node(node).shape, source.attributes(node))
}

fn copy<'b>(builder: &'b Builder, source: &Graph, node: NodeId, mapped: &[Option<Expr<'b>>]) -> Result<Expr<'b>> {
    let operands: Vec<NodeId> =
        source.operands(node).iter().map(|operand| mapped[operand.index()].unwrap().id).collect();
    let id = builder.push(source.op(node), &operands, source.dtype(node), source.shape(node))?;
    Ok(builder.expr(id))
}

/// inputs ++ tangents of float inputs → outputs ++ tangents of float outputs.
pub fn jvp(source: &Graph) -> Result<Graph> {
    let builder = Builder::new(source.derived()?);
    let mut mapped = vec![None; source.len()];
    let mut tangents = vec![None; source.len()];
    for &input in &source.inputs {
        mapped[input.index()] = Some(builder.expr(input_like(&builder, source, input)?));
    }
    for input in float_inputs(source) {
        tangents[input.index()] = Some(builder.expr(input_like(&builder, source, input)?));
    }
    for node in source.ids() {
        if let Op::Input(_) = source.op(node) {
            continue;
        }
        let out = copy(&builder, source, node, &mapped)?;
        mapped[node.index()] = Some(out);
        let operands: Vec<Expr<'_>> = source.operands(node).iter().map(|o| mapped[o.index()].unwrap()).collect();
        let of_operands: Vec<Option<Expr<'_>>> = source.operands(node).iter().map(|o| tangents[o.index()]).collect();
        let tangent = ckad_prim::diff(source, node, &operands, out, &of_operands)?;
        if let Some(tangent) = tangent {
            assert_eq!((tangent.dtype(), tangent.shape()), (out.dtype(), out.shape()), "{:?}", source.op(node));
        }
        tangents[node.index()] = tangent;
    }
    let mut outputs: Vec<NodeId> = source.outputs.iter().map(|output| mapped[output.index()].unwrap().id).collect();
    for output in source.outputs.iter().filter(|&&output| source.dtype(output).is_float()) {
        let tangent = tangents[output.index()].unwrap_or_else(|| mapped[output.index()].unwrap().zeros_like());
        outputs.push(tangent.id);
    }
    let mut graph = builder.finish()?;
    graph.outputs = outputs;
    Ok(graph)
}

struct Cotangents<'a, 'b> {
    of: &'a mut [Option<Expr<'b>>],
    operands: &'a [NodeId],
    source: &'a Graph,
    builder: &'b Builder,
}

impl<'b> Accumulator<'b> for Cotangents<'_, 'b> {
    fn add(&mut self, operand: usize, cotangent: Expr<'b>) {
        let node = self.operands[operand];
        assert_eq!(cotangent.shape(), self.source.shape(node), "cotangent of operand {operand}");
        assert_eq!(cotangent.dtype(), self.source.dtype(node));
        let place = &mut self.of[node.index()];
        *place = Some(place.map_or(cotangent, |sum| sum + cotangent));
    }

    fn subtract(&mut self, operand: usize, cotangent: Expr<'b>) {
        self.add(operand, -cotangent);
    }

    fn update(&mut self, operand: usize, op: Op, value: Expr<'b>, indices: &[Expr<'b>]) {
        let node = self.operands[operand];
        let zeros = || self.builder.expr(self.builder.zeros(self.source.dtype(node), self.source.shape(node)).unwrap());
        let sum = self.of[node.index()].unwrap_or_else(zeros);
        self.of[node.index()] = Some(match op {
            Op::StridedAdd { strides, start } => {
                let strides = self.builder.graph().lists.get(strides).to_vec();
                sum.strided_add_at(value, &strides, start)
            }
            Op::ScatterAdd { .. } => sum.scatter_add(value, indices),
            _ => panic!("{op:?} is no update"),
        });
    }
}

/// inputs ++ cotangents of float outputs → outputs ++ cotangents of float inputs.
pub fn vjp(source: &Graph) -> Result<Graph> {
    let forward = jvp(source)?;
    let (primal_inputs, tangent_inputs) = forward.inputs.split_at(source.inputs.len());
    let mut linear = vec![false; forward.len()];
    for input in tangent_inputs {
        linear[input.index()] = true;
    }
    for node in forward.ids() {
        if !matches!(forward.op(node), Op::Input(_)) {
            linear[node.index()] = forward.operands(node).iter().any(|operand| linear[operand.index()]);
        }
    }
    let builder = Builder::new(forward.derived()?);
    let mut mapped = vec![None; forward.len()];
    for &input in primal_inputs {
        mapped[input.index()] = Some(builder.expr(input_like(&builder, &forward, input)?));
    }
    let (outputs, tangents) = forward.outputs.split_at(source.outputs.len());
    let mut cotangents = vec![None; forward.len()];
    let seeds: Vec<NodeId> =
        tangents.iter().map(|&tangent| input_like(&builder, &forward, tangent)).collect::<Result<_>>()?;
    for node in forward.ids() {
        if !linear[node.index()] && !matches!(forward.op(node), Op::Input(_)) {
            mapped[node.index()] = Some(copy(&builder, &forward, node, &mapped)?);
        }
    }
    for (tangent, seed) in tangents.iter().zip(seeds) {
        let seed = builder.expr(seed);
        let place: &mut Option<Expr<'_>> = &mut cotangents[tangent.index()];
        *place = Some(place.map_or(seed, |sum| sum + seed));
    }
    for node in forward.ids().rev() {
        let Some(cotangent) = cotangents[node.index()] else { continue };
        if !linear[node.index()] || matches!(forward.op(node), Op::Input(_)) {
            continue;
        }
        let operands = forward.operands(node);
        let flags: Vec<bool> = operands.iter().map(|operand| linear[operand.index()]).collect();
        let coefficients: Vec<Option<Expr<'_>>> = operands.iter().map(|operand| mapped[operand.index()]).collect();
        let mut accumulator = Cotangents { of: &mut cotangents, operands, source: &forward, builder: &builder };
        ckad_prim::transpose(&forward, node, &coefficients, &flags, cotangent, &mut accumulator)?;
    }
    let mut results: Vec<NodeId> = outputs.iter().map(|output| mapped[output.index()].unwrap().id).collect();
    for input in tangent_inputs {
        results.push(match cotangents[input.index()] {
            Some(cotangent) => cotangent.id,
            None => builder.zeros(forward.dtype(*input), forward.shape(*input))?,
        });
    }
    let mut graph = builder.finish()?;
    graph.outputs = results;
    Ok(graph)
}
