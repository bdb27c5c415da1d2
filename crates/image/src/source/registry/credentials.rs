//! Who to be to a registry, as Docker's `config.json` says it.
//!
//! `credHelpers` for the registry comes first, then `credsStore`, then `auths`, as in Docker. Secrets are never part
//! of an error or of `Debug`.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::RegistryError;
use crate::manifest::MAX_DOCUMENT;
use crate::reference::RegistryReference;

/// What the registry, or the server that gives out its tokens, is shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A user's name and password.
    Basic { user: String, password: String },
    /// A refresh token for the token server (OAuth 2).
    Identity(String),
    /// A token for the registry itself.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::Basic { .. } => "Basic(…)",
            Credentials::Identity(_) => "Identity(…)",
            Credentials::Token(_) => "Token(…)",
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: HashMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// What a credential helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Finds the credentials for a registry; `folder` holds `config.json` and is by default `DOCKER_CONFIG`, then
/// `~/.docker`.
pub(crate) fn find(
    name: &RegistryReference,
    folder: Option<&Path>,
) -> Result<Option<Credentials>, RegistryError> {
    let Some(folder) = folder.map(Path::to_owned).or_else(default_folder) else {
        return Ok(None);
    };
    let path = folder.join("config.json");
    let mut text = String::new();
    match fs::File::open(&path).and_then(|file| file.take(MAX_DOCUMENT).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(RegistryError::ConfigFile { path, source }),
    }
    // serde_json's messages name types and places, never values.
    let config: DockerConfig = serde_json::from_str(&text)
        .map_err(|error| RegistryError::ConfigFile { path: path.clone(), source: error.into() })?;
    let host = server(name);
    let helper =
        config.cred_helpers.iter().find(|(key, _)| bare(key) == bare(&host)).map(|(_, helper)| helper);
    if let Some(helper) = helper.or(config.creds_store.as_ref())
        && let Some(found) = ask(helper, &host)?
    {
        return Ok(Some(found));
    }
    let repository = format!("{}/{}", bare(&host), name.repository());
    let mut best: Option<(usize, &Entry)> = None;
    for (key, entry) in &config.auths {
        let key = bare(key);
        let fits =
            repository == key || repository.strip_prefix(key).is_some_and(|rest| rest.starts_with('/'));
        if fits && best.is_none_or(|(length, _)| key.len() > length) {
            best = Some((key.len(), entry));
        }
    }
    match best {
        Some((_, entry)) => entry.credentials(&path, name.registry()),
        None => Ok(None),
    }
}

fn default_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")))
}

/// Returns the name that Docker keeps a registry's credentials by.
fn server(name: &RegistryReference) -> String {
    match name.registry() {
        "docker.io" => "https://index.docker.io/v1/".to_owned(),
        other => other.to_owned(),
    }
}

/// Cuts a key down to its host and path: `https://index.docker.io/v1/` and `docker.io` are the same server.
fn bare(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    match key {
        "docker.io" | "registry-1.docker.io" => "index.docker.io",
        other => other,
    }
}

impl Entry {
    fn credentials(&self, path: &Path, registry: &str) -> Result<Option<Credentials>, RegistryError> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.registrytoken) {
            return Ok(Some(Credentials::Token(token)));
        }
        if let Some(token) = filled(&self.identitytoken) {
            return Ok(Some(Credentials::Identity(token)));
        }
        if let Some(packed) = filled(&self.auth) {
            let pair = STANDARD.decode(packed.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = pair.as_deref().and_then(|pair| pair.split_once(':'));
            let (user, password) = pair.ok_or_else(|| RegistryError::BadAuth {
                path: path.to_owned(),
                registry: registry.to_owned(),
            })?;
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Credentials::Basic { user: user.to_owned(), password }));
        }
        match (filled(&self.username), filled(&self.password)) {
            (Some(user), Some(password)) => Ok(Some(Credentials::Basic { user, password })),
            _ => Ok(None),
        }
    }
}

/// Asks `docker-credential-HELPER get` (docker/docker-credential-helpers). `None` if it knows nothing.
fn ask(helper: &str, server: &str) -> Result<Option<Credentials>, RegistryError> {
    let program = format!("docker-credential-{helper}");
    let failed = |source| RegistryError::Helper { program: program.clone(), source };
    if helper.is_empty()
        || !helper.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        return Err(failed(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    let spawned = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        // Configured for another machine's desktop: what needs no login still works.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that doesn't read its question says so by its status.
        let _ = stdin.write_all(server.as_bytes());
    }
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(1 << 20).read_to_end(&mut text).map_err(failed)?;
    }
    if !child.wait().map_err(failed)?.success() {
        return Ok(None);
    }
    let answer: Answer = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::Identity(answer.secret),
        _ => Credentials::Basic { user: answer.username, password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(config: &str, name: &str) -> Result<Option<Credentials>, RegistryError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), config).unwrap();
        find(&name.parse().unwrap(), Some(folder.path()))
    }

    fn basic(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic { user: user.into(), password: password.into() })
    }

    #[test]
    fn credentials_are_found_by_host_and_by_the_longest_path() {
        let config = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{}"}},"r.example":{{"username":"u","password":"p"}},
            "r.example/team":{{"identitytoken":"t"}},"https://s.example/v2/":{{"registrytoken":"x"}}}}}}"#,
            STANDARD.encode("hub:se:cret")
        );
        assert_eq!(look_up(&config, "alpine").unwrap(), basic("hub", "se:cret"));
        assert_eq!(look_up(&config, "r.example/a").unwrap(), basic("u", "p"));
        assert_eq!(look_up(&config, "r.example/teams/a").unwrap(), basic("u", "p"));
        assert_eq!(look_up(&config, "r.example/team/a").unwrap(), Some(Credentials::Identity("t".into())));
        assert_eq!(look_up(&config, "s.example/a").unwrap(), Some(Credentials::Token("x".into())));
        assert_eq!(look_up(&config, "other.example/a").unwrap(), None);
        assert_eq!(look_up("{}", "alpine").unwrap(), None);
    }

    #[test]
    fn a_damaged_configuration_is_named_without_its_secrets() {
        let error = look_up(r#"{"auths":{"r.example":{"auth":"!secret!"}}}"#, "r.example/a").unwrap_err();
        assert!(error.to_string().contains("r.example") && !error.to_string().contains("secret"), "{error}");
        assert!(matches!(look_up("{", "alpine"), Err(RegistryError::ConfigFile { .. })));
        let wrong = look_up(r#"{"credsStore":"../x"}"#, "alpine");
        assert!(matches!(wrong, Err(RegistryError::Helper { .. })));
        assert_eq!(look_up(r#"{"credsStore":"not-installed-here"}"#, "alpine").unwrap(), None);
    }
}
