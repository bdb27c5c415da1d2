//! What the fuzz targets are tried on in every test run: real inputs, and the same changed.
//!
//! `PROPTEST_CASES` says how many of each, `PROPTEST_RNG_SEED` which. With `FUZZ_CORPUS` set, the inputs are written to where
//! `cargo fuzz` looks for them too.
#![allow(clippy::disallowed_methods)]

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// One change.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u32),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// A piece of it once more, elsewhere.
    Repeat(Index, Index, usize),
    Cut(Index),
    /// A number of four bytes that lengths and counts stumble over.
    Number(Index, u32),
    /// The rest of another input.
    Splice(Index, Index, Index),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<Index>;
    let numbers = prop::sample::select(vec![0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]);
    let change = prop_oneof![
        (at(), 0_u32..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), 1_usize..40).prop_map(|(at, length)| Change::Remove(at, length)),
        (at(), at(), 1_usize..64).prop_map(|(from, to, length)| Change::Repeat(from, to, length)),
        at().prop_map(Change::Cut),
        (at(), numbers).prop_map(|(at, number)| Change::Number(at, number)),
        (at(), at(), at()).prop_map(|(other, from, to)| Change::Splice(other, from, to)),
    ];
    prop::collection::vec(change, 0..8)
}

fn changed(seeds: &[Vec<u8>], which: Index, changes: &[Change]) -> Vec<u8> {
    let mut bytes = which.get(seeds).clone();
    for change in changes {
        let length = bytes.len();
        let place = |at: &Index| at.index(length + 1);
        match change {
            Change::Flip(at, bit) => {
                bytes.iter_mut().skip(place(at)).take(1).for_each(|byte| *byte ^= 1 << bit)
            }
            Change::Set(at, new) => bytes.iter_mut().skip(place(at)).take(1).for_each(|byte| *byte = *new),
            Change::Insert(at, new) => drop(bytes.splice(place(at)..place(at), new.iter().copied())),
            Change::Remove(at, most) => drop(bytes.drain(place(at)..length.min(place(at) + most))),
            Change::Repeat(from, to, most) => {
                let piece = bytes[place(from)..length.min(place(from) + most)].to_vec();
                bytes.splice(place(to)..place(to), piece);
            }
            Change::Cut(at) => bytes.truncate(place(at)),
            Change::Number(at, number) => {
                let number = number.to_le_bytes();
                bytes.iter_mut().skip(place(at)).zip(number).for_each(|(byte, new)| *byte = new);
            }
            Change::Splice(other, from, to) => {
                let other = other.get(seeds);
                bytes.truncate(place(to));
                bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
    bytes
}

/// Tries a target of the crate in this folder on these inputs, and on what changes make of them. A panic is the failure.
pub(crate) fn stands(folder: &str, target: &str, seeds: &[Vec<u8>], run: impl Fn(&[u8])) {
    if std::env::var_os("FUZZ_CORPUS").is_some() {
        let corpus = Path::new(folder).join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&corpus).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(corpus.join(format!("seed-{number}")), seed).unwrap();
        }
    }
    seeds.iter().for_each(|seed| run(seed));
    let default = Config::default();
    // Each is cheap: more of them than where a case does real work.
    let cases = default.cases.saturating_mul(8).min(20_000);
    let mut runner = TestRunner::new(Config { failure_persistence: None, cases, ..default });
    let inputs = (any::<Index>(), changes());
    let outcome = runner.run(&inputs, |(which, changes)| {
        run(&changed(seeds, which, &changes));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{target}: {failure}");
    }
}
