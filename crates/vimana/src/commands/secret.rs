//! `vimana secret`: values that workloads read and nobody else.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use node::home::Home;
use node::secret::{MAX_BYTES, Secrets};

/// What is done with secrets.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana secret set database-password < password.txt
  vimana secret ls
  vimana secret rm database-password

A manifest names it in spec.deployment.secrets; the workload reads /run/secrets/NAME.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Keeps a value, read from standard input, in place of one that there may be
    #[command(after_help = "Example:\n  printf %s \"$PASSWORD\" | vimana secret set database-password")]
    Set {
        /// Its name
        name: String,
    },
    /// Lists the names of all secrets
    #[command(after_help = "Example:\n  vimana secret ls --json")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Forgets a secret; spacecores that run keep what they have
    #[command(after_help = "Example:\n  vimana secret rm database-password")]
    Rm {
        /// Its name
        name: String,
    },
}

/// Runs the command.
pub fn run(args: Args, home: &Home) -> anyhow::Result<ExitCode> {
    let secrets = Secrets::at(home.secrets());
    match args.command {
        Command::Set { name } => secrets.set(&name, &value()?)?,
        Command::Rm { name } => secrets.remove(&name)?,
        Command::Ls { json } => {
            let names = secrets.names()?;
            let mut out = std::io::stdout().lock();
            match json {
                true => writeln!(out, "{}", serde_json::to_string(&names)?)?,
                false => names.iter().try_for_each(|name| writeln!(out, "{name}"))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The whole of standard input. A value in an argument would be everybody's who lists processes.
fn value() -> anyhow::Result<zeroize::Zeroizing<Vec<u8>>> {
    let input = std::io::stdin();
    if input.is_terminal() {
        bail!(
            "the value is read from standard input, so that no list of processes shows it: vimana secret set NAME < FILE"
        );
    }
    let mut value = zeroize::Zeroizing::new(Vec::new());
    let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    input.lock().take(most).read_to_end(&mut value)?;
    Ok(value)
}
