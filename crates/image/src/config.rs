//! An image's configuration: what to run, as whom, and the layers that it must be run on.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::digest::Digest;
use crate::platform::Platform;

/// How to run an image (OCI image specification, "Image Configuration").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// The arguments behind the entrypoint, or the program where there is none.
    pub cmd: Vec<String>,
    /// The environment, as `NAME=value`.
    pub env: Vec<String>,
    /// The user, as `user`, `uid`, `user:group` or `uid:gid`; empty for root.
    pub user: String,
    /// The folder to start in; empty for `/`.
    pub working_dir: String,
    /// The signal that asks the program to end, by name or number.
    pub stop_signal: Option<String>,
    /// The ports that the image listens on, as `80/tcp`.
    pub exposed_ports: BTreeSet<String>,
    /// The folders that hold data.
    pub volumes: BTreeSet<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Docker's health check, if there is one.
    pub healthcheck: Option<Healthcheck>,
    /// The processor that the image is for, in Go's words.
    pub architecture: String,
    /// The operating system that the image is for.
    pub os: String,
    /// The processor's variant.
    pub variant: Option<String>,
    /// When the image was made (RFC 3339), as the image says.
    pub created: Option<String>,
}

/// How Docker checks whether a container is well. Times are in nanoseconds; 0 means Docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all(deserialize = "PascalCase"))]
pub struct Healthcheck {
    /// `NONE`, or `CMD` or `CMD-SHELL` and its arguments.
    #[serde(alias = "test")]
    pub test: Vec<String>,
    /// The time between two checks.
    #[serde(alias = "interval")]
    pub interval: u64,
    /// The longest time that a check may take.
    #[serde(alias = "timeout")]
    pub timeout: u64,
    /// The time after the start in which failures don't count.
    #[serde(alias = "start_period")]
    pub start_period: u64,
    /// How many failures in a row make a container unwell.
    #[serde(alias = "retries")]
    pub retries: u64,
}

#[derive(Deserialize)]
struct RawImage {
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    os: Option<String>,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    config: Option<RawConfig>,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    labels: Option<BTreeMap<String, String>>,
    healthcheck: Option<Healthcheck>,
}

/// Reads a configuration and the digests of the unpacked layers, bottom first.
pub(crate) fn parse(bytes: &[u8]) -> Result<(ImageConfig, Vec<Digest>), ConfigError> {
    let raw: RawImage = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
    let config = raw.config.unwrap_or_default();
    let parsed = ImageConfig {
        entrypoint: config.entrypoint.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        user: config.user.unwrap_or_default(),
        working_dir: config.working_dir.unwrap_or_default(),
        stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
        exposed_ports: config.exposed_ports.unwrap_or_default().into_keys().collect(),
        volumes: config.volumes.unwrap_or_default().into_keys().collect(),
        labels: config.labels.unwrap_or_default(),
        healthcheck: config.healthcheck,
        architecture: raw.architecture.unwrap_or_default(),
        os: raw.os.unwrap_or_default(),
        variant: raw.variant.filter(|variant| !variant.is_empty()),
        created: raw.created,
    };
    let texts = [&parsed.entrypoint, &parsed.cmd, &parsed.env];
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(ConfigError::Nul);
    }
    Ok((parsed, raw.rootfs.diff_ids.unwrap_or_default()))
}

/// Reads a Wasm artifact's configuration, which says little; one that can't be read says nothing.
pub(crate) fn parse_wasm(bytes: &[u8]) -> ImageConfig {
    #[derive(Default, Deserialize)]
    struct Raw {
        #[serde(default)]
        created: Option<String>,
        #[serde(default)]
        os: Option<String>,
    }
    let raw: Raw = serde_json::from_slice(bytes).unwrap_or_default();
    let wasm = Platform::wasm();
    ImageConfig {
        architecture: wasm.architecture,
        os: raw.os.filter(|os| os.starts_with("wasi")).unwrap_or(wasm.os),
        created: raw.created,
        ..ImageConfig::default()
    }
}

impl ImageConfig {
    /// Chooses out of the platforms, the best first, the one that the image runs on. An image that doesn't say which
    /// that is, is taken to run on the last.
    pub(crate) fn choose_platform(&self, wanted: &[Platform]) -> Result<Platform, ConfigError> {
        let refusal = match wanted.first() {
            Some(best) => self.check_platform(best),
            None => Ok(()),
        };
        // An image that doesn't say what it is for is an ordinary one.
        let fits = wanted.iter().filter(|platform| self.check_platform(platform).is_ok());
        let fits = fits.min_by_key(|platform| platform.is_wasm());
        match (fits, refusal) {
            (Some(platform), _) => Ok(platform.clone()),
            (None, Err(refusal)) => Err(refusal),
            (None, Ok(())) => Ok(Platform::host()),
        }
    }

    /// Returns the program: the first word of entrypoint and cmd.
    pub(crate) fn program(&self) -> Option<&str> {
        self.entrypoint.iter().chain(&self.cmd).next().map(String::as_str)
    }

    /// Checks that the image runs on `platform`; an image that doesn't say is taken to.
    pub(crate) fn check_platform(&self, platform: &Platform) -> Result<(), ConfigError> {
        if self.architecture.is_empty() || self.os.is_empty() {
            return Ok(());
        }
        let mine = Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
        };
        match platform.rank(&mine) {
            Some(_) => Ok(()),
            None => Err(ConfigError::Platform { found: Box::new(mine), wanted: Box::new(platform.clone()) }),
        }
    }
}

/// A configuration that can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It isn't JSON of the expected shape.
    #[error("the image's configuration isn't what the image specification describes")]
    Json(#[source] serde_json::Error),
    /// An argument or variable holds a zero byte, which no program can be given.
    #[error("the image's entrypoint, cmd or env holds a zero byte")]
    Nul,
    /// The image is for another machine.
    #[error("the image is for {found}, but {wanted} is wanted")]
    Platform {
        /// What the image is for.
        found: Box<Platform>,
        /// What was asked for.
        wanted: Box<Platform>,
    },
    /// Manifest and configuration disagree about the layers.
    #[error("the manifest has {layers} layers, but the configuration lists {diff_ids} diff_ids")]
    LayerCount {
        /// How many the manifest has.
        layers: usize,
        /// How many the configuration has.
        diff_ids: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_configuration_is_read_whole() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2024-01-01T00:00:00Z","config":{{
            "User":"app","ExposedPorts":{{"80/tcp":{{}}}},"Env":["A=b"],"Entrypoint":["/x"],"Cmd":null,
            "Volumes":{{"/data":{{}}}},"WorkingDir":"/w","Labels":{{"k":"v"}},"StopSignal":"SIGINT",
            "Healthcheck":{{"Test":["CMD","x"],"Interval":5,"StartPeriod":7,"Retries":3}}}},
            "rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            Digest::of(b"")
        );
        let (config, diff_ids) = parse(text.as_bytes()).unwrap();
        assert_eq!(diff_ids, [Digest::of(b"")]);
        assert_eq!(config.entrypoint, ["/x"]);
        assert!(config.cmd.is_empty());
        assert_eq!(config.exposed_ports.first().map(String::as_str), Some("80/tcp"));
        let check = config.healthcheck.clone().unwrap();
        assert_eq!((check.interval, check.start_period, check.retries), (5, 7, 3));
        let stored = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ImageConfig>(&stored).unwrap(), config);
    }

    #[test]
    fn an_image_for_another_machine_is_refused_by_name() {
        let config =
            ImageConfig { architecture: "arm64".into(), os: "linux".into(), ..ImageConfig::default() };
        let error = config.check_platform(&"linux/amd64".parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "the image is for linux/arm64, but linux/amd64 is wanted");
    }
}
