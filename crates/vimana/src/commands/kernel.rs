//! `vimana kernel`: the guest kernels in the store.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use hypercore::kernel::{self, Kernel, KernelStore, Step};

#[derive(clap::Args)]
#[command(after_help = "Example:
  vimana kernel fetch && vimana kernel ls")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Fetch(FetchArgs),
    Ls(ListArgs),
    Rm(RemoveArgs),
}

/// Gets a guest kernel: the distribution's newest for virtual machines, without root and without installing it
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana kernel fetch                                    on Debian and Ubuntu
  vimana kernel fetch --from linux-image-6.1.0-56.deb    anywhere
  vimana kernel fetch --from ./folder                    with boot/vmlinuz-* and lib/modules")]
struct FetchArgs {
    /// A package (.deb; may be given more than once), an unpacked package's folder, or a kernel image
    #[arg(long, value_name = "FILE|FOLDER")]
    from: Vec<PathBuf>,
}

/// Lists the kernels in the store, the newest first
#[derive(clap::Args)]
#[command(after_help = "Example:
  vimana kernel ls --verify")]
struct ListArgs {
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
    /// Read every file again and compare it with the digest
    #[arg(long)]
    verify: bool,
}

/// Removes a kernel from the store
#[derive(clap::Args)]
#[command(after_help = "Example:
  vimana kernel rm 3f2a9c41")]
struct RemoveArgs {
    /// The first digits of its digest
    digest: String,
}

/// Runs the command.
pub fn run(args: Args, home: &Path) -> Result<ExitCode> {
    let store = KernelStore::open(&home.join("kernels"))?;
    match args.command {
        Command::Fetch(args) => fetch(&store, &args)?,
        Command::Ls(args) => list(&store, &args)?,
        Command::Rm(args) => {
            let found = store.by_prefix(&args.digest)?;
            let kernel = found
                .with_context(|| format!("no kernel, or more than one, begins with {:?}", args.digest))?;
            store.remove(&kernel)?;
            writeln!(io::stdout(), "removed {}", line(&kernel))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn fetch(store: &KernelStore, args: &FetchArgs) -> Result<()> {
    let mut progress = |step: Step| {
        // Where standard error is gone nobody waits for progress.
        let _ = writeln!(io::stderr(), "{step}");
    };
    let kernel = match args.from.as_slice() {
        [] => kernel::fetch(store, &mut progress)?,
        from => kernel::fetch_from(store, from, &mut progress)?,
    };
    writeln!(io::stdout(), "{}", line(&kernel))?;
    Ok(())
}

fn list(store: &KernelStore, args: &ListArgs) -> Result<()> {
    let kernels = store.list()?;
    if args.verify {
        kernels.iter().try_for_each(|kernel| store.verify(kernel))?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &kernels)?;
        writeln!(out)?;
        return Ok(());
    }
    for kernel in &kernels {
        writeln!(out, "{}", line(kernel))?;
    }
    Ok(())
}

fn line(kernel: &Kernel) -> String {
    let digest: String = kernel.digest.chars().take(12).collect();
    format!("{digest}  {}  {} MiB  {} modules", kernel.release, kernel.bytes >> 20, kernel.modules.len())
}
