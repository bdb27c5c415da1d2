//! Measures a container's start, step by step: `cargo run --release -p hypercore --example container_start [TIMES]`.
//!
//! Needs root and `/bin/busybox`. Times are milliseconds since the call of `start`, the median and the least of all
//! runs: on a busy machine only the least means something.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../tests/container/rig.rs"]
mod rig;

use std::time::Instant;

use rig::{Image, Keeper, configuration, shell};

fn main() {
    let times = std::env::args().nth(1).and_then(|times| times.parse().ok()).unwrap_or(20_usize);
    let image = Image::new();
    let mut steps: [Vec<f64>; 5] = Default::default();
    for _ in 0..times {
        let begin = Instant::now();
        let mut reached = 0;
        let mut reach = || {
            if let Some(step) = steps.get_mut(reached) {
                step.push(begin.elapsed().as_secs_f64() * 1000.0);
            }
            reached += 1;
        };
        let mut keeper = Keeper::start(&image.machine());
        reach();
        keeper.configure(configuration(shell("echo hello")));
        reach();
        keeper.until(|keeper| !keeper.said(0).is_empty());
        reach();
        keeper.until(|keeper| keeper.ended.contains_key(&0));
        reach();
        keeper.instance.stop().unwrap();
        reach();
    }
    for (name, step) in
        ["start returns", "hello", "first byte", "ended", "nothing left"].iter().zip(&mut steps)
    {
        step.sort_by(f64::total_cmp);
        println!("{name:>14} {:8.2} {:8.2}", step[step.len() / 2], step[0]);
    }
}
