//! What the fuzz targets of this crate do with any bytes; tests do the same with real inputs that were changed.

pub use crate::driver::wasm::read_anything as program;
pub use crate::kernel::fuzzing::kernel;
pub use crate::passt::fuzzing::frames;

#[cfg(test)]
#[path = "../../../fuzz/mutated.rs"]
pub(crate) mod mutated;

/// Where the fuzz targets lie: beside that of `node`, so that what both are made of is built once.
#[cfg(test)]
pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../node");
