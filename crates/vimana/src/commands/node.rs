//! `vimana node`: the daemon that keeps spacecores running.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use node::home::Home;

/// Keeps spacecores running: what `vimana apply` says, whatever happens to this process
///
/// It needs no configuration. Its spacecores outlive it: ended or killed and started again, it finds them as they are. To end them
/// use vimana stop or vimana rm.
///
/// To upgrade put the newer binary in the place of the older and start the node anew (under systemd: systemctl restart vimana-node). Nothing
/// else is to be done: it reads what the older one has kept, and takes over what runs. Keepers that are too old to be spoken with go on until
/// their spacecores are updated or restarted; vimana ps says which.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana node &
  vimana node --data-dir /srv/vimana
  vimana apply examples/web/hac.toml      in another terminal")]
pub struct Args {
    /// Where everything is kept [default: VIMANA_HOME, or /var/lib/vimana for root and ~/.local/share/vimana for others]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Where its API listens: a unix socket that only this user can open [default: node/node.sock in the data folder]
    #[arg(long, value_name = "PATH")]
    listen: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let home = match args.data_dir {
        Some(folder) => Home::at(&std::path::absolute(folder)?),
        None => Home::find()?,
    };
    let socket = args.listen.unwrap_or_else(|| node::daemon::socket(&home));
    node::daemon::run(&home, &socket, |socket, complaints| {
        let mut err = std::io::stderr().lock();
        // Nobody has to read it.
        let _ = writeln!(err, "vimana: the node serves at {}", socket.display());
        for complaint in complaints {
            let _ = writeln!(err, "vimana: {}", crate::fit_to_show(complaint));
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
