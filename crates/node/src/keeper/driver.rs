//! Which drivers a keeper has.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use hypercore::driver::container::ContainerDriver;
use hypercore::driver::qemu::Qemu;
use hypercore::driver::wasm::Wasm;
use hypercore::driver::{Body, Driver};

use super::assignment::Assignment;

/// One for the process, so that what is compiled for one program is there for the next. A keeper is `vimana`, which compiles.
static WASM: LazyLock<Wasm> = LazyLock::new(|| Wasm::compiled_by("/proc/self/exe".into()));

/// Has Wasm programs run in jails, where the caller is root. To be called by the main thread, with which that of all programs ends. A
/// keeper whose program has a process of its own keeps no other, and starts none for all.
///
/// # Errors
/// The program that this process executes can't be told.
pub(super) fn jail_wasm(assignment: &Assignment) -> io::Result<()> {
    if let Body::Wasm(wasm) = &assignment.machine.body
        && rustix::process::geteuid().is_root()
    {
        let cache = wasm.cache.parent().map(|cache| cache.join("jail"));
        WASM.jail(&own_program(&assignment.run_folder)?, cache.as_deref());
        if assignment.machine.network.is_none() && wasm.folder.is_none() {
            WASM.run_for_all();
        }
    }
    Ok(())
}

/// The program that this process executes, as a file that can be shown in a jail. During an upgrade it isn't there any more under its name, and
/// nothing else can be mounted; then a copy in the run folder is, which goes with it.
fn own_program(run_folder: &Path) -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    if path.exists() || !run_folder.is_dir() {
        return Ok(path);
    }
    let copy = run_folder.join("program");
    std::fs::copy("/proc/self/exe", &copy)?;
    Ok(copy)
}

/// There is no driver of this name.
#[derive(Debug, thiserror::Error)]
#[error("this keeper has no driver {0}; it has qemu, container and wasm")]
pub struct UnknownDriver(String);

/// The driver of this name.
///
/// # Errors
/// There is none.
pub fn driver(name: &str) -> Result<Box<dyn Driver>, UnknownDriver> {
    match name {
        "qemu" => Ok(Box::new(Qemu::find())),
        "container" => Ok(Box::new(ContainerDriver)),
        "wasm" => Ok(Box::new(WASM.clone())),
        other => Err(UnknownDriver(other.to_owned())),
    }
}
