//! The graph: what every stage of the pipeline reads and writes.
//!
//! A [`Graph`] is an append-only list of [`Node`]s. An operand always precedes its user, so a walk over
//! indices is a walk in topological order and no walk needs recursion. Shapes and other lists of integers
//! are interned per graph ([`ListId`]); a derived graph starts from a copy of its source's table, so ids
//! stay valid from one stage to the next.
//!
//! This crate knows no primitive's meaning: shape inference, derivatives and costs live in `ckad-prim`.

pub mod binomial;
mod call;
mod dtype;
mod error;
mod graph;
mod interner;
pub mod interrupt;
mod lent;
pub mod nested;
pub mod online;
mod op;
mod print;
pub mod shortage;
pub mod tables;
pub mod threads;
mod verify;
pub mod working;

pub use call::{BodyWork, Branch, Call, CallId, CallKind, Custom, Pullback, Reverse, Rewind, Scan, While};
pub use dtype::{DType, DTypeKind, ScalarBits};
pub use error::{Error, ErrorKind, Refusal, Result};
pub use graph::{
    Attributes, CheckpointPolicy, Constant, Graph, HostArray, Node, NodeId, Region, RegionId, Splice, shape_text,
};
pub use interner::{ListId, ListTable};
pub use lent::Lent;
pub use op::{DotAxes, ElementwiseId, Op, ReduceKind, StartId};
pub use print::{NodeText, node_name, print_graph, value_text};
pub use verify::verify_structure;
