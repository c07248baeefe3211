//! The table and the samples are complete, and every sample is a graph that `verify` accepts.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use ckad_graph::{DType, Graph, ListId, NodeId, Op};
use ckad_prim::{Builder, Elementwise, cost, op_name, samples, samples_of, verify};

#[test]
fn ids_are_places_in_the_table() {
    for (index, &row) in Elementwise::ALL.iter().enumerate() {
        assert_eq!(row.id().0 as usize, index);
        assert_eq!(Elementwise::from_id(row.id()), row);
        assert_eq!(row.sample().len(), row.arity(), "{}", row.name());
        assert!(row.doc().ends_with('.') && row.cost() > 0 && !row.wgsl().is_empty(), "{}", row.name());
        assert!(row.numpy().is_empty() || row.numpy() == row.name() || row == Elementwise::Select);
    }
    let names: BTreeSet<&str> = Elementwise::ALL.iter().map(|row| row.name()).collect();
    assert_eq!(names.len(), Elementwise::ALL.len());
    assert!(Elementwise::ALL.len() < 256);
}

#[test]
fn every_primitive_has_samples() {
    let sampled: BTreeSet<String> =
        samples().unwrap().iter().map(|sample| sample.name.split(':').next().unwrap().to_owned()).collect();
    for row in Elementwise::ALL {
        assert!(sampled.contains(row.name()), "{}", row.name());
    }
    let structural = [
        "arange",
        "random_bits",
        "astype",
        "stop_gradient",
        "reshape",
        "transpose",
        "broadcast_to",
        "strided_read",
        "strided_write",
        "strided_add",
        "pad",
        "concatenate",
        "gather",
        "scatter_set",
        "scatter_add",
        "sum",
        "max",
        "min",
        "any",
        "all",
        "argmax",
        "argmin",
        "cumsum",
        "linear_recurrence",
        "argsort",
        "dot",
        "accumulate",
    ];
    for name in structural {
        assert!(sampled.contains(name), "{name}");
    }
    assert_eq!(sampled.len(), Elementwise::ALL.len() + structural.len());
}

#[test]
fn samples_verify_and_cost_is_plausible() {
    for sample in samples().unwrap() {
        verify(&sample.graph).unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        assert_eq!(sample.ranges.len(), sample.graph.inputs.len());
        let output = sample.graph.outputs[0];
        let heavy = matches!(sample.graph.op(output), Op::Dot { .. } | Op::Argsort { .. });
        assert_eq!(cost(&sample.graph, output).heavy, heavy, "{}", sample.name);
    }
}

#[test]
fn dtypes_follow_the_table() {
    assert_eq!(Elementwise::Tanh.result_dtype(DType::I32), None);
    assert_eq!(Elementwise::Less.result_dtype(DType::I32), Some(DType::Bool));
    assert_eq!(Elementwise::Add.result_dtype(DType::Bool), Some(DType::Bool));
    assert_eq!(Elementwise::Subtract.result_dtype(DType::Bool), None);
    assert_eq!(Elementwise::Invert.result_dtype(DType::F32), None);
    assert_eq!(Elementwise::LeftShift.result_dtype(DType::Bool), None);
    assert_eq!(Elementwise::Select.result_dtype(DType::U8), Some(DType::U8));
}

#[test]
fn verify_finds_a_node_of_the_wrong_shape_or_dtype() {
    for sample in samples_of(DType::F32).unwrap() {
        let graph = &sample.graph;
        let output = graph.outputs[0];
        // A shape or dtype that is a parameter of the node can be wrong only against its operand.
        let takes_any_dtype = matches!(graph.op(output), Op::Cast | Op::Iota { .. } | Op::RandomBits);
        let takes_any_shape = matches!(graph.op(output), Op::Iota { .. } | Op::RandomBits | Op::StridedRead { .. });
        let rebuilt = |dtype: DType, longer: bool| {
            let mut copy = graph.derived().unwrap();
            for node in graph.ids() {
                if let Op::Input(_) = graph.op(node) {
                    copy.push_input(graph.dtype(node), graph.node(node).shape, graph.attributes(node)).unwrap();
                    continue;
                }
                let last = node == output;
                let mut shape = graph.shape(node).to_vec();
                if last && longer {
                    shape.push(7);
                }
                let list = copy.lists.intern(&shape).unwrap();
                let dtype = if last { dtype } else { graph.dtype(node) };
                copy.push(graph.op(node), graph.operands(node), dtype, list, graph.attributes(node)).unwrap();
            }
            copy
        };
        assert!(verify(&rebuilt(graph.dtype(output), false)).is_ok(), "{}", sample.name);
        let other = if graph.dtype(output) == DType::U8 { DType::U16 } else { DType::U8 };
        assert!(takes_any_dtype || verify(&rebuilt(other, false)).is_err(), "{}", sample.name);
        let one_element = graph.operands(output).iter().all(|&operand| graph.elements(operand) == 1);
        let still_fits = takes_any_shape || (one_element && matches!(graph.op(output), Op::Broadcast));
        let empty = graph.elements(output) == 0 && matches!(graph.op(output), Op::Reshape);
        assert!(still_fits || empty || verify(&rebuilt(graph.dtype(output), true)).is_err(), "{}", sample.name);
    }
}

fn with_inputs(shapes: &[(DType, &[i64])]) -> (Builder, Vec<NodeId>) {
    let builder = Builder::new(Graph::new());
    let ids = shapes
        .iter()
        .map(|(dtype, shape)| {
            let list = builder.intern(shape).unwrap();
            builder.graph_mut().push_input(*dtype, list, ckad_graph::Attributes::default()).unwrap()
        })
        .collect();
    (builder, ids)
}

#[test]
fn errors_name_operation_shapes_and_a_hint() {
    let (builder, ids) =
        with_inputs(&[(DType::F64, &[2, 3]), (DType::F64, &[4]), (DType::I64, &[3]), (DType::Bool, &[])]);
    let text = |result: ckad_graph::Result<NodeId>| result.unwrap_err().to_string();
    assert_eq!(
        text(builder.elementwise(Elementwise::Add, &ids[..2])),
        "[add] operands do not broadcast: (2, 3) and (4,). Hint: from the last axis backwards, extents must be equal \
         or 1; insert axes with `[:, None]`"
    );
    assert_eq!(
        text(builder.elementwise(Elementwise::Sin, &ids[2..3])),
        "[sin] it is not defined for int64, only for floats. Hint: convert with `.astype` first"
    );
    assert!(text(builder.elementwise(Elementwise::Add, &[ids[0], ids[2]])).contains("float64, int64"));
    assert_eq!(
        text(builder.reshape(ids[0], &[4, 2])),
        "[reshape] (2, 3) does not fit (4, 2). Hint: 6 elements cannot become 8"
    );
    assert!(text(builder.transpose(ids[0], &[0, 0])).starts_with("[transpose] axes (0, 0)"));
    assert!(text(builder.broadcast(ids[0], &[2, 4])).starts_with("[broadcast_to] (2, 3) does not broadcast to (2, 4)"));
    assert!(text(builder.concatenate(&[ids[0], ids[1]], 0)).contains("(2, 3) and (4,)"));
    let axes = ckad_graph::DotAxes { lhs_contract: vec![1], rhs_contract: vec![0], ..Default::default() };
    assert!(text(builder.dot(ids[0], ids[1], &axes, false)).contains("(2, 3) and (4,) do not match"));
    assert!(text(builder.reduce(ckad_graph::ReduceKind::Sum, ids[3], &[])).contains("bool"));
    assert!(text(builder.zeros(DType::F64, &[1 << 40, 1 << 40])).contains("too large"));
    assert!(text(builder.gather(ids[0], &[ids[1]])).contains("int64"));
    builder.set_attributes(ckad_graph::Attributes { line: 7, ..Default::default() });
    assert_eq!(builder.reshape(ids[0], &[4, 2]).unwrap_err().line, 7);
    assert_eq!(builder.elementwise(Elementwise::Sin, &ids[2..3]).unwrap_err().line, 7);
}

#[test]
fn trivial_steps_record_nothing() {
    let (builder, ids) = with_inputs(&[(DType::F64, &[2, 3])]);
    let x = ids[0];
    assert_eq!(builder.cast(x, DType::F64).unwrap(), x);
    assert_eq!(builder.reshape(x, &[2, 3]).unwrap(), x);
    assert_eq!(builder.transpose(x, &[0, 1]).unwrap(), x);
    assert_eq!(builder.broadcast(x, &[2, 3]).unwrap(), x);
    assert_eq!(builder.graph().len(), 1);
    assert_eq!(builder.graph().node(x).shape, ListId(1));
    assert_eq!(op_name(Op::Accumulate), "accumulate");
}
