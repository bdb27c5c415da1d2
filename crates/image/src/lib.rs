//! OCI image to a verified, bootable root file system.
//!
//! [`Reference`] says where an image comes from, [`Store::pull`] brings it into a [`Store`], and [`Store::get`]
//! finds it there again without any network. Each layer is checked and converted while it streams, once, into a
//! read-only squashfs with its dm-verity tree ([`layer`]), and is kept by content. A Wasm program comes from a file,
//! from an OCI artifact, or out of an ordinary image, and is kept as it is.

pub mod advisories;
mod config;
mod digest;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod inventory;
pub mod layer;
mod manifest;
mod options;
mod platform;
mod progress;
mod pull;
mod reference;
mod sbom;
mod settings;
pub mod signatures;
mod source;
mod store;
mod whole;

pub use config::{ConfigError, Healthcheck, ImageConfig};
pub use digest::{Algorithm, Digest, DigestError};
pub use manifest::ManifestError;
pub use options::{PullOptions, WasmChoice};
pub use platform::{Platform, PlatformError};
pub use progress::Progress;
pub use pull::{LayerError, PullError, WasmError};
pub use reference::{Reference, ReferenceError, RegistryReference};
pub use sbom::sbom;
pub use settings::SettingsError;
pub use source::{SourceError, containerd::ContainerdError, registry::RegistryError};
pub use store::{
    Freed, Image, ImageLayer, OpenError, OptionsError, Owners, Store, StoreError, StoreOptions, Summary,
    TreeError, Usage, WasmModule,
};
pub use whole::whole;
