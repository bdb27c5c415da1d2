//! What a program is granted: its arguments, its environment, its folders, and nothing else of the host.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat, openat2};
use rustix::io::Errno;
use spacecore::wire::SECRETS;
use spacecore::wire::message::{Process, Refusal, RefusalKind, Secret};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use super::channel::{Channel, Output};
use super::stdio::{Input, Printer};
use crate::driver::{Mount, MountSource, Wasm};

/// Files, streams and further things that a program may hold open. The process has a limit that all of them share.
pub(super) const HANDLES_MAX: usize = 512;

/// Puts together what a program sees of WASI.
///
/// # Errors
/// A folder isn't there, or an argument can't be told.
pub(super) fn grant(
    wasm: &Wasm,
    process: &Process,
    secrets: &[Secret],
    channel: &Arc<Channel>,
) -> Result<WasiCtxBuilder, Refusal> {
    let mut wasi = WasiCtxBuilder::new();
    // Files are read and written by other threads: only so can a program be stopped that waits for a slow one or sleeps.
    wasi.stdout(Printer::new(channel, Output::Stdout)).stderr(Printer::new(channel, Output::Stderr));
    wasi.stdin(Input::new(channel));
    if process.args.is_empty() {
        let name = wasm.module.file_name().unwrap_or_default();
        wasi.arg(name.to_string_lossy());
    }
    for text in process.args.iter().chain(&process.env) {
        if text.contains('\0') {
            let message = format!("the argument or variable {text:?} holds a zero byte");
            return Err(Refusal { kind: RefusalKind::Protocol, message });
        }
    }
    wasi.args(&process.args);
    for variable in &process.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        wasi.env(name, value);
    }
    write_secrets(wasm, secrets)?;
    for mount in &wasm.mounts {
        folder(&mut wasi, mount)?;
    }
    working_directory(&mut wasi, &wasm.mounts, &process.working_directory)?;
    Ok(wasi)
}

/// Writes secrets into the folder in memory that whoever started this has made for them; the program itself can only read there.
fn write_secrets(wasm: &Wasm, secrets: &[Secret]) -> Result<(), Refusal> {
    if secrets.is_empty() {
        return Ok(());
    }
    let refused = |what: String| Refusal { kind: RefusalKind::Mount, message: what };
    let folder = wasm.mounts.iter().find(|mount| mount.destination == SECRETS);
    let Some(MountSource::Folder(folder)) = folder.map(|mount| &mount.source) else {
        return Err(refused("there is no folder in memory for the secrets".to_owned()));
    };
    for secret in secrets {
        let what = format!("the secret {:?}", secret.name);
        let plain = !secret.name.is_empty() && !secret.name.starts_with('.') && !secret.name.contains('/');
        let value = bytes_of(&secret.value).filter(|_| plain);
        let value = value.ok_or_else(|| refused(format!("{what} can't be read")))?;
        let made =
            OpenOptions::new().write(true).create_new(true).mode(0o400).open(folder.join(&secret.name));
        let written = made.and_then(|mut file| file.write_all(&value));
        written.map_err(|error| refused(format!("{what}: {error}")))?;
    }
    Ok(())
}

/// Pairs of hexadecimal digits as bytes.
fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = pairs.iter().map(|&[high, low]| Some(digit(high)? * 16 + digit(low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

fn perms(mount: &Mount) -> FsPerms {
    if mount.readonly || mount.destination == SECRETS { FsPerms::ReadOnly } else { FsPerms::ReadWrite }
}

fn refuse(what: &Path, destination: &str, error: &dyn std::fmt::Display) -> Refusal {
    let message = format!("the folder {} for {destination} can't be opened: {error}", what.display());
    Refusal { kind: RefusalKind::Mount, message }
}

fn folder(wasi: &mut WasiCtxBuilder, mount: &Mount) -> Result<(), Refusal> {
    let MountSource::Folder(source) = &mount.source else {
        let message =
            format!("{} isn't a folder, and a Wasm program can be given folders alone", mount.destination);
        return Err(Refusal { kind: RefusalKind::Mount, message });
    };
    let opened = wasi.preopened_dir(source, &mount.destination, perms(mount));
    opened.map(drop).map_err(|error| refuse(source, &mount.destination, &error.root_cause()))
}

/// Makes relative paths lead to the working directory: a module's C library looks for them in the folder named `.`, a
/// component asks. A working directory outside all folders leads nowhere, as there is nothing there.
fn working_directory(wasi: &mut WasiCtxBuilder, mounts: &[Mount], path: &str) -> Result<(), Refusal> {
    if matches!(path, "" | "/") {
        return Ok(());
    }
    wasi.initial_cwd(path);
    let holds = |mount: &&Mount| Path::new(path).starts_with(&mount.destination);
    let Some(mount) = mounts.iter().filter(holds).max_by_key(|mount| mount.destination.len()) else {
        return Ok(());
    };
    let (MountSource::Folder(source), Ok(rest)) =
        (&mount.source, Path::new(path).strip_prefix(&mount.destination))
    else {
        return Ok(());
    };
    let beneath = open_beneath(source, rest).map_err(|error| refuse(&source.join(rest), path, &error))?;
    let opened = wasi.preopened_dir(format!("/proc/self/fd/{}", beneath.as_raw_fd()), ".", perms(mount));
    opened.map(drop).map_err(|error| refuse(&source.join(rest), path, &error.root_cause()))
}

/// Opens a folder inside another. What is inside may be a stranger's work: its links must not lead out.
fn open_beneath(source: &Path, rest: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(source, flags, Mode::empty())?;
    let plain: PathBuf = rest.components().filter(|part| *part != Component::CurDir).collect();
    if plain.as_os_str().is_empty() {
        return Ok(root);
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, &plain, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS) => step_by_step(root, &plain),
        other => other,
    }
}

/// The same without that call, which a jail doesn't have: by no link at all.
fn step_by_step(root: OwnedFd, plain: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    plain.components().try_fold(root, |folder, part| match part {
        Component::Normal(name) => openat(&folder, name, flags, Mode::empty()),
        _ => Err(Errno::XDEV),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_directory_never_leads_out_of_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inside")).unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("out")).unwrap();
        std::os::unix::fs::symlink("inside", folder.path().join("in")).unwrap();
        let open = |rest: &str| open_beneath(folder.path(), Path::new(rest));
        assert!(open("").is_ok() && open("inside").is_ok() && open("in").is_ok());
        assert!(open("out").is_err() && open("../x").is_err() && open("inside/../..").is_err());
        let stepped = |rest: &str| step_by_step(open("").unwrap(), Path::new(rest));
        assert!(stepped("inside").is_ok());
        assert!(stepped("out").is_err() && stepped("../x").is_err() && stepped("inside/../..").is_err());
    }
}
