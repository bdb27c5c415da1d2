//! The settings that travel with an image: where they stand. What they mean, and what they may be, is `hac::settings`.
//!
//! An annotation of the image's own manifest, or a label of its configuration: both are covered by the image's digest, and so
//! by every signature over it. Annotations of indexes aren't looked at.

use serde::Deserialize;

use crate::store::{Image, Store, StoreError};

/// Settings that are there and can't be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The stored manifest can't be read.
    #[error("can't look for settings")]
    Store(#[source] StoreError),
    /// The stored manifest isn't what was stored.
    #[error("can't look for settings: the stored manifest is damaged; remove the image and pull it again")]
    Damaged(#[source] serde_json::Error),
    /// They aren't a text.
    #[error("the annotation {key} isn't a text")]
    NoText {
        /// The annotation.
        key: String,
    },
    /// There are two, which differ.
    #[error("the annotation {key} and the label of that name say different things; one of them must go")]
    Two {
        /// Both names.
        key: String,
    },
}

#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Store {
    /// Gives the text that an image carries under a name: the annotation of its manifest, or the label of its configuration.
    ///
    /// # Errors
    /// [`SettingsError`]; that there is none is no error.
    pub fn carried(&self, image: &Image, key: &str) -> Result<Option<String>, SettingsError> {
        let (manifest, _) = self.documents(image).map_err(SettingsError::Store)?;
        let annotated: Annotated = serde_json::from_slice(&manifest).map_err(SettingsError::Damaged)?;
        let annotation = match annotated.annotations.as_ref().and_then(|all| all.get(key)) {
            Some(serde_json::Value::String(text)) => Some(text),
            Some(_) => return Err(SettingsError::NoText { key: key.to_owned() }),
            None => None,
        };
        match (annotation, image.config.labels.get(key)) {
            (Some(one), Some(other)) if one != other => Err(SettingsError::Two { key: key.to_owned() }),
            (one, other) => Ok(one.or(other).cloned()),
        }
    }
}
