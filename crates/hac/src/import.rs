//! Other tools' files as manifests: a compose file or an Akash SDL becomes one manifest for each service.
//!
//! Nothing is lost silently. Every key of the file is either carried over into a manifest, or named by a [`Remark`] that
//! says where it stands, why it isn't carried over (or what became of it), and what to do instead; a last pass over the
//! whole file names what no reader has touched. Every manifest that comes out is one that [`crate::parse`] accepts.
//!
//! The import reads no files and no environment: variables and the texts of `env_file`s are given to it as data, and
//! [`env_files`] says which files those are.

mod akash;
mod compose;
mod dotenv;
mod draft;
mod interpolate;
mod mentions;
mod quantity;
mod reader;
mod remark;
mod shell;

use std::collections::BTreeMap;

pub use dotenv::{InvalidLine, dotenv};
pub use remark::{Outcome, Remark};

use crate::diagnostic::Diagnostics;
use crate::model::{Isolation, Manifest};
use crate::tree::{self, Node, Value};
use crate::words::words;
use reader::{At, Reader};

words! {
    /// A kind of file that can be imported.
    pub enum Source {
        /// A compose file, as the compose specification describes it (versions 2 and 3 are parts of that).
        Compose = "compose" | "docker-compose",
        /// An Akash SDL, version 2.0 or 2.1.
        Akash = "akash" | "sdl",
    }
}

/// What an import knows beside the file's text.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The kind of file; `None` recognises it by content.
    pub source: Option<Source>,
    /// The isolation that is written; `None` is the default one.
    pub isolation: Option<Isolation>,
    /// The variables that `${NAME}` in a compose file stands for.
    pub variables: BTreeMap<String, String>,
    /// The texts of the files that [`env_files`] names, or why one can't be read.
    pub env_files: BTreeMap<String, Result<String, String>>,
    /// The way from a manifest's folder to the imported file's, such as `..`; empty if they are one.
    pub base: String,
}

/// One service of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The service's name in the file.
    pub service: String,
    /// A name for the service's folder: a DNS label, and no other service of the file has it.
    pub folder: String,
    /// What it became.
    pub manifest: Manifest,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// The kind of file.
    pub source: Source,
    /// The services in the order of the file; at least one.
    pub services: Vec<Imported>,
    /// What couldn't be carried over, or was changed on the way, in the order of the file.
    pub remarks: Vec<Remark>,
}

impl Import {
    /// Gives what an outcome happened to.
    pub fn remarks_of(&self, outcome: Outcome) -> impl Iterator<Item = &Remark> {
        self.remarks.iter().filter(move |remark| remark.outcome == outcome)
    }

    /// Prints a service's manifest as TOML, under comments that say where it is from and what it lacks.
    pub fn to_toml(&self, imported: &Imported, file_name: &str) -> String {
        let clean = |text: &str| crate::text::printable(text, 1000);
        let mut out = format!(
            "# Imported from {}, service {}.\n",
            clean(file_name),
            clean(&format!("{:?}", imported.service))
        );
        let lost: Vec<_> = self
            .remarks_of(Outcome::NotCarried)
            .filter(|remark| remark.service.as_deref() == Some(&imported.service))
            .collect();
        if !lost.is_empty() {
            out.push_str("# Not carried over (`vimana hac import` says why, and what to do instead):\n");
        }
        for remark in lost {
            out.push_str(&format!("#   line {}: {}\n", remark.span.line, clean(&remark.key)));
        }
        out.push('\n');
        out.push_str(&crate::to_toml(&imported.manifest));
        out
    }
}

/// Gives the names of the `env_file`s of a compose file, as they are written but for its variables; nothing for a file
/// that can't be imported.
pub fn env_files(text: &str, options: &Options) -> Vec<String> {
    let Ok((mut root, aliased)) = tree::read_foreign(text) else {
        return Vec::new();
    };
    if recognise(&root, options.source) != Some(Source::Compose) {
        return Vec::new();
    }
    let mut reader = Reader::new(text, aliased);
    interpolate::tree(&mut root, &options.variables, &mut reader);
    compose::env_files(&root)
}

/// Imports a file.
///
/// # Errors
/// Everything that makes the file no compose file or SDL, or a service no spacecore, all at once, with places.
pub fn import(text: &str, options: &Options) -> Result<Import, Diagnostics> {
    let (mut root, aliased) = tree::read_foreign(text).map_err(|mut error| {
        if is_toml(text) {
            error.help = Some(NOT_TOML.to_owned());
        }
        Diagnostics(vec![error.into_diagnostic(&crate::diagnostic::LineIndex::new(text))])
    })?;
    let mut reader = Reader::new(text, aliased);
    let Some(source) = recognise(&root, options.source) else {
        let (message, help) = match root.value {
            Value::String(_) if is_toml(text) => ("this is TOML".to_owned(), NOT_TOML.to_owned()),
            _ => unrecognised(&root),
        };
        reader.error(&At::root(&root), message, &help);
        return Err(reader.into_diagnostics());
    };
    reader.refuse_nul(&root);
    let drafts = match source {
        Source::Compose => {
            interpolate::tree(&mut root, &options.variables, &mut reader);
            compose::read(&root, options, &mut reader)
        }
        Source::Akash => akash::read(&root, options, &mut reader),
    };
    if drafts.is_empty() && !reader.has_errors() {
        reader.error(&At::root(&root), "there is no service in this file", "list one below `services:`");
    }
    reader.sweep(&root);
    let services = draft::finish(drafts, &mut reader);
    if reader.has_errors() {
        return Err(reader.into_diagnostics());
    }
    Ok(Import { source, services, remarks: reader.into_remarks() })
}

const NOT_TOML: &str =
    "it looks like TOML: an import reads the YAML of other tools, and a hac.toml runs without one";

/// Tells whether a text looks like TOML, such as a manifest that needs no import.
fn is_toml(text: &str) -> bool {
    crate::Format::from_content(text) == crate::Format::Toml && text.contains('=')
}

/// Tells what kind of file a tree is.
fn recognise(root: &Node, forced: Option<Source>) -> Option<Source> {
    let Value::Table(entries) = &root.value else { return None };
    let has = |key: &str| entries.iter().any(|entry| entry.key == key);
    if !has("services") {
        return None;
    }
    // A compose file has `profiles` within services only.
    let is_sdl = has("profiles") || has("deployment");
    forced.or(Some(if is_sdl { Source::Akash } else { Source::Compose }))
}

/// Says what a file probably is that has no services.
fn unrecognised(root: &Node) -> (String, String) {
    let Value::Table(entries) = &root.value else {
        let message = match root.value {
            Value::Null => "the file is empty".to_owned(),
            _ => format!("the file is {}, where it must be a table with `services`", root.kind()),
        };
        return (message, "a compose file or an Akash SDL has a `services` table".to_owned());
    };
    let has = |key: &str| entries.iter().any(|entry| entry.key == key);
    let has_image = |entry: &tree::Entry| match &entry.node.value {
        Value::Table(keys) => keys.iter().any(|key| key.key == "image" || key.key == "build"),
        _ => false,
    };
    let (message, help) = if has("apiVersion") && has("spec") {
        (
            "this is a manifest already, or another tool's",
            "`vimana hac check` checks a manifest; an import reads a compose file or an Akash SDL",
        )
    } else if has("include") {
        (
            "this compose file only includes others",
            "`docker compose config` writes them out as one: import its output",
        )
    } else if entries.iter().any(has_image) {
        (
            "this is a compose file of the first version, whose services stand at the top",
            "indent everything, and write `services:` above it",
        )
    } else {
        (
            "this is neither a compose file nor an Akash SDL: it has no `services`",
            "both have a table `services`; an SDL has `profiles` and `deployment` beside it",
        )
    };
    (message.to_owned(), help.to_owned())
}
