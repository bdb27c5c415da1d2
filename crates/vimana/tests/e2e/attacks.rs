//! Attacks from inside a guest: each is tried by a workload in a microVM and in a container, and must fail there. The same
//! program tries it once more where its defence is switched off, and must succeed: a test that passes for another reason would
//! prove nothing. All the while a neighbour goes on serving. With `--no-capture` the table is printed.

mod files;
mod limits;
mod network;
mod processes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{missing, shared, skipped, text};
use crate::vimana;

const SOURCE: &str = include_str!("attacks/attacker.c");
/// Where a guest finds the program.
const INSIDE: &str = "/attacker";
/// Where it is tried, with the flags that make a run of it.
const GUESTS: [(&str, &[&str]); 2] = [
    ("microVM", &["--isolation", "MicroVM", "--accel", "tcg"]),
    ("container", &["--isolation", "Container"]),
];

/// The program, compiled once for all tests; or why it can't be.
fn program() -> Result<PathBuf, String> {
    let folder = vimana::shared("e2e")?;
    let _lock = vimana::lock(&folder.join("attacker.lock"))?;
    let (source, program) = (folder.join("attacker.c"), folder.join("attacker"));
    if program.exists() && fs::read_to_string(&source).is_ok_and(|known| known == SOURCE) {
        return Ok(program);
    }
    fs::write(&source, SOURCE).map_err(|error| error.to_string())?;
    let compiled = Command::new("gcc")
        .args(["-std=gnu2x", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s", "-o"])
        .args([&program, &source])
        .output()
        .map_err(|_| "gcc isn't installed (apt-get install gcc libc6-dev)".to_owned())?;
    match compiled.status.success() {
        true => Ok(program),
        false => Err(format!("gcc can't compile attacker.c: {}", text(&compiled.stderr))),
    }
}

/// The flag that shows a guest the program.
fn shown(program: &Path) -> String {
    format!("{}:{INSIDE}:ro", program.display())
}

/// The guests that this machine can run; those that it can't are named.
fn guests(test: &str) -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let can = move |isolation: &str| {
        missing(isolation).inspect(|reason| skipped(&format!("{test}: {isolation}"), reason)).is_none()
    };
    GUESTS.into_iter().filter(move |(_, flags)| can(flags[1]))
}

/// What every test needs, or a word on what lacks.
fn can(test: &str) -> Option<PathBuf> {
    let root = rustix::process::geteuid().is_root().then_some(()).ok_or_else(|| "needs root".to_owned());
    let ready = root.and_then(|()| shared().map(drop)).and_then(|()| program());
    ready.inspect_err(|reason| skipped(test, reason)).ok()
}

/// The table of a suite.
struct Table {
    rows: Vec<Row>,
}

struct Row {
    attack: String,
    from: &'static str,
    /// Whether it has succeeded, with the defence and without.
    guarded: bool,
    bare: bool,
    /// What the attacker said of its try in the guest.
    said: String,
}

impl Table {
    fn new() -> Self {
        Self { rows: Vec::new() }
    }

    fn row(&mut self, attack: &str, from: &'static str, guarded: bool, bare: bool, said: &str) {
        let (attack, said) = (attack.to_owned(), said.to_owned());
        self.rows.push(Row { attack, from, guarded, bare, said });
    }

    /// Prints the table; fails where an attack has succeeded, or never would.
    fn judge(self) {
        let word = |succeeded| if succeeded { "SUCCEEDS" } else { "fails" };
        let mut wrong = Vec::new();
        eprintln!("{:<58} {:<10} {:<9} without its defence", "attack", "from a", "");
        for Row { attack, from, guarded, bare, said } in &self.rows {
            eprintln!("{attack:<58} {from:<10} {:<9} {:<9} {said}", word(*guarded), word(*bare));
            if *guarded {
                wrong.push(format!("{attack} succeeds from a {from}: {said}"));
            }
            if !bare {
                wrong.push(format!("{attack} fails without its defence too"));
            }
        }
        assert!(!self.rows.is_empty() && wrong.is_empty(), "{wrong:#?}");
    }
}

/// What the attacker has said of a try.
fn said<'a>(output: &'a str, word: &str) -> &'a str {
    let of_it = |line: &&'a str| line.split(' ').next() == Some(word);
    let line = output.lines().find(of_it).unwrap_or_else(|| panic!("nothing of {word} in {output:?}"));
    line.get(word.len()..).unwrap_or_default().trim_start()
}

/// Whether it believes that it has succeeded.
fn done(output: &str, word: &str) -> bool {
    said(output, word).starts_with("done")
}

/// The words of several tries as one command line.
fn tries(all: &[(String, String)]) -> Vec<String> {
    let mut words = Vec::new();
    for (word, command) in all {
        if !words.is_empty() {
            words.push(",".to_owned());
        }
        words.push(word.clone());
        words.extend(command.split(' ').map(str::to_owned));
    }
    words
}
