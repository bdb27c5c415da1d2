//! Which drivers a keeper has.

use std::sync::LazyLock;

use hypercore::driver::Driver;
use hypercore::driver::container::ContainerDriver;
use hypercore::driver::qemu::Qemu;
use hypercore::driver::wasm::Wasm;

/// One for the process, so that what is compiled for one program is there for the next. A keeper is `vimana`, which compiles.
static WASM: LazyLock<Wasm> = LazyLock::new(|| Wasm::compiled_by("/proc/self/exe".into()));

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
