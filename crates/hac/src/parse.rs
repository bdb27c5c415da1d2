//! From source text to a manifest: read, decode, resolve, check.

use crate::decode::{Context, Decode};
use crate::diagnostic::{Diagnostics, LineIndex};
use crate::model::Manifest;
use crate::preset;
use crate::tree::{self, Format, Value};
use crate::validate;

/// Reads a manifest.
///
/// Everything that is wrong is in the error at once; only what makes a source no TOML or YAML at all is reported alone.
pub fn parse(source: &str, format: Format) -> Result<Manifest, Diagnostics> {
    let root = tree::read(source, format)
        .map_err(|error| Diagnostics(vec![error.into_diagnostic(&LineIndex::new(source))]))?;
    let mut context = Context::new(Some(source));
    let mut manifest = Manifest::decode(&root, "", &mut context).unwrap_or_default();
    let operations = preset::operations(&root, &mut context);
    preset::resolve(&mut manifest, &operations, &mut context);
    validate::check(&manifest, &mut context);
    context.finish().map(|()| manifest)
}

/// Tells whether a manifest itself says something of a key such as `spec.virtualization.type`, so that what it reads as is no
/// default. A source that can't be read says nothing.
pub fn says(source: &str, format: Format, path: &str) -> bool {
    let Ok(root) = tree::read(source, format) else { return false };
    let found = path.split('.').try_fold(&root, |node, key| node.get(key));
    found.is_some_and(|node| !matches!(node.value, Value::Null))
}
