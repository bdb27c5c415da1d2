//! What a pull may do, and from where.

use std::path::PathBuf;

use crate::platform::Platform;

/// What a pull may do and from where.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Speak plain HTTP with the registry. Without it, only registries on loopback are spoken to so, and only
    /// if they don't answer by TLS.
    pub plain_http: bool,
    /// The platform to choose an image for; by default the store's.
    pub platform: Option<Platform>,
    /// Choose what is for `wasi/wasm`, and only where there is none what is for `platform`.
    pub wasm: bool,
    /// A PEM file of further root certificates; by default the one that `VIMANA_REGISTRY_CA` names.
    pub registry_ca: Option<PathBuf>,
    /// The folder with Docker's `config.json`; by default `DOCKER_CONFIG`, then `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// containerd's socket; by default `CONTAINERD_ADDRESS`, then `/run/containerd/containerd.sock`.
    pub containerd_address: Option<PathBuf>,
    /// containerd's namespace; by default `CONTAINERD_NAMESPACE`, then `default`.
    pub containerd_namespace: Option<String>,
}

impl PullOptions {
    /// Lists the platforms that an image may be for, the best first; `base` is what `platform` defaults to.
    pub(crate) fn wanted(&self, base: &Platform) -> Vec<Platform> {
        let base = self.platform.clone().unwrap_or_else(|| base.clone());
        match self.wasm && !base.is_wasm() {
            true => vec![Platform::wasm(), base],
            false => vec![base],
        }
    }
}
