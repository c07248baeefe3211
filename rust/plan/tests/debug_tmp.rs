mod programs;
use ckad_graph::*;
use ckad_plan::schedule::Action;
#[test]
fn dbg() {
    let graph = programs::heat(4, 2048);
    let p = ckad_plan::policy::schedule(&graph, CheckpointPolicy::Auto, &programs::target()).unwrap();
    let sim = ckad_plan::simulate::simulate(&graph, &p.schedule).unwrap();
    let prog = ckad_plan::lower::lower(&graph, &p.schedule, &programs::target()).unwrap();

    println!("{}", ckad_graph::print_graph(&graph, &NodeText { op: &ckad_prim::op_name, line: &|_| String::new() }));
    let live = prog.live_bytes();
    let mut step = 0;
    for (i, a) in p.schedule.actions.iter().enumerate() {
        match a {
            Action::Compute(c) => {
                let cl = &p.schedule.clustering.clusters[c.0 as usize];
                println!("{i} step {step} {:?} sim {} low {:?} {:?} stores {:?}", cl.kind, sim.live[i], live.get(step), cl.members.iter().map(|m| m.0).collect::<Vec<_>>(), p.schedule.stores[i].iter().map(|m| m.0).collect::<Vec<_>>());
                step += 1;
            }
            Action::Free(v) => println!("   free {}", v.0),
        }
    }
}
