//! `vimana hac import`: a compose file or an Akash SDL as manifests.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use hac::import::{Import as Imported, Options, Outcome, Remark, Source, dotenv, env_files, import};
use hac::model::Isolation;
use hac::text::printable;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{INVALID, display_name, is_standard, note, print, read, show};

pub(super) const EXAMPLES: &str = "Examples:
  vimana hac import compose.yaml                      writes ./SERVICE/hac.toml for each service
  vimana hac import --out deploy --force deploy.sdl.yaml
  vimana hac import --stdout --isolation Container docker-compose.yml
  vimana hac import --json compose.yaml | jq '.not_carried[] | .key + \": \" + .why'
  docker compose config | vimana hac import -         with all that it extends and includes

Variables (${NAME}) of a compose file come from the environment, then from --env-file or the .env beside the file.";

#[derive(Debug, clap::Args)]
pub struct Import {
    /// The compose file or SDL, `-` for standard input
    file: PathBuf,
    /// The folder in which each service gets a folder with its hac.toml
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,
    /// The kind of file, compose or akash [default: recognised by what is in it]
    #[arg(long, value_name = "KIND")]
    from: Option<Source>,
    /// The isolation of all services: MicroVM, Unikernel, Container, Wasm or TEE [default: MicroVM]
    #[arg(long, value_name = "TYPE")]
    isolation: Option<Isolation>,
    /// Read variables from this file instead of the .env beside the compose file; later ones go before
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Replace manifests that are already there
    #[arg(long)]
    force: bool,
    /// Print the manifests instead of writing them; relative paths are then seen from the imported file's folder
    #[arg(long)]
    stdout: bool,
    /// Print as JSON what was made, and what was not carried over
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &Import) -> anyhow::Result<ExitCode> {
    let name = display_name(&args.file);
    let text = read(&args.file)?;
    let folder = match args.file.parent() {
        Some(parent) if !is_standard(&args.file) && parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut options = Options {
        source: args.from,
        isolation: args.isolation,
        variables: variables(&args.env_file, &folder)?,
        base: if args.stdout { String::new() } else { base(&args.out, &folder)? },
        ..Options::default()
    };
    options.env_files = env_files(&text, &options)
        .into_iter()
        .map(|file| {
            let content = read(&folder.join(&file)).map_err(|error| format!("{:#}", error.root_cause()));
            (file, content)
        })
        .collect();
    let imported = match import(&text, &options) {
        Ok(imported) => imported,
        Err(diagnostics) if args.json => {
            let wrong = serde_json::json!({ "file": name, "valid": false, "diagnostics": diagnostics });
            print(&format!("{}\n", serde_json::to_string_pretty(&wrong)?))?;
            return Ok(ExitCode::from(INVALID));
        }
        Err(diagnostics) => {
            show(&diagnostics, &name, &text)?;
            let errors = if diagnostics.0.len() == 1 { "error" } else { "errors" };
            note(&format!("\n{} {errors}; nothing was written\n", diagnostics.0.len()))?;
            return Ok(ExitCode::from(INVALID));
        }
    };
    let files: Vec<Manifest> = imported
        .services
        .iter()
        .map(|service| Manifest {
            path: args.out.join(&service.folder).join(super::DEFAULT),
            text: imported.to_toml(service, &name),
        })
        .collect();
    if !args.stdout {
        write_all(&files, args.force)?;
    }
    if args.json {
        print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&as_json(&imported, &files, &name, args.stdout))?
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.stdout {
        // One after another they are no single TOML document: each starts with a line that says whose it is.
        let texts: Vec<&str> = files.iter().map(|file| file.text.as_str()).collect();
        print(&texts.join("\n"))?;
    }
    note(&report(&imported, &files, &name, args.stdout))?;
    Ok(ExitCode::SUCCESS)
}

/// A file that is to be written.
struct Manifest {
    path: PathBuf,
    text: String,
}

/// Gathers the variables that a compose file may name: the environment goes before the files.
fn variables(files: &[PathBuf], folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let beside = folder.join(".env");
    let files = match files {
        [] if beside.is_file() => vec![beside],
        files => files.to_owned(),
    };
    let mut variables = BTreeMap::new();
    for file in files {
        let name = file.display();
        let read = dotenv(&read(&file)?).map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
        variables.extend(read.into_iter().filter_map(|(name, value)| Some((name, value?))));
    }
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    variables.extend(environment);
    Ok(variables)
}

/// Finds the way from a service's folder below `out` to the imported file's folder.
fn base(out: &Path, folder: &Path) -> anyhow::Result<String> {
    let folder = folder.canonicalize().with_context(|| format!("{} can't be found", folder.display()))?;
    let out = match out.canonicalize() {
        Ok(out) => out,
        // It will be made: what isn't there has no links.
        Err(_) => without_dots(
            &std::path::absolute(out).with_context(|| format!("{} is no folder", out.display()))?,
        ),
    };
    let common = out.components().zip(folder.components()).take_while(|(one, other)| one == other).count();
    // One more for the service's own folder.
    let up = out.components().count().saturating_sub(common).saturating_add(1);
    let mut base: PathBuf = std::iter::repeat_n("..", up).collect();
    base.extend(folder.components().skip(common));
    Ok(base.to_string_lossy().into_owned())
}

fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

/// Writes all files or, if one can't be, none.
fn write_all(files: &[Manifest], force: bool) -> anyhow::Result<()> {
    if !force {
        let there: Vec<String> = files
            .iter()
            .filter(|file| file.path.symlink_metadata().is_ok())
            .map(|file| file.path.display().to_string())
            .collect();
        if !there.is_empty() {
            let are = if there.len() == 1 { "is" } else { "are" };
            bail!("{} {are} already there; nothing was written; --force replaces", there.join(", "));
        }
    }
    let mut made = Made::default();
    for file in files {
        if let Err(error) = write(file, force, &mut made) {
            made.undo();
            return Err(error.context("nothing was written"));
        }
    }
    Ok(())
}

/// What was made and hadn't been there.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    /// Removes it again. What can't be removed any more stays: somebody else uses it.
    fn undo(self) {
        for path in self.0.iter().rev() {
            let _ = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
    }
}

/// Writes a file under another name first, so that it is there whole or not at all.
fn write(file: &Manifest, force: bool, made: &mut Made) -> anyhow::Result<()> {
    let failed = || format!("{} can't be written", file.path.display());
    let folder = file.path.parent().unwrap_or(Path::new("."));
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|part| *part != Path::new("") && !part.exists()).collect();
    fs::create_dir_all(folder).with_context(failed)?;
    made.0.extend(missing.into_iter().rev().map(ToOwned::to_owned));
    let temporary = folder.join(format!(".hac.toml.{}", std::process::id()));
    fs::write(&temporary, &file.text).with_context(failed)?;
    let was_there = file.path.symlink_metadata().is_ok();
    match place(&temporary, &file.path, force) {
        Ok(()) => {
            if !was_there {
                made.0.push(file.path.clone());
            }
            Ok(())
        }
        Err(error) => {
            // The error that matters is the first one.
            let _ = fs::remove_file(&temporary);
            if error.kind() == io::ErrorKind::AlreadyExists {
                bail!("{} is already there; --force replaces it", file.path.display());
            }
            Err(error).with_context(failed)
        }
    }
}

fn place(temporary: &Path, path: &Path, force: bool) -> io::Result<()> {
    if force {
        return fs::rename(temporary, path);
    }
    match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        // Some file systems can't rename so; there, looking first is the best that there is.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if path.symlink_metadata().is_err() => {
            fs::rename(temporary, path)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Err(io::ErrorKind::AlreadyExists.into()),
        other => other.map_err(Into::into),
    }
}

fn as_json(imported: &Imported, files: &[Manifest], name: &str, printed_only: bool) -> serde_json::Value {
    let services: Vec<_> = imported
        .services
        .iter()
        .zip(files)
        .map(|(service, file)| {
            serde_json::json!({
                "service": service.service,
                "name": service.manifest.metadata.name,
                "path": (!printed_only).then(|| file.path.display().to_string()),
                "toml": file.text,
            })
        })
        .collect();
    serde_json::json!({
        "file": name,
        "valid": true,
        "from": imported.source,
        "services": services,
        "not_carried": imported.remarks_of(Outcome::NotCarried).collect::<Vec<_>>(),
        "changed": imported.remarks_of(Outcome::Changed).collect::<Vec<_>>(),
    })
}

/// Says what was made, what wasn't carried over, and what became something else.
fn report(imported: &Imported, files: &[Manifest], name: &str, printed_only: bool) -> String {
    let mut out = String::new();
    if !printed_only {
        for file in files {
            out.push_str(&format!("wrote {}\n", file.path.display()));
        }
    }
    let kinds =
        [(Outcome::NotCarried, "Not carried over"), (Outcome::Changed, "Carried over, but not the same")];
    for (outcome, title) in kinds {
        let remarks: Vec<&Remark> = imported.remarks_of(outcome).collect();
        if !remarks.is_empty() {
            out.push_str(&format!("\n{title} ({}):\n", remarks.len()));
            out.push_str(&listed(&remarks, name));
        }
    }
    if imported.remarks.is_empty() {
        out.push_str("everything was carried over\n");
    }
    if let (Some(file), false) = (files.first(), printed_only) {
        let path = file.path.display();
        out.push_str(&format!("\n`vimana plan {path}` shows what would run, `vimana run {path}` runs it\n"));
    }
    out
}

/// Lists remarks; what is the same for several services, because it stands in one place, is listed once.
fn listed(remarks: &[&Remark], name: &str) -> String {
    let mut out = String::new();
    let mut rest = remarks.to_vec();
    while let Some(first) = rest.first().copied() {
        let is_same = |other: &&Remark| {
            (other.span, &other.why, &other.instead) == (first.span, &first.why, &first.instead)
        };
        let (same, others): (Vec<&Remark>, Vec<&Remark>) = rest.into_iter().partition(is_same);
        let keys: Vec<String> = same.iter().map(|remark| printable(&remark.key, 200)).collect();
        let place = format!("{}:{}:{}", printable(name, 200), first.span.line, first.span.column);
        out.push_str(&format!("  {place}: {}\n      {}\n", keys.join(", "), printable(&first.why, 400)));
        if let Some(instead) = &first.instead {
            out.push_str(&format!("      instead: {}\n", printable(instead, 400)));
        }
        rest = others;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_to_the_file_is_found_also_from_folders_to_be() {
        let folder = std::env::temp_dir().canonicalize().unwrap();
        let from = |out: &Path| base(out, &folder).unwrap();
        assert_eq!(from(&folder), "..");
        assert_eq!(from(&folder.join("not-there/yet")), "../../..");
        assert_eq!(from(&folder.join("not-there/../neither")), "../..");
        let name = folder.file_name().unwrap().to_str().unwrap();
        assert_eq!(from(&folder.join("../not-there")), format!("../../{name}"));
    }
}
