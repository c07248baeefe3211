//! Proves of a loop's kernel that what it takes and gives is as large as its bodies say.

use ckad_graph::{CallKind, Error, Result, Scan};

use crate::program::{Body, LoopKernel, Place, Program, Source};
use crate::verify::{array_bytes, broken, verify_program};

/// An input or an output of a body.
#[derive(Clone, Copy)]
enum Slot {
    Input(usize),
    Output(usize),
}

/// So many inputs or outputs of a body are in one array.
struct Like {
    body: usize,
    slot: Slot,
    count: usize,
}

fn input(body: usize, input: usize, count: u32) -> Like {
    Like { body, slot: Slot::Input(input), count: count as usize }
}

fn output(body: usize, output: usize, count: u32) -> Like {
    Like { body, slot: Slot::Output(output), count: count as usize }
}

/// Bodies are safe themselves, take what the loop takes or slices of it, and write a carry over no other one.
pub(crate) fn verify_loop(program: &Program, step: usize, kernel: &LoopKernel) -> Result<()> {
    for body in &kernel.bodies {
        verify_program(&body.program)?;
        let over = body.in_place.iter().filter(|in_place| **in_place).count();
        let counts = body.in_place.len() == body.outputs.len()
            && over == body.program.takeovers.len()
            && body.positions.len() == body.program.steps.len()
            && body.inputs.len() == body.program.inputs.len()
            && body.outputs.len() == body.program.outputs.len();
        if !counts {
            return Err(unfit());
        }
    }
    let (takes, gives) = (takes(kernel.kind), gives(kernel.kind));
    let numbers = kernel.operands.len() == takes.len()
        && kernel.given_up.len() == takes.len()
        && kernel.results.len() == gives.len();
    if !numbers || kernel.layout != kernel.laid_out()? {
        return Err(unfit());
    }
    let operands = kernel.operands.iter().map(Some).zip(takes);
    let results = kernel.results.iter().map(Option::as_ref).zip(gives);
    for (array, all) in operands.chain(results) {
        for like in all {
            let bytes = bytes(kernel.bodies.get(like.body).ok_or_else(unfit)?, like.slot).ok_or_else(unfit)?;
            if array.is_some_and(|array| array_bytes(array) != bytes.saturating_mul(like.count)) {
                return Err(unfit());
            }
        }
    }
    // What may be written over is read by nobody else, now or later.
    for (operand, _) in kernel.operands.iter().zip(&kernel.given_up).filter(|(_, given_up)| **given_up) {
        let Source::Buffer(id) = operand.source else { return Err(unfit()) };
        let buffer = &program.buffers[id.0 as usize];
        let twice = kernel.operands.iter().filter(|other| other.source == operand.source).count() > 1;
        if twice || buffer.last_step as usize != step || !matches!(buffer.place, Place::Arena(_)) {
            return Err(broken(format!("buffer {} is overwritten while it is needed", id.0)));
        }
    }
    Ok(())
}

fn unfit() -> Error {
    broken("a loop does not fit its bodies".into())
}

fn bytes(body: &Body, slot: Slot) -> Option<usize> {
    match slot {
        Slot::Input(input) => (input < body.inputs.len()).then(|| body.input_bytes(input)),
        Slot::Output(output) => (output < body.outputs.len()).then(|| body.output_bytes(output)),
    }
}

/// For each operand, what has to be as large.
fn takes(kind: CallKind) -> Vec<Vec<Like>> {
    let one = |like| vec![like];
    match kind {
        CallKind::Scan(scan) => {
            let once = (scan.consts + scan.carries) as usize;
            let trips = |operand: usize| if operand < once { 1 } else { scan.trips };
            (0..scan.operands()).map(|operand| one(input(0, operand + 1, trips(operand)))).collect()
        }
        CallKind::Reverse(reverse) => {
            let scan = reverse.scan;
            let once = (scan.consts + scan.carries) as usize;
            let own = (0..reverse.own()).map(|operand| match operand < once {
                true => input(0, operand + 1, 1),
                // States are among the slices, but no operands.
                false => input(0, operand + 1 + reverse.states as usize, scan.trips),
            });
            let (first_carry, first_xs) = (1 + reverse.consts, 1 + reverse.consts + reverse.carries);
            let consts = (1..first_carry).map(|index| input(1, index as usize, 1));
            let xs = (first_xs..first_xs + reverse.xs).map(|index| input(1, index as usize, scan.trips));
            let slots = (first_carry..first_xs).map(|index| input(1, index as usize, reverse.slots + 1));
            own.chain(consts).chain(xs).chain(slots).map(one).collect()
        }
        CallKind::Rewind(rewind) => {
            let own = (0..rewind.first_other()).map(|index| one(input(0, index, 1)));
            let consts = (0..rewind.other_consts).map(|index| one(input(1, index as usize, 1)));
            let carries = rewind.other_consts..rewind.other_consts + rewind.other_carries;
            let slots = carries.map(|index| one(input(1, index as usize, rewind.slots)));
            // Of int64 numbers nothing has to be as large: the graph was verified.
            let number = || std::iter::once(Vec::new());
            number().chain(own).chain(consts).chain(number()).chain(slots).collect()
        }
        CallKind::While(looped) => {
            let tests = (0..looped.test_consts).map(|index| one(input(0, index as usize, 1)));
            let rest = (0..looped.consts + looped.carries).map(|index| one(input(1, index as usize, 1)));
            tests.chain(rest).collect()
        }
        CallKind::Branch(branch) => {
            let both = |index| (0..2).map(|body| input(body, index as usize, 1)).collect();
            std::iter::once(Vec::new()).chain((0..branch.values).map(both)).collect()
        }
        CallKind::Custom(_) | CallKind::Pullback(_) => Vec::new(),
    }
}

/// For each part, what has to be as large.
fn gives(kind: CallKind) -> Vec<Vec<Like>> {
    let scanned = |scan: Scan| {
        let carries = (0..scan.carries).map(|carry| vec![output(0, carry as usize, 1)]);
        let ys = (scan.carries..scan.carries + scan.ys).map(move |y| vec![output(0, y as usize, scan.trips)]);
        carries.chain(ys).collect::<Vec<_>>()
    };
    match kind {
        CallKind::Scan(scan) => {
            let state = |carry| vec![input(0, (1 + scan.consts + carry) as usize, scan.stacked())];
            let mut all = scanned(scan);
            all.extend((0..scan.carries).map(state));
            all
        }
        CallKind::Reverse(reverse) => scanned(reverse.scan),
        CallKind::Rewind(rewind) => (0..rewind.carries).map(|carry| vec![output(0, carry as usize, 1)]).collect(),
        CallKind::While(looped) => {
            let carries = (0..looped.carries).map(|carry| vec![output(1, carry as usize, 1)]);
            let state = |carry| vec![input(1, (looped.consts + carry) as usize, looped.slots)];
            carries.chain([Vec::new(), Vec::new()]).chain((0..looped.carries).map(state)).collect()
        }
        CallKind::Branch(branch) => {
            let both = |part| (0..2).map(|body| output(body, part as usize, 1)).collect();
            (0..branch.results).map(both).collect()
        }
        CallKind::Custom(_) | CallKind::Pullback(_) => Vec::new(),
    }
}
