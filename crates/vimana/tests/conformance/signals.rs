//! Signals to the command, and the order in which a workload is ended.

use crate::rig::{Rig, Running, kill};
use crate::{Behaviour, behaviours};

pub const BEHAVIOURS: &[Behaviour] = behaviours![
    a_signal_reaches_the_workload_which_ends_as_it_likes,
    a_signal_that_the_workload_doesnt_expect_ends_it,
    a_second_signal_doesnt_wait_for_the_workload,
    what_a_workload_leaves_running_ends_with_it,
];

fn a_signal_reaches_the_workload_which_ends_as_it_likes(rig: &Rig) {
    let mut running = Running::ready(&mut rig.run(&[], &["trap"]));
    kill(running.pid(), libc::SIGUSR1);
    assert_eq!(running.line(), "got 10");
    kill(running.pid(), libc::SIGTERM);
    assert_eq!(running.line(), "got 15");
    let ran = running.end();
    assert_eq!(ran.code, 7, "{ran:?}");
}

/// Of what would never end by itself.
pub fn a_signal_that_the_workload_doesnt_expect_ends_it(rig: &Rig) {
    let running = Running::ready(&mut rig.run(&[], &["spin"]));
    kill(running.pid(), libc::SIGINT);
    let ran = running.end();
    assert_eq!(ran.code, 128 + libc::SIGINT, "{ran:?}");
}

fn a_second_signal_doesnt_wait_for_the_workload(rig: &Rig) {
    let running = Running::ready(&mut rig.run(&[], &["ignore"]));
    kill(running.pid(), libc::SIGTERM);
    kill(running.pid(), libc::SIGINT);
    let ran = running.end();
    // Both may be there before the command looks for the first.
    assert!([130, 143].contains(&ran.code), "{ran:?}");
}

fn what_a_workload_leaves_running_ends_with_it(rig: &Rig) {
    let ran = rig.output(&[], &["orphan"]);
    let text = ran.text();
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(text.contains("from the child\n") && text.contains("from the parent\n"), "{ran:?}");
}
