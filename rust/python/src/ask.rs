//! What the user's arguments `checkpoint=` and `memory_limit=` ask of one run's plan.

use ckad_graph::CheckpointPolicy;

/// How the user wants a program planned.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ask {
    /// `None`: whatever fits the limit, "auto" without one.
    pub policy: Option<CheckpointPolicy>,
    /// The most bytes that a run may allocate.
    pub limit: Option<usize>,
    /// Bytes that were taken off the user's limit, as they are held before the run.
    pub held: usize,
    /// Of a linearisation whose linear part runs in the same call: bytes that are held beside those runs,
    /// but for what the part itself keeps.
    pub applied: Option<usize>,
    /// Whether what a linear function owns is taken from runs that come after it: in a trace with a limit.
    pub leaves_room: bool,
}

impl Ask {
    /// For a run beside so many bytes.
    pub fn beside(held: usize, limit: Option<usize>, policy: Option<CheckpointPolicy>) -> Ask {
        match limit {
            Some(limit) => {
                Ask { policy, limit: Some(limit.saturating_sub(held)), held, applied: None, leaves_room: false }
            }
            None => Ask { policy, limit: None, held: 0, applied: None, leaves_room: false },
        }
    }

    /// For the same beside so many bytes more.
    pub fn beside_more(self, bytes: usize) -> Ask {
        match self.limit {
            Some(limit) => Ask { limit: Some(limit.saturating_sub(bytes)), held: self.held + bytes, ..self },
            None => self,
        }
    }

    /// For the linear part of a linearisation that keeps so many bytes of what is known.
    pub fn of_linear_part(self, kept: usize) -> Ask {
        let (Some(limit), Some(applied)) = (self.limit, self.applied) else { return self };
        Ask::beside(applied.saturating_add(kept), Some(limit.saturating_add(self.held)), self.policy)
    }
}

impl From<CheckpointPolicy> for Ask {
    fn from(policy: CheckpointPolicy) -> Ask {
        Ask { policy: Some(policy), limit: None, held: 0, applied: None, leaves_room: false }
    }
}
