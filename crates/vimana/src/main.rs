//! The decentralised hypervisor's command line: one file per command in `commands/`, nothing else.

// A binary has no outside that could reach anything.
#![allow(unreachable_pub)]

mod client;
mod commands;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use node::home::Home;

/// Runs isolated workloads from a hac.toml or an image, on this machine.
#[derive(Parser)]
#[command(name = "vimana", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "Examples:
  vimana run docker.io/library/alpine:3.20 -- echo hello
  vimana run                       what ./hac.toml says
  vimana node                      a daemon that keeps spacecores running
  vimana apply                     what ./hac.toml says, kept running by the node
  vimana doctor                    what this machine can isolate with

Everything lies under VIMANA_HOME: /var/lib/vimana for root, ~/.local/share/vimana for others.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(commands::run::Args),
    Plan(commands::plan::Args),
    Node(commands::node::Args),
    Apply(commands::apply::Args),
    Ps(commands::ps::Args),
    Inspect(commands::inspect::Args),
    Inventory(commands::inventory::Args),
    Logs(commands::logs::Args),
    Exec(commands::exec::Args),
    Cp(commands::cp::Args),
    Stats(commands::stats::Args),
    Top(commands::top::Args),
    Events(commands::events::Args),
    Start(commands::lifecycle::Start),
    Stop(commands::lifecycle::Stop),
    Restart(commands::lifecycle::Restart),
    Scale(commands::lifecycle::Scale),
    Wait(commands::lifecycle::Wait),
    Rm(commands::lifecycle::Rm),
    /// Writes, checks, converts, imports and explains manifests
    Hac(commands::hac::Args),
    /// Pulls, lists and removes images
    Image(commands::image::Args),
    /// Lists, keeps, puts back and removes what spacecores keep when they end
    Volume(commands::volume::Args),
    /// Keeps, lists and forgets values that workloads read and nobody else
    Secret(commands::secret::Args),
    /// Gets, lists and removes guest kernels
    Kernel(commands::kernel::Args),
    /// Shows what this machine can isolate with, what it can't, why, and what would mend it
    Doctor(commands::doctor::Args),
    /// Measures what isolation costs on this machine
    Bench(commands::bench::Args),
    /// Keeps one spacecore; started by other commands
    #[command(hide = true)]
    Keeper,
    /// Owns a deployment's ports; started by the node
    #[command(hide = true, name = node::balance::COMMAND)]
    Balance {
        folder: std::path::PathBuf,
    },
    /// Compiles a Wasm program; started by keepers
    #[command(hide = true, name = hypercore::driver::wasm::COMPILE)]
    Compile {
        module: std::path::PathBuf,
        digest: String,
    },
    /// Compiles a Wasm program in a jail; started by keepers
    #[command(hide = true, name = hypercore::driver::wasm::COMPILE_INSIDE)]
    CompileInside {
        module: std::path::PathBuf,
        digest: String,
    },
    /// Runs Wasm programs in a jail; started by keepers
    #[command(hide = true, name = hypercore::driver::wasm::RUN)]
    RunWasm,
}

fn main() -> ExitCode {
    // Output to a pipe that nobody reads ends the command as it ends every other.
    reset_sigpipe();
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    let result = match cli.command {
        Command::Run(args) => return commands::run::run(args),
        Command::Keeper => return commands::keeper::run(),
        Command::Balance { folder } => return commands::keeper::balance(&folder),
        Command::Compile { module, digest } => return commands::keeper::compile(&module, &digest),
        Command::CompileInside { module, digest } => {
            return commands::keeper::compile_inside(&module, &digest);
        }
        Command::RunWasm => return commands::keeper::run_wasm(),
        Command::Plan(args) => commands::plan::run(args),
        Command::Node(args) => commands::node::run(args),
        Command::Apply(args) => commands::apply::run(args),
        Command::Ps(args) => commands::ps::run(args),
        Command::Inspect(args) => commands::inspect::run(args),
        Command::Inventory(args) => commands::inventory::run(args),
        Command::Logs(args) => commands::logs::run(&args),
        Command::Exec(args) => commands::exec::run(&args),
        Command::Cp(args) => commands::cp::run(&args),
        Command::Stats(args) => commands::stats::run(&args),
        Command::Top(args) => commands::top::run(&args),
        Command::Events(args) => commands::events::run(&args),
        Command::Start(args) => commands::lifecycle::start(&args),
        Command::Stop(args) => commands::lifecycle::stop(&args),
        Command::Restart(args) => commands::lifecycle::restart(&args),
        Command::Scale(args) => commands::lifecycle::scale(&args),
        Command::Wait(args) => commands::lifecycle::wait_for(&args),
        Command::Rm(args) => commands::lifecycle::rm(&args),
        Command::Hac(args) => commands::hac::run(args),
        Command::Image(args) => home().and_then(|home| commands::image::run(args, home.root())),
        Command::Volume(args) => home().and_then(|home| commands::volume::run(args, &home)),
        Command::Secret(args) => home().and_then(|home| commands::secret::run(args, &home)),
        Command::Kernel(args) => home().and_then(|home| commands::kernel::run(args, home.root())),
        Command::Bench(args) => home().and_then(|home| commands::bench::run(args, &home)),
        Command::Doctor(args) => home().and_then(|home| commands::doctor::run(args, home.root())),
    };
    result.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

/// Says what is wrong with the arguments; with a tip for those who are used to other tools.
fn refuse(error: &clap::Error) -> ! {
    // What can't be printed has no reader.
    let _ = error.print();
    let words: Vec<String> = std::env::args().collect();
    let is_run = words.get(1).is_some_and(|word| word == "run" || word == "plan");
    let extra = error.get(clap::error::ContextKind::InvalidArg).map(ToString::to_string);
    if let (true, Some(extra)) = (is_run && error.kind() == clap::error::ErrorKind::UnknownArgument, extra)
        && !extra.starts_with('-')
    {
        let _ = writeln!(
            std::io::stderr(),
            "\n  tip: a command goes behind --: vimana {} IMAGE -- {extra} ...",
            words[1]
        );
    }
    std::process::exit(error.exit_code())
}

fn home() -> anyhow::Result<Home> {
    Ok(Home::find()?)
}

/// Prints an error with its whole chain of causes, once, at the edge.
fn complain(error: &anyhow::Error) {
    // Where standard error is gone there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "vimana: {}", fit_to_show(&format!("{error:#}")));
}

/// A message with words of strangers in it: nothing in it moves the cursor, and a line that it brings along is indented, so
/// that it can't look like one of ours.
fn fit_to_show(message: &str) -> String {
    let lines: Vec<String> = message.lines().map(|line| hac::text::printable(line, 8192)).collect();
    lines.join("\n  ")
}

#[allow(unsafe_code)]
fn reset_sigpipe() {
    // SAFETY: setting a signal's default disposition has no precondition, and no other thread runs yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_s_own_lines_can_t_be_taken_for_ours() {
        assert_eq!(fit_to_show("bad\nvimana: all is well\u{1b}[2J"), "bad\n  vimana: all is well\u{fffd}[2J");
    }
}
