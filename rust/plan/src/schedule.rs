//! Clusters and schedules: what a policy reads and what it returns. Plain data.

use std::sync::Arc;

use ckad_graph::NodeId;
use smallvec::SmallVec;

/// A kernel-to-be. A node may be a member of several clusters.
#[derive(Clone, PartialEq, Debug)]
pub struct Cluster {
    pub kind: ClusterKind,
    /// In topological order; the last one is the root.
    pub members: Vec<NodeId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterKind {
    /// Elementwise operations, casts, iotas, random bits and view-like reads over one iteration shape.
    Fused,
    /// A fused group with one `Reduce` of a value of the iteration shape, which no other member reads.
    Reduce,
    /// One structural node; a call with its parts.
    Single,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClusterId(pub u32);

/// The clusters of a graph, in an executable order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Clustering {
    pub clusters: Vec<Cluster>,
}

/// One action of a run. A value is a node's array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Compute(ClusterId),
    Free(NodeId),
    /// Begins to write the value to the run's file. Its bytes stay until it is freed.
    Store(NodeId),
    /// Begins to read a value back that was stored. From now on it is live again.
    Load(NodeId),
}

/// Values, in place where they are few.
pub type Stores = SmallVec<[NodeId; 4]>;

/// What runs, in order. A cluster that appears twice is recomputed: recomputation exists nowhere else.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Schedule {
    pub clustering: Arc<Clustering>,
    /// `stores[i]`: which members action i leaves in memory (empty but for Compute).
    pub actions: Vec<Action>,
    pub stores: Vec<Stores>,
    /// What it promises of its work: beyond each cluster once, no more than all of them so many times.
    pub repeats: u64,
}
