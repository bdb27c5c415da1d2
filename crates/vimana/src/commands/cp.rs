//! `vimana cp`: files and folders out of a spacecore that runs, or into it.

mod progress;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, bail};
use hac::text::printable;
use node::keeper::report::Outcome;
use rustix::pipe::{PipeFlags, pipe_with};
use spacecore::archive::pass::pass;
use spacecore::archive::place::{Side, means_contents};
use spacecore::archive::{ArchiveError, Limits};
use spacecore::wire::message::{ExitStatus, Process, Transfer};

use self::progress::Progress;
use super::run::attach::{self, Ended, Ends, Options, What};
use crate::client::{At, Client, check_name};

/// Copies files and folders out of a spacecore that runs, or into it
///
/// SPACECORE:PATH is a path in its root, with what is mounted there; nothing of the image is needed for it. Into a folder that is
/// there things go under their own names; else the other path is what they will be called. A source that ends with /. is what is in
/// the folder. - is a tar archive on standard output or input.
///
/// Permissions, times, symbolic and hard links are kept. What comes out belongs to you, what goes in to root; set-user-ID bits don't
/// travel, sockets and devices are left out with a word. Nothing appears under its name before it is whole.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vimana cp web:/var/log/nginx ./logs
  vimana cp ./site/. web:/usr/share/nginx/html
  vimana cp web:/etc - | tar -t
  tar -c . | vimana cp - web:/srv")]
pub struct Args {
    /// What to copy: SPACECORE:PATH, a path of this machine's, or -
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where to: the other of the two
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// The most that a spacecore may send, all files together, in GiB
    #[arg(long, value_name = "GIB", default_value_t = 64)]
    max_gib: u32,
    #[command(flatten)]
    at: At,
}

/// One end of a copy, as it was named.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Stream,
    Local(PathBuf),
    Spacecore(String, String),
}

impl Place {
    /// A name before a colon is a spacecore's, unless there is a slash or a dot before it.
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            Some((name, path)) if !name.is_empty() && !name.contains('/') && !name.starts_with('.') => {
                let slash = if path.starts_with('/') { "" } else { "/" };
                Self::Spacecore(name.to_owned(), format!("{slash}{path}"))
            }
            _ => Self::Local(PathBuf::from(text)),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let copy = match (Place::parse(&args.source), Place::parse(&args.destination)) {
        (Place::Spacecore(..), Place::Spacecore(..)) => {
            bail!(
                "both are in spacecores; copy to this machine first, or join two commands: vimana cp A:/x - | vimana cp - B:/y"
            )
        }
        (Place::Spacecore(name, path), to) => Copy { name, path, direction: Direction::Out(to) },
        (Place::Stream, Place::Spacecore(name, path)) => {
            Copy { name, path, direction: Direction::IntoFromStream }
        }
        (Place::Local(from), Place::Spacecore(name, path)) => {
            from.symlink_metadata().with_context(|| from.display().to_string())?;
            Copy { name, path, direction: Direction::Into(from) }
        }
        _ => bail!("one of the two must be in a spacecore, such as web:/etc/hosts"),
    };
    let limits = Limits::of_bytes(u64::from(args.max_gib) << 30);
    let session = Client::new(&args.at)?.keeper(check_name(&copy.name)?)?;
    // Before there is a thread that could be interrupted by them.
    let _signals = attach::block_signals()?;
    let progress = Progress::new();
    let done = copy.perform(limits, &progress, |process, ends| {
        let stdin = process.stdin;
        let options = Options { ends, ..Options::beside(stdin, None) };
        attach::attach(session, What::Beside(process), options)
    });
    progress.end();
    Ok(ExitCode::from(done?))
}

struct Copy {
    name: String,
    path: String,
    direction: Direction,
}

enum Direction {
    Out(Place),
    Into(PathBuf),
    IntoFromStream,
}

/// What this machine's side of a copy came to.
type Local = Result<(), ArchiveError>;

impl Copy {
    /// Copies, with one thread for the files of this machine while `attach` speaks with the spacecore.
    fn perform(
        &self,
        limits: Limits,
        progress: &Progress,
        attach: impl FnOnce(Process, Ends<'_>) -> io::Result<Ended>,
    ) -> anyhow::Result<u8> {
        let (words, words_end) = pipe_with(PipeFlags::CLOEXEC)?;
        let words = thread::spawn(move || first_words(words));
        let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
        let path = self.path.clone();
        let (ended, local) = match &self.direction {
            Direction::Out(place) => thread::scope(|scope| {
                let contents = means_contents(path.as_bytes());
                let input = progress.read(File::from(from));
                let local = scope.spawn(move || receive(place, contents, input, limits));
                let process = Process::of_transfer(Transfer::Out { path });
                let own = Ends::own();
                let ends = Ends { outputs: [to.as_fd(), words_end.as_fd()], ..own };
                let ended = attach(process, ends);
                drop((to, words_end));
                (ended, local.join())
            }),
            Direction::IntoFromStream => {
                let process = Process::of_transfer(Transfer::Into { path, contents: true });
                let own = Ends::own();
                let ended = attach(process, Ends { outputs: [words_end.as_fd(); 2], ..own });
                drop(words_end);
                (ended, Ok(Ok(())))
            }
            Direction::Into(source) => thread::scope(|scope| {
                let source = source.as_os_str().as_bytes();
                let local = scope.spawn(move || send(source, progress.write(File::from(to))));
                let contents = means_contents(source);
                let process = Process::of_transfer(Transfer::Into { path, contents });
                let ends = Ends { input: from.as_fd(), outputs: [words_end.as_fd(); 2] };
                let ended = attach(process, ends);
                // Who still packs for a spacecore that wants no more is told so.
                drop((from, words_end));
                (ended, local.join())
            }),
        };
        let words = words.join().unwrap_or_default();
        let local = local.map_err(|_| anyhow::anyhow!("copying broke off"))?;
        self.judge(&ended?, local, &words)
    }

    /// Tells how a copy ended; the side that failed first has the better words.
    fn judge(&self, ended: &Ended, local: Local, words: &str) -> anyhow::Result<u8> {
        if let Some(signal) = ended.asked {
            let status = ExitStatus::Signal { signal, out_of_memory: false };
            writeln!(io::stderr(), "vimana: interrupted; nothing half copied is left under its name")?;
            return Ok(status.shell_code());
        }
        let there = format!("{}:{}", self.name, self.path);
        match (&ended.outcome, local) {
            (_, Err(error)) if !matches!(error, ArchiveError::Truncated | ArchiveError::Stream(_)) => {
                Err(anyhow::Error::new(error).context("copying failed on this machine"))
            }
            (Outcome::Exited(ExitStatus::Code(0)), Ok(())) => {
                if !words.is_empty() {
                    writeln!(io::stderr(), "vimana: {there}: {words}")?;
                }
                Ok(0)
            }
            (Outcome::Exited(ExitStatus::Code(0)), Err(error)) => Err(error.into()),
            (Outcome::Exited(ExitStatus::Code(_)), _) if !words.is_empty() => bail!("{there}: {words}"),
            (Outcome::Refused(refusal), _) => bail!("{there}: {}", refusal.message),
            (Outcome::Exited(_), _) => {
                bail!("{there}: copying was ended there; does the workload still run?")
            }
            _ => bail!("{there}: the spacecore ended while files were copied"),
        }
    }
}

/// Makes what a spacecore sends.
fn receive(place: &Place, contents: bool, mut input: impl Read, limits: Limits) -> Local {
    match place {
        Place::Stream => pass(&mut input, io::stdout().lock(), limits)?,
        Place::Local(path) => {
            Side::Here.unpack(path.as_os_str().as_bytes(), contents, &mut input, limits)?;
        }
        Place::Spacecore(..) => {}
    }
    // What comes behind the archive has to go somewhere, or the other side is told that nobody reads.
    io::copy(&mut input, &mut io::sink()).map_err(ArchiveError::Stream)?;
    Ok(())
}

/// Sends what is at this path.
fn send(source: &[u8], output: impl Write) -> Local {
    Side::Here.pack(source, output, &mut |path, what| {
        let _ = writeln!(io::stderr(), "vimana: not copied: {}, which is {what}", printable(path, 200));
    })
}

/// The first words on a spacecore's standard error, fit to be shown; the rest is let go.
fn first_words(from: OwnedFd) -> String {
    let (mut from, mut words) = (File::from(from), Vec::new());
    let _ = Read::by_ref(&mut from).take(4096).read_to_end(&mut words);
    let _ = io::copy(&mut from, &mut io::sink());
    let text = String::from_utf8_lossy(&words);
    let lines: Vec<String> = text.trim_end().lines().map(|line| printable(line, 1024)).collect();
    lines.join("\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_before_a_colon_is_a_spacecore_s_unless_a_path_says_otherwise() {
        let inside = |name: &str, path: &str| Place::Spacecore(name.to_owned(), path.to_owned());
        assert_eq!(Place::parse("web:/etc"), inside("web", "/etc"));
        assert_eq!(Place::parse("web-1:etc/."), inside("web-1", "/etc/."));
        assert_eq!(Place::parse("-"), Place::Stream);
        for local in ["./a:b", "/a:b", "a/b:c", ":c", "plain"] {
            assert_eq!(Place::parse(local), Place::Local(PathBuf::from(local)), "{local}");
        }
    }
}
