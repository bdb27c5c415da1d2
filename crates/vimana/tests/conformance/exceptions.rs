//! What doesn't hold of an isolation, and what holds instead: the table of `docs/reference/isolations.md`, word for word.

use crate::isolation::Isolation::{self, MicroVm, Wasm};
use crate::rig::{Rig, Running, kill};
use crate::{kept, protection, signals, terminal};

/// One of them.
pub struct Exception {
    pub isolation: Isolation,
    pub behaviour: &'static str,
    /// What holds instead, for people.
    pub what: &'static str,
    /// Checks it; none where there is nothing that could be looked at.
    pub instead: Option<fn(&Rig)>,
}

pub fn find(isolation: Isolation, behaviour: &str) -> Option<&'static Exception> {
    ALL.iter().find(|exception| exception.isolation == isolation && exception.behaviour == behaviour)
}

const fn exception(
    isolation: Isolation,
    behaviour: &'static str,
    what: &'static str,
    instead: Option<fn(&Rig)>,
) -> Exception {
    Exception { isolation, behaviour, what, instead }
}

const NO_USERS: &str = "WASI has no users";
const NO_PROCESSES: &str = "WASI has no processes";
const NO_ROOT: &str = "there is no root file system, only what is mounted";
const NO_TERMINAL: &str = "WASI has no terminals; one is refused, with the reason";
const NO_SOCKETS: &str = "a program of WASI preview 1 can't open sockets";
const FOLDERS_ALONE: &str = "only folders can be mounted; others are refused before it starts";

pub const ALL: &[Exception] = &[
    exception(
        MicroVm,
        "privileges_are_bounded",
        "the machine is the boundary: no_new_privs is off, so that sudo and su work; no capability that reaches beyond either",
        Some(protection::capabilities_are_bounded),
    ),
    exception(
        Wasm,
        "a_program_that_isnt_there_is_127",
        "the program is the image itself; nothing else can be named",
        None,
    ),
    exception(
        Wasm,
        "a_program_that_cant_be_executed_is_126",
        "what isn't a Wasm program is refused with 125",
        None,
    ),
    exception(Wasm, "a_working_folder_is_made_where_it_lacks", NO_ROOT, None),
    exception(Wasm, "a_user_s_name_brings_its_groups", NO_USERS, None),
    exception(Wasm, "a_user_and_group_may_be_numbers", NO_USERS, None),
    exception(Wasm, "a_user_s_files_are_that_user_s_alone", NO_USERS, None),
    exception(Wasm, "a_workload_has_its_spacecore_s_name", "WASI has no host name", None),
    exception(Wasm, "the_name_is_in_etc_hosts", NO_ROOT, Some(no_file_is_there)),
    exception(Wasm, "no_signal_is_blocked_or_ignored", "WASI has no signals", None),
    exception(Wasm, "other_processes_arent_seen", NO_PROCESSES, None),
    exception(Wasm, "the_terminal_is_one", NO_TERMINAL, Some(a_terminal_is_refused)),
    exception(Wasm, "the_terminal_has_the_person_s_size", NO_TERMINAL, None),
    exception(
        Wasm,
        "ctrl_c_ends_what_doesnt_expect_it",
        "without a terminal it is the signal INT, which ends it",
        None,
    ),
    exception(
        Wasm,
        "a_signal_reaches_the_workload_which_ends_as_it_likes",
        "a program can't handle signals: each does at once what it does to a process that doesn't expect it",
        Some(signals::a_signal_that_the_workload_doesnt_expect_ends_it),
    ),
    exception(
        Wasm,
        "a_second_signal_doesnt_wait_for_the_workload",
        "the first ends it",
        Some(the_first_signal_ends_it),
    ),
    exception(Wasm, "what_a_workload_leaves_running_ends_with_it", NO_PROCESSES, None),
    exception(Wasm, "a_fork_bomb_stays_inside", NO_PROCESSES, None),
    exception(Wasm, "there_are_no_more_processes_than_allowed", NO_PROCESSES, None),
    exception(Wasm, "a_full_disk_is_full_and_no_fuller", NO_ROOT, None),
    exception(Wasm, "a_single_file_can_be_mounted", FOLDERS_ALONE, None),
    exception(Wasm, "a_memory_folder_has_its_size", FOLDERS_ALONE, None),
    exception(Wasm, "a_read_only_root_cant_be_written", NO_ROOT, Some(no_file_is_there)),
    exception(Wasm, "without_a_network_there_is_only_loopback", NO_SOCKETS, None),
    exception(Wasm, "a_published_port_answers", NO_SOCKETS, None),
    exception(Wasm, "a_published_port_is_on_loopback_alone", NO_SOCKETS, None),
    exception(Wasm, "the_host_s_loopback_cant_be_reached", NO_SOCKETS, None),
    exception(Wasm, "a_name_server_answers", NO_SOCKETS, None),
    exception(Wasm, "what_tells_of_the_machine_is_masked", NO_ROOT, Some(no_file_is_there)),
    exception(Wasm, "what_rules_the_machine_cant_be_written", NO_ROOT, Some(no_file_is_there)),
    exception(Wasm, "privileges_are_bounded", "it has none to bound", None),
    exception(
        Wasm,
        "a_process_can_be_started_beside_the_workload",
        "it is refused, with the reason",
        Some(kept::a_process_beside_is_refused),
    ),
    exception(
        Wasm,
        "a_process_beside_that_cant_start_is_refused",
        "every process beside it is refused, with the reason",
        Some(kept::a_process_beside_is_refused),
    ),
    exception(
        Wasm,
        "it_can_be_checked_from_inside",
        "every check fails, with the reason",
        Some(kept::a_check_fails_with_the_reason),
    ),
    exception(
        Wasm,
        "a_stop_begins_with_the_image_s_signal",
        "the signal ends it",
        Some(kept::a_stop_ends_it_with_the_image_s_signal),
    ),
    exception(
        Wasm,
        "a_stop_ends_with_a_kill_after_its_grace",
        "no program outlives the first signal",
        Some(kept::a_stop_ends_it_with_the_image_s_signal),
    ),
];

/// Nothing of a host or of an image is there to be read or written.
fn no_file_is_there(rig: &Rig) {
    let probe = [
        "read",
        "/etc/hosts",
        ",",
        "read",
        "/etc/passwd",
        ",",
        "read",
        "/proc/self/status",
        ",",
        "list",
        "/",
        ",",
        "read",
        "../etc/hosts",
        ",",
        "write",
        "/x",
        "y",
        ",",
        "write",
        "x",
        "y",
        ",",
        "folder",
        "/tmp/new",
        ",",
        "write",
        "/proc/sysrq-trigger",
        "h",
    ];
    let ran = rig.output(&[], &probe);
    assert_eq!((ran.code, ran.said().len()), (0, 9), "{ran:?}");
    assert!(ran.said().iter().all(|said| said.starts_with("fail")), "{ran:?}");
}

fn the_first_signal_ends_it(rig: &Rig) {
    let running = Running::ready(&mut rig.run(&[], &["spin"]));
    kill(running.pid(), libc::SIGTERM);
    let ran = running.end();
    assert_eq!(ran.code, 128 + libc::SIGTERM, "{ran:?}");
}

fn a_terminal_is_refused(rig: &Rig) {
    let text = terminal::at_a_terminal(rig).text();
    assert!(text.contains("has no terminal") && terminal::at_a_terminal(rig).code == 125, "{text}");
}
