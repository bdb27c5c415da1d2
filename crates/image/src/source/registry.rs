use crate::manifest::Descriptor;
use crate::pull::PullOptions;
use crate::reference::RegistryReference;
use std::io::Read;
pub(crate) struct Registry;
/// A registry that does not serve.
#[derive(Debug, thiserror::Error)]
#[error("images cannot be pulled from registries yet; use oci:, oci-archive: or docker-archive:")]
pub struct RegistryError;
impl Registry {
    pub(crate) fn new(_: &RegistryReference, _: &PullOptions) -> Result<Registry, RegistryError> {
        Err(RegistryError)
    }
    pub(crate) fn manifest(&self) -> Result<Vec<u8>, RegistryError> {
        Err(RegistryError)
    }
    pub(crate) fn manifest_by(&self, _: &Descriptor) -> Result<Box<dyn Read + Send + '_>, RegistryError> {
        Err(RegistryError)
    }
    pub(crate) fn blob(&self, _: &Descriptor) -> Result<Box<dyn Read + Send + '_>, RegistryError> {
        Err(RegistryError)
    }
}
