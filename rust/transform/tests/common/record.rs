//! Recording as a tape does: pass 0, the position of a node is its index.

use ckad_graph::{Attributes, DType, Graph, NodeId, RegionId};
use ckad_prim::{Builder, Expr};

pub struct Tape {
    pub builder: Builder,
    pub region: RegionId,
}

impl Default for Tape {
    fn default() -> Tape {
        Tape { builder: Builder::new(Graph::new()), region: RegionId(0) }
    }
}

impl Tape {
    pub fn at(&self) -> &Builder {
        let position = self.builder.graph().len() as u32;
        let line = position + 1;
        self.builder.set_attributes(Attributes { line, position, pass: 0, region: self.region });
        &self.builder
    }

    pub fn input(&self, shape: &[i64]) -> Expr<'_> {
        let shape = self.builder.intern(shape).unwrap();
        let attributes = self.at().attributes();
        let id = self.builder.graph_mut().push_input(DType::F64, shape, attributes).unwrap();
        self.builder.expr(id)
    }

    /// Records one step of a program: `tape.op(|| x.sin())`.
    pub fn op<'b>(&'b self, step: impl FnOnce() -> Expr<'b>) -> Expr<'b> {
        self.at();
        step()
    }

    pub fn finish(self, outputs: &[NodeId]) -> Graph {
        let mut graph = self.builder.finish().unwrap();
        graph.outputs = outputs.to_vec();
        graph
    }
}

/// Records a program of inputs of the given shapes.
pub fn record(shapes: &[&[i64]], program: impl for<'b> Fn(&'b Tape, &[Expr<'b>]) -> Vec<Expr<'b>>) -> Graph {
    let tape = Tape::default();
    let outputs: Vec<NodeId> = {
        let inputs: Vec<Expr<'_>> = shapes.iter().map(|shape| tape.input(shape)).collect();
        program(&tape, &inputs).iter().map(|output| output.id).collect()
    };
    tape.finish(&outputs)
}
