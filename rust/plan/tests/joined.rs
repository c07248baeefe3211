//! Which products are joined with their readers: never at the price of a higher peak.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests.

mod programs;

use ckad_graph::{CheckpointPolicy, Graph, NodeId};
use ckad_plan::lower::lower;
use ckad_plan::policy::schedule;
use ckad_plan::program::{Joining, Place, Program, Target};
use ckad_plan::verify::verify_program;
use programs::{Tape, blocks, lstm, mlp, target};

/// What joined steps cost.
#[derive(Clone, Copy)]
enum Price {
    /// They are never joined.
    None,
    Free,
    /// Blocks that take more than the arena saves.
    Dear,
}

fn program(graph: &Graph, policy: CheckpointPolicy, price: Price) -> Program {
    let target = match price {
        Price::None => Target { joined: |_| 1, ..target() },
        Price::Free => target(),
        Price::Dear => {
            Target { joining: |_, dying, _| Some(Joining { scratch: 1 << 30, unstored: dying.to_vec() }), ..target() }
        }
    };
    let program = lower(graph, &schedule(graph, policy, &target).unwrap().schedule, &target).unwrap();
    verify_program(&program).unwrap();
    program
}

fn joined(program: &Program) -> usize {
    program.steps.iter().filter(|step| step.joined).count()
}

fn unstored(program: &Program) -> usize {
    program.buffers.iter().filter(|buffer| buffer.place == Place::Scratch).count()
}

#[test]
fn joining_never_raises_the_peak() {
    for (name, graph) in [
        ("mlp", mlp(8, 24, 40)),
        ("lstm", lstm(9, 8, 6)),
        ("blocks", blocks(3, 4, 12, 16, CheckpointPolicy::Recompute)),
    ] {
        for policy in [CheckpointPolicy::None, CheckpointPolicy::Auto, CheckpointPolicy::Sqrt] {
            let (apart, free) = (program(&graph, policy, Price::None), program(&graph, policy, Price::Free));
            assert_eq!((joined(&apart), unstored(&apart)), (0, 0));
            assert!(joined(&free) > 0, "{name} under {policy:?}");
            assert!(free.arena_bytes <= apart.arena_bytes, "{name} under {policy:?}");
            assert_eq!(free.live_bytes().unwrap(), apart.live_bytes().unwrap());
            let dear = program(&graph, policy, Price::Dear);
            assert!(dear == apart, "{name} under {policy:?}");
        }
    }
}

/// Outputs tanh(z) and, where `kept`, z too, of z = 2x·w; a second use of 2x where it `stays`.
fn layer(kept: bool, stays: bool) -> Program {
    let mut tape = Tape::new();
    let (x, w) = (tape.input(&[64, 64]), tape.input(&[64, 64]));
    let doubled = tape.unary(x, |x| x + x);
    let z = tape.matmul(doubled, w);
    let y = tape.unary(z, |z| z.tanh());
    let mut outputs: Vec<NodeId> = vec![y];
    outputs.extend(kept.then_some(z));
    outputs.extend(stays.then_some(doubled));
    // A value behind it, so that the layer's own is in the arena.
    outputs[0] = tape.matmul(y, w);
    let mut graph = tape.builder.finish().unwrap();
    graph.outputs = outputs;
    program(&graph, CheckpointPolicy::None, Price::Free)
}

#[test]
fn a_product_that_stays_is_joined_where_its_operand_stays_too() {
    // What the product reads makes room for tanh(z), unless z itself makes it.
    assert_eq!((joined(&layer(false, false)), unstored(&layer(false, false))), (1, 1));
    assert_eq!((joined(&layer(true, false)), unstored(&layer(true, false))), (0, 0));
    assert_eq!((joined(&layer(true, true)), unstored(&layer(true, true))), (1, 0));
}
