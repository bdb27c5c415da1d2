//! `vimana exec`: one more process in a spacecore that runs.

use std::process::ExitCode;

use anyhow::bail;
use spacecore::wire::message::Process;

use super::run::attach::{self, Options, What};
use super::run::outcome;
use super::run::terminal::Terminal;
use crate::client::{At, Client, check_name};

/// Runs one more process beside a spacecore's workload
///
/// Exit codes: those of vimana run.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana exec web -- ls /
  vimana exec -it web -- sh")]
pub struct Args {
    /// The spacecore
    name: String,
    /// Pass standard input to the process
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// The user that it runs as: a name or number, with a group behind a colon
    #[arg(short, long, value_name = "USER[:GROUP]", default_value = "")]
    user: String,
    /// The folder that it starts in
    #[arg(short, long, value_name = "PATH", default_value = "")]
    workdir: String,
    /// The program and its arguments
    #[arg(last = true, value_name = "CMD", required = true)]
    command: Vec<String>,
    #[command(flatten)]
    at: At,
}

/// Where programs are looked for, unless a variable says otherwise.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A variable with its value.
fn variable(text: &str) -> anyhow::Result<String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => bail!("a variable has a name and a value: {text}=VALUE, or {text}= for an empty one"),
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut terminal = Terminal::open(args.tty)?;
    let session = Client::new(&args.at)?.keeper(check_name(&args.name)?)?;
    let mut env = args.env.clone();
    if !env.iter().any(|pair| pair.starts_with("PATH=")) {
        env.push(PATH.to_owned());
    }
    if terminal.is_some() && !env.iter().any(|pair| pair.starts_with("TERM=")) {
        env.push(format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned())));
    }
    let process = Process {
        env,
        user: args.user.clone(),
        working_directory: args.workdir.clone(),
        stdin: args.interactive,
        terminal: terminal.as_ref().map(Terminal::size),
        ..Process::of(&args.command)
    };
    if let Some(terminal) = terminal.as_mut().filter(|_| args.interactive) {
        terminal.make_raw()?;
    }
    let options = Options::beside(args.interactive, terminal.as_ref());
    let ended = attach::attach(session, What::Beside(process), options);
    drop(terminal);
    Ok(ExitCode::from(outcome::report_beside(&ended?)?))
}
