//! Operations that hold graphs of their own: loops and branches, whose bodies were recorded once.
//!
//! A [`Call`] is an entry of a table of the graph ([`crate::Graph::calls`]), named by the node `Op::Call`. That node
//! has no elements of its own; its results are the nodes `Op::Part(k)` on it, each with a dtype and a shape: whatever
//! follows operands (liveness, equality, cones) needs to know nothing of it. Results that nobody asks for are not
//! stored.
//!
//! Bodies are closed: what they read from outside, numbers included, are operands of the call. Numbers and slice starts
//! in a body's own tables are part of its structure.

use std::any::Any;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxBuildHasher;

use crate::{Graph, binomial};

/// An entry of a graph's table of calls.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CallId(pub u32);

/// What a call does with its bodies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CallKind {
    Scan(Scan),
    While(While),
    Branch(Branch),
    Reverse(Reverse),
    Rewind(Rewind),
    Custom(Custom),
    Pullback(Pullback),
}

impl CallKind {
    /// How often a body is computed, as far as that is known.
    pub fn times(self, body: usize) -> u64 {
        match (self, body) {
            (CallKind::Scan(scan), _) => scan.trips.into(),
            (CallKind::Reverse(reverse), 0) => reverse.scan.trips.into(),
            (CallKind::Reverse(reverse), _) => reverse.again(),
            (CallKind::While(_) | CallKind::Branch(_) | CallKind::Rewind(_), _) => 1,
            // What a rule computes is written where it is used.
            (CallKind::Custom(_) | CallKind::Pullback(_), _) => 0,
        }
    }

    /// Number of parts.
    pub fn parts(self) -> usize {
        match self {
            CallKind::Scan(scan) => scan.parts(),
            CallKind::While(looped) => looped.parts(),
            CallKind::Branch(branch) => branch.results as usize,
            CallKind::Reverse(reverse) => (reverse.scan.carries + reverse.scan.ys) as usize,
            CallKind::Rewind(rewind) => rewind.carries as usize,
            CallKind::Custom(custom) => custom.results as usize,
            CallKind::Pullback(pullback) => pullback.results as usize,
        }
    }
}

/// A function with a derivative of the user's own: nothing but its results, until it is derived.
///
/// * Operands: its float results, the float arguments that the rule knows of, those that it says nothing of, and
///   constants of the rule.
/// * Body: the rule, from tangents of the arguments (`forward`) or cotangents of the results, and the constants, to
///   tangents of the results or cotangents of the arguments.
/// * Parts: the results.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Custom {
    pub forward: bool,
    pub results: u32,
    pub arguments: u32,
    /// Arguments whose cotangent is nothing.
    pub silent: u32,
}

/// The linear map whose transpose is the body: the tangents of a function with a rule for cotangents.
///
/// * Operands: tangents of the arguments, and constants of the rule.
/// * Body: from cotangents of the results, and the constants, to cotangents of the arguments.
/// * Parts: tangents of the results.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pullback {
    pub arguments: u32,
    pub results: u32,
}

/// A loop of known length.
///
/// * Operands: the constants, the first carries, and arrays of `trips` slices along their first axis.
/// * Inputs of its body: the index of the iteration (an int64 scalar), the constants, the carries, a slice of each
///   array; outputs: the next carries, and values that are stacked.
/// * Parts: the last carries, the stacked values, and for each carry the stack of what it was before each iteration
///   (its *states*). Stacks are in the order of the index, whichever way the loop runs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Scan {
    pub trips: u32,
    /// Does it run from the last index to the first?
    pub reverse: bool,
    pub consts: u32,
    pub carries: u32,
    pub xs: u32,
    pub ys: u32,
    /// 0 where the stacks of states have all of them; otherwise so many slots, of those before the iterations at which
    /// the binomial schedule keeps one in its first sweep, and behind them the state before the last iteration.
    pub slots: u32,
}

impl Scan {
    /// The part that is the stack of a carry's values before each iteration.
    pub fn states(self, carry: usize) -> u32 {
        self.carries + self.ys + carry as u32
    }

    pub fn parts(self) -> usize {
        (2 * self.carries + self.ys) as usize
    }

    /// How many states a stack has.
    pub fn stacked(self) -> u32 {
        if self.slots == 0 { self.trips } else { self.slots + 1 }
    }

    /// Number of operands.
    pub fn operands(self) -> usize {
        (self.consts + self.carries + self.xs) as usize
    }

    /// The body's input that an operand, or a slice of it, is.
    pub fn input_of(operand: usize) -> usize {
        operand + 1
    }
}

/// A loop that goes on as long as a test of its carries holds.
///
/// * Operands: constants of the test, constants of the iteration, the first carries.
/// * Bodies: the test, from its constants and the carries to a bool; the iteration, from its constants and the carries
///   to the next carries.
/// * Parts: the last carries; the number of iterations (an int64 scalar); before which iteration the state in each slot
///   is (int64, −1 where it is empty); and for each carry what it was before these ([`crate::online`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct While {
    /// So many of the first constants of the test, at least two or none, are parts of an equal loop: the number of
    /// iterations, what is in the slots, and the slots of as many of the first carries as are left. The test does not
    /// read them, but whoever turns the loop round does.
    pub handed: u32,
    pub test_consts: u32,
    pub consts: u32,
    pub carries: u32,
    pub slots: u32,
}

impl While {
    /// How many states are kept of a loop whose length nobody knows: with so many, 2,145 iterations are computed about
    /// once more, 47,905 about twice.
    pub const SLOTS: u32 = 64;

    /// The part that is the number of iterations.
    pub fn count(self) -> u32 {
        self.carries
    }

    /// The part that says what is in the slots.
    pub fn kept(self) -> u32 {
        self.carries + 1
    }

    /// The part that is the slots of a carry.
    pub fn states(self, carry: usize) -> u32 {
        self.carries + 2 + carry as u32
    }

    pub fn parts(self) -> usize {
        2 * self.carries as usize + 2
    }
}

/// One of two functions of the same values.
///
/// * Operands: a bool scalar, and the values.
/// * Bodies: what is computed where it is false, and where it is true, both from all values.
/// * Parts: their outputs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Branch {
    pub values: u32,
    pub results: u32,
}

/// A scan over the states of another one that kept some of them only: the others are computed anew, in the binomial
/// schedule, in the slots of those that were kept.
///
/// * Operands: those of the scan but for the states; the constants of the other one and the arrays of its slices; the
///   slots of each of its carries.
/// * Bodies: the scan's, whose first slices are the states of as many of the other one's first carries; and the other
///   one's, which gives the next carries.
/// * Parts: the last carries, and what is stacked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reverse {
    /// The scan, states among the arrays of slices.
    pub scan: Scan,
    /// How many of the arrays are states.
    pub states: u32,
    /// Behind them the arrays have one more state.
    pub slots: u32,
    /// Of the other one.
    pub consts: u32,
    pub carries: u32,
    pub xs: u32,
}

impl Reverse {
    /// Operands of the scan itself: all but states.
    pub fn own(self) -> usize {
        self.scan.operands() - self.states as usize
    }

    pub fn operands(self) -> usize {
        self.own() + (self.consts + self.xs + self.carries) as usize
    }

    /// How many iterations of the other loop are computed anew.
    pub fn again(self) -> u64 {
        let trips = u64::from(self.scan.trips);
        // Its own sweep goes as far as the last iteration.
        binomial::forward_steps(trips, self.slots.into()) - trips.saturating_sub(1)
    }

    /// How often an iteration of the other loop is computed at most, its own sweep included.
    pub fn most_computed(self) -> u64 {
        binomial::times(self.scan.trips.into(), self.slots.into())
    }

    /// The first operand that has slots.
    pub fn first_slots(self) -> usize {
        self.operands() - self.carries as usize
    }
}

/// A loop over the states of another one, from the last to the first, as often as an operand says. States that the
/// other one did not keep are computed anew, in the binomial schedule, in slots of those that it kept.
///
/// * Operands: the number of iterations (an int64 scalar); the constants and first carries of the loop; the constants
///   of the other one; before which of its iterations the state in each slot is (int64, −1 where it is empty); the
///   slots of each of its carries.
/// * Bodies: the loop's, from its constants, its carries and the states of all carries of the other one to the next
///   carries; and the other one's, from its constants and carries to the next carries.
/// * Parts: the last carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rewind {
    pub consts: u32,
    pub carries: u32,
    /// Of the other one.
    pub other_consts: u32,
    pub other_carries: u32,
    pub slots: u32,
}

impl Rewind {
    pub fn operands(self) -> usize {
        self.first_slots() + self.other_carries as usize
    }

    /// The first operand that has slots; before it stands what is in them.
    pub fn first_slots(self) -> usize {
        2 + self.first_other() + self.other_consts as usize
    }

    /// Inputs of the loop's body before the states.
    pub fn first_other(self) -> usize {
        (self.consts + self.carries) as usize
    }
}

/// Work of one evaluation of the bodies; a type of `ckad_prim`, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BodyWork {
    /// Operations of a whole call.
    pub flops: u64,
    /// Whether a body holds a heavy operation.
    pub heavy: bool,
}

/// A loop or a branch.
#[derive(Debug)]
pub struct Call {
    pub kind: CallKind,
    /// In execution order, simplified.
    pub bodies: Vec<Graph>,
    pub work: BodyWork,
    hash: u64,
    made: Made,
}

/// What a later stage made of bodies, with the key under which it made it.
type Made = Arc<Mutex<Option<(u64, Arc<dyn Any + Send + Sync>)>>>;

impl Call {
    pub fn new(kind: CallKind, bodies: Vec<Graph>, work: BodyWork) -> Call {
        let mut hasher = FxBuildHasher.build_hasher();
        kind.hash(&mut hasher);
        for body in &bodies {
            hasher.write_u64(body.structure_hash());
            body.scalars.hash(&mut hasher);
            body.starts.hash(&mut hasher);
        }
        Call { kind, bodies, work, hash: hasher.finish(), made: Made::default() }
    }

    /// This call, whose bodies are those of the other one: what is made of them is made once.
    pub fn sharing(self, other: &Call) -> Call {
        Call { made: Arc::clone(&other.made), ..self }
    }

    pub fn structure_hash(&self) -> u64 {
        self.hash
    }

    pub fn same_structure(&self, other: &Call) -> bool {
        let same = |(one, other): (&Graph, &Graph)| {
            one.scalars == other.scalars && one.starts == other.starts && one.same_structure(other)
        };
        std::ptr::eq(self, other)
            || (self.hash == other.hash
                && self.kind == other.kind
                && self.bodies.len() == other.bodies.len()
                && self.bodies.iter().zip(&other.bodies).all(same))
    }

    pub fn own_bytes(&self) -> usize {
        size_of::<Call>() + self.bodies.iter().map(|body| size_of::<Graph>() + body.own_bytes()).sum::<usize>()
    }

    /// What `make` made of the bodies the last time that it was asked for under this key, or makes now.
    pub fn made<T: Send + Sync + 'static, E>(
        &self,
        key: u64,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let found = self.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((known, made)) = found
            && known == key
            && let Ok(made) = made.downcast::<T>()
        {
            return Ok(made);
        }
        // Bodies hold calls of their own: not under the lock.
        let made = Arc::new(make()?);
        let kept: Arc<dyn Any + Send + Sync> = Arc::clone(&made) as _;
        let mut known = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have made it meanwhile: a program that both write holds one of them.
        if let Some((others, earlier)) = &*known
            && *others == key
            && let Ok(earlier) = Arc::clone(earlier).downcast::<T>()
        {
            return Ok(earlier);
        }
        *known = Some((key, kept));
        Ok(made)
    }
}
