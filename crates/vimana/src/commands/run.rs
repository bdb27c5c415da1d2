//! `vimana run`: one spacecore in the foreground.

pub mod attach;
pub mod outcome;
mod output;
pub mod progress;
pub mod request;
pub mod terminal;
mod timings;

use std::io::Write;
use std::process::ExitCode;

use node::clock::Mark;
use node::home::Home;
use node::keeper::assignment::Lifetime;
use node::prepare::{self, Watcher};
use node::session::Session;

use attach::What;
use progress::Steps;
use request::{Streams, Workload};

/// The exit code of a failure that is not the workload's.
const FAILED: u8 = 125;

/// The exit code where nobody reads what is printed: as if by SIGPIPE.
const CLOSED: u8 = 128 + 13;

/// Runs a manifest or an image in the foreground, and ends with its exit code
///
/// Without an argument it takes ./hac.toml. What comes behind `--` replaces the image's arguments. A spacecore that is run so
/// ends with this command, however the command ends, and leaves nothing behind.
///
/// Exit codes: the workload's own; 128 and the signal's number if a signal killed it; 126 and 127 if its program can't be
/// executed or doesn't exist; 134, 139 and 137 for a Wasm program that traps, exhausts its stack or its memory; 125 if Vimana itself failed, or can't do what is asked; 2 for arguments that can't be read.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana run docker.io/library/alpine:3.20 -- echo hello
  vimana run                                         what ./hac.toml says
  vimana run -p 8080:80 docker.io/library/nginx      http://127.0.0.1:8080
  vimana run -it -v .:/work alpine -- sh             a shell with this folder
  vimana run --isolation Container -v data:/data docker.io/library/redis
  vimana run hello.wasm
  vimana run oci:./image-folder -m 128Mi --timings")]
pub struct Args {
    #[command(flatten)]
    workload: Workload,
    /// Pass standard input to the workload
    #[arg(short, long)]
    interactive: bool,
    /// Give the workload a terminal
    #[arg(short, long)]
    tty: bool,
    /// Print events, the output among them, as JSON lines on standard output
    #[arg(long, conflicts_with = "tty")]
    json: bool,
    /// Print where the time went, to standard error
    #[arg(long)]
    timings: bool,
}

/// Runs the command.
pub fn run(args: Args) -> ExitCode {
    let json = args.json;
    match in_foreground(args) {
        Ok(code) => ExitCode::from(code),
        // Nobody reads the events any more, so nobody reads a complaint about it either.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(CLOSED),
        Err(error) => {
            if json {
                let event = serde_json::json!({ "event": "ended", "exit_code": FAILED, "message": format!("{error:#}") });
                // Whoever closed the output knows that it ended.
                let _ = writeln!(std::io::stdout(), "{event}");
            }
            crate::complain(&error);
            ExitCode::from(FAILED)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn in_foreground(args: Args) -> anyhow::Result<u8> {
    let mut marks = vec![Mark::now("command started")];
    let mut terminal = terminal::Terminal::open(args.tty)?;
    let mut steps = Steps::new(args.json);
    let streams = Streams { stdin: args.interactive, terminal: terminal.as_ref().map(|t| t.size()) };
    let wanted = args.workload.wanted(streams)?;
    steps.done("manifest read");
    let prepared = prepare::prepare(&Home::find()?, &wanted, &mut steps)?;
    marks.append(&mut steps.marks());
    prepared.plan.notices.iter().for_each(|notice| steps.notice(notice));
    for port in &prepared.plan.publish {
        steps.notice(&format!("{port} is published"));
    }

    let id = node::gather::new_id(&prepared.plan.name)?;
    let assignment = prepared.assignment(&id, Lifetime::Bound)?;
    let session = Session::start(&std::env::current_exe()?, &assignment)?;
    marks.push(Mark::now("keeper executed"));
    // Without standard input keys have nowhere to go, and Ctrl-C stays a signal.
    if let Some(terminal) = terminal.as_mut().filter(|_| args.interactive) {
        terminal.make_raw()?;
    }
    let options = attach::Options {
        ends: attach::Ends::own(),
        stdin: args.interactive,
        json: args.json,
        terminal: terminal.as_ref(),
        boot: steps.boot(),
    };
    let ended = attach::attach(session, What::Workload, options);
    // Before anything is printed.
    drop(terminal);
    let ended = ended?;
    marks.extend(ended.marks.iter().cloned());
    marks.push(Mark::now("all cleared away"));
    if args.timings {
        timings::print(marks, &ended.guest_steps, args.json)?;
    }
    outcome::report(&ended, &prepared.plan, args.json)
}
