//! `vimana top`: what spacecores use at this moment.
//!
//! ```text
//!  a thread: node --GET--> Reading ----+
//!                                      v
//!  this one: keys, size --> State (state.rs) --> lines (draw.rs) --> the terminal (screen.rs)
//! ```

mod draw;
mod reading;
mod screen;
mod state;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use self::draw::{Size, draw};
use self::reading::{Reading, read};
use self::screen::Screen;
use self::state::{Action, Sort, State};
use crate::client::{At, Client};

/// From the first measurement to the second, where there are only two.
const BETWEEN: Duration = Duration::from_secs(1);
/// How soon a key or another size of the terminal is met.
const TICK: Duration = Duration::from_millis(100);

/// Shows what spacecores use, again and again
///
/// Keys: c, m, n, r, s and a sort by CPU, memory, network, restarts, state and name, the same key again turns the order; / filters
/// by name; space holds everything still; arrows and page keys scroll; q quits. Without a terminal, one snapshot is printed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana top
  vimana top --sort memory --filter web
  vimana top --once
  vimana top --json")]
pub struct Args {
    /// What comes first
    #[arg(long, value_enum, default_value_t = Sort::Cpu)]
    sort: Sort,
    /// Only spacecores whose names have this in them
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Seconds from one measurement to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Print one snapshot and end
    #[arg(long)]
    once: bool,
    /// Print one snapshot as JSON and end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: At,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut state = State::new(args.sort, &args.filter);
    if args.once || args.json || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let client = Client::new(&args.at)?;
        state.take(read(&client)?);
        thread::sleep(BETWEEN);
        state.take(read(&client)?);
        let mut out = std::io::stdout().lock();
        if args.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&state.snapshot())?)?;
        } else {
            let all = Size { columns: usize::MAX, rows: usize::MAX };
            for line in draw(&state, all) {
                writeln!(out, "{}", line.text.trim_end())?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    // Before there is anything on the screen: without a node there is only an error.
    state.take(read(&Client::new(&args.at)?)?);
    // It must be opened before there is another thread, so that signals come here.
    let screen = Screen::open()?;
    let (readings, wants) = reader(args);
    watch(state, screen, &readings, &wants)
}

/// Measures in a thread of its own, so that a guest that is slow to answer keeps no key waiting.
fn reader(args: &Args) -> (Receiver<Result<Reading, String>>, Sender<()>) {
    let (tell, readings) = mpsc::channel();
    let (wants, ended) = mpsc::channel::<()>();
    let (at, interval) = (args.at.clone(), Duration::from_secs(args.interval));
    thread::spawn(move || {
        while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            let reading = Client::new(&at).and_then(|client| read(&client));
            if tell.send(reading.map_err(|error| format!("{error:#}"))).is_err() {
                return;
            }
        }
    });
    (readings, wants)
}

fn watch(
    mut state: State,
    mut screen: Screen,
    readings: &Receiver<Result<Reading, String>>,
    _ends_the_reader: &Sender<()>,
) -> anyhow::Result<ExitCode> {
    let mut shown = None;
    loop {
        let size = screen.size();
        state.resized(size.rows);
        let drawn = (draw(&state, size), size);
        if shown.as_ref() != Some(&drawn) {
            screen.show(&drawn.0)?;
            shown = Some(drawn);
        }
        for key in screen.keys(TICK)? {
            if state.press(key) == Action::Quit {
                return Ok(ExitCode::SUCCESS);
            }
        }
        for reading in readings.try_iter() {
            match reading {
                Ok(reading) => state.take(reading),
                Err(trouble) => state.trouble(trouble),
            }
        }
    }
}
