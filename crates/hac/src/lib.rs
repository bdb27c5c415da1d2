//! What words mean: the manifest, units, identifiers, diagnostics.
//!
//! The crate is pure: no files, sockets, clocks, threads, randomness or hash-ordered iteration. The same source text
//! gives the same manifest, or the same diagnostics, on every machine.
//!
//! A source goes through four steps, each in a module of its own: [`tree`](Format) (TOML or YAML into one tree that
//! knows the place of everything), `decode` (the tree into the [`model`]), `preset` (short forms and the defaults that
//! follow from other keys), [`mod@validate`] (what must hold between keys). [`to_toml`] and [`to_yaml`] go back.
//!
//! ```
//! let source = "[spec.deployment]\nimage = \"docker.io/library/nginx:1.29\"\n";
//! let manifest = hac::parse(source, hac::Format::Toml)?;
//! assert_eq!(manifest.metadata.name, "nginx");
//! assert_eq!(manifest.spec.resources.memory, hac::units::Bytes::from_mib(512));
//! # Ok::<(), hac::Diagnostics>(())
//! ```

mod decode;
pub mod diagnostic;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod import;
pub mod model;
pub mod node;
mod parse;
pub mod peer;
pub mod policy;
mod preset;
mod print;
pub mod reference;
mod schema;
pub mod settings;
mod starter;
pub mod text;
mod tree;
pub mod units;
pub mod validate;
pub mod words;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use model::Manifest;
pub use parse::{parse, says};
pub use policy::Policy;
pub use print::{to_toml, to_yaml};
pub use reference::{Explanation, UnknownKey, explain};
pub use schema::schema;
pub use settings::Settings;
pub use starter::{starter, starter_yaml};
pub use tree::Format;
pub use validate::validate;
