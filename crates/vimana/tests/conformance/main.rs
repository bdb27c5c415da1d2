//! The conformance suite: one table of behaviours that every isolation must have.
//!
//! Every behaviour is run through the real `vimana run`, with the same flags or manifest and another isolation, and every
//! pair of the two is a test of its own: `container::an_exit_code_is_the_workload_s_own`. There are no exceptions but those of
//! [`exceptions::ALL`], which are those of `docs/reference/isolations.md`; what holds instead is checked too.
//!
//! Containers are run a second and a third time by [`unified`], in a machine with other control groups than this may have.
//!
//! The workload is `probe.c`, one source for all. Behaviours that don't disturb one another look at the same run.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod exceptions;
mod group;
mod isolation;
mod kept;
mod left;
mod limits;
mod mounts;
mod network;
mod process;
mod protection;
mod rig;
mod signals;
mod streams;
mod survey;
mod terminal;
mod unified;
#[path = "../vimana/mod.rs"]
mod vimana;
mod workload;

use std::collections::BTreeSet;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use isolation::Isolation;
use rig::Rig;

/// Something that holds of every isolation.
#[derive(Clone, Copy)]
pub struct Behaviour {
    /// What holds, as a sentence.
    pub name: &'static str,
    /// Panics where it doesn't.
    pub holds: fn(&Rig),
}

/// The behaviours of a file: each is a function with the sentence as its name.
macro_rules! behaviours {
    ($($name:ident),* $(,)?) => {
        &[$($crate::Behaviour { name: stringify!($name), holds: $name }),*]
    };
}
pub(crate) use behaviours;

/// The table, in the order of the document.
fn table() -> Vec<Behaviour> {
    let parts: [&[Behaviour]; 8] = [
        process::BEHAVIOURS,
        streams::BEHAVIOURS,
        terminal::BEHAVIOURS,
        signals::BEHAVIOURS,
        left::BEHAVIOURS,
        limits::BEHAVIOURS,
        mounts::BEHAVIOURS,
        network::BEHAVIOURS,
    ];
    let more: [&[Behaviour]; 2] = [protection::BEHAVIOURS, kept::BEHAVIOURS];
    parts.into_iter().chain(more).flatten().copied().collect()
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(group::ARGUMENT) {
        return group::hold();
    }
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test("the_document_names_this_table_and_its_exceptions", document),
        Trial::test("every_exception_is_of_a_behaviour_in_the_table", exceptions),
    ];
    let unified = || {
        unified::containers_of_root_and_of_users_hold_where_control_groups_are_version_2();
        Ok(())
    };
    trials.push(Trial::test(unified::NAME, unified));
    for isolation in Isolation::ALL {
        for behaviour in table() {
            let name = format!("{}::{}", isolation.module(), behaviour.name);
            let exception = exceptions::find(isolation, behaviour.name);
            // Where nothing holds instead there is nothing to test.
            let Some(holds) = exception.map_or(Some(behaviour.holds), |exception| exception.instead) else {
                continue;
            };
            trials.push(Trial::test(name.clone(), move || check(isolation, &name, holds)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn check(isolation: Isolation, test: &str, holds: fn(&Rig)) -> Result<(), Failed> {
    match Rig::new(isolation) {
        Ok(rig) => {
            holds(&rig);
            rig.assert_nothing_is_left();
        }
        Err(reason) => eprintln!("SKIPPED: {test}: {reason}"),
    }
    Ok(())
}

const DOCUMENT: &str = include_str!("../../../../docs/reference/isolations.md");

/// The cells of the document's rows that begin with an isolation or a behaviour.
fn rows() -> impl Iterator<Item = Vec<String>> {
    DOCUMENT
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect())
}

fn document() -> Result<(), Failed> {
    let written: Vec<(String, String, String)> = rows()
        .filter_map(|row| match row.as_slice() {
            [kind, behaviour, what] if Isolation::ALL.iter().any(|known| known.kind() == kind) => {
                Some((kind.clone(), behaviour.clone(), what.clone()))
            }
            _ => None,
        })
        .collect();
    let made: Vec<(String, String, String)> = exceptions::ALL
        .iter()
        .map(|e| (e.isolation.kind().to_owned(), e.behaviour.to_owned(), e.what.to_owned()))
        .collect();
    assert_eq!(written, made, "the document's exceptions, and the suite's");
    let known: BTreeSet<String> = table().iter().map(|behaviour| behaviour.name.to_owned()).collect();
    let listed: BTreeSet<String> = rows()
        .filter_map(|row| (row.len() == 2).then(|| row[0].clone()))
        .filter(|name| name.contains('_'))
        .collect();
    assert_eq!(listed, known, "the document's behaviours, and the suite's");
    Ok(())
}

fn exceptions() -> Result<(), Failed> {
    let known: Vec<&str> = table().iter().map(|behaviour| behaviour.name).collect();
    assert_eq!(known.iter().collect::<BTreeSet<_>>().len(), known.len(), "a name is there twice");
    for exception in exceptions::ALL {
        assert!(known.contains(&exception.behaviour), "{} is no behaviour", exception.behaviour);
    }
    Ok(())
}
