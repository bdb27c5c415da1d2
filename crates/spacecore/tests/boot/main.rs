//! The guest in a real virtual machine: QEMU without KVM, Debian's kernel, a root file system of busybox.

mod fuse;
mod rig;

use rig::*;
use spacecore::wire::message::*;
use std::time::{Duration, Instant};

/// The parts of a machine, or a line that says why there are none.
macro_rules! parts_or_skip {
    ($test:expr) => {
        match parts() {
            Ok(parts) => parts,
            Err(reason) => return skip($test, &reason),
        }
    };
}

#[test]
fn a_workload_s_output_and_exit_code_arrive_whole() {
    let parts = parts_or_skip!("a_workload_s_output_and_exit_code_arrive_whole");
    let script = "echo out; echo err >&2; cat /etc/hostname; hostname; echo $$; exit 7";
    let mut machine = started("output", parts, configuration(shell(script)));
    let status = machine.keeper.wait_ended(0);
    assert_eq!(status, ExitStatus::Code(7));
    assert_eq!(machine.keeper.output(0), "out\nbox\nbox\n1\n");
    assert_eq!(machine.keeper.errors(0), "err\n");
    let asked = Instant::now();
    machine.keeper.send(&ToGuest::Shutdown { grace_ms: 1000 });
    machine.wait_off();
    eprintln!("Shutdown to off {:?}", asked.elapsed());
}
