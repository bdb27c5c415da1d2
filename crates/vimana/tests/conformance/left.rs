//! Nothing is left, however a run ends.

use crate::rig::{Rig, Running, eventually, kill, still_alive, tree};
use crate::{Behaviour, behaviours};

pub const BEHAVIOURS: &[Behaviour] =
    behaviours![a_killed_command_leaves_nothing, a_killed_keeper_ends_the_workload,];

fn a_killed_command_leaves_nothing(rig: &Rig) {
    let share = format!("{}:/share", rig.folder("share").display());
    let running = Running::ready(&mut rig.run(&["-v", &share], &["spin"]));
    let processes = tree(running.pid());
    assert!(processes.len() >= 2, "the command and its keeper at least: {processes:?}");
    kill(running.pid(), libc::SIGKILL);
    assert_eq!(running.end().code, 137);
    eventually("all its processes end", 20, || {
        still_alive(processes.keys().copied()).is_empty().then_some(())
    });
    // Files in its run folder may lie there until the next command.
    let next = rig.output(&[], &["exit", "3"]);
    assert_eq!(next.code, 3, "{next:?}");
    rig.assert_nothing_is_left();
}

fn a_killed_keeper_ends_the_workload(rig: &Rig) {
    let share = format!("{}:/share", rig.folder("share").display());
    let running = Running::ready(&mut rig.run(&["-v", &share], &["spin"]));
    let processes = tree(running.pid());
    kill(rig.keeper().expect("it has a keeper"), libc::SIGKILL);
    let ran = running.end();
    assert_eq!(ran.code, 125, "{ran:?}");
    assert!(ran.err.contains("keeper was killed"), "{ran:?}");
    eventually("all its processes end", 20, || {
        still_alive(processes.keys().copied()).is_empty().then_some(())
    });
    let next = rig.output(&[], &["exit", "3"]);
    assert_eq!(next.code, 3, "{next:?}");
    rig.assert_nothing_is_left();
}
