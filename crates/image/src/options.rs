//! What a pull may do, and from where.

use std::path::PathBuf;

use crate::platform::Platform;

/// When a pull chooses what is for `wasi/wasm` out of an image for several platforms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WasmChoice {
    /// Never.
    #[default]
    Never,
    /// Where there is nothing for the platform.
    Fallback,
    /// Wherever there is one; what is for the platform otherwise.
    First,
}

/// What a pull may do and from where.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Speak plain HTTP with the registry. Without it, only registries on loopback are spoken to so, and only
    /// if they don't answer by TLS.
    pub plain_http: bool,
    /// The platform to choose an image for; by default the store's.
    pub platform: Option<Platform>,
    /// Whether what is for `wasi/wasm` is chosen.
    pub wasm: WasmChoice,
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
        match self.wasm {
            WasmChoice::First if !base.is_wasm() => vec![Platform::wasm(), base],
            WasmChoice::Fallback if !base.is_wasm() => vec![base, Platform::wasm()],
            WasmChoice::First | WasmChoice::Fallback | WasmChoice::Never => vec![base],
        }
    }
}
