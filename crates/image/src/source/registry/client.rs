//! One request at a time: authentication, redirects and retries, each under the rules of this module's parent.

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Response, StatusCode, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use super::RegistryError;
use super::address::{Forbidden, Gate, is_loopback_name};
use super::credentials::Credentials;
use super::url::{join, same_origin};
use crate::digest::Digest;

const MOST_REDIRECTS: usize = 5;
const MOST_ATTEMPTS: u32 = 4;
const MOST_HEADER_BYTES: usize = 64 << 10;
const MOST_ERROR_BYTES: u64 = 8 << 10;
const RESOLVE: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(60);
/// The longest silence within an answer.
const IDLE: Duration = Duration::from_secs(30);

/// What is asked for, for requests and for errors.
pub(crate) struct Ask<'a> {
    pub(crate) path: &'a str,
    /// In a person's words.
    pub(crate) what: &'a str,
    pub(crate) accept: Option<&'a str>,
    /// From which byte on.
    pub(crate) from: u64,
}

pub(crate) struct Client {
    pub(super) agent: Agent,
    pub(super) registry: String,
    /// The registry's own address, which credentials are for.
    pub(super) base: Uri,
    plain_http: bool,
    pub(super) scope: String,
    pub(super) credentials: Option<Credentials>,
    pub(super) authorization: Mutex<Option<String>>,
}

pub(crate) struct Settings<'a> {
    pub(crate) registry: &'a str,
    pub(crate) repository: &'a str,
    pub(crate) plain_http: bool,
    pub(crate) ca: Option<&'a Path>,
    pub(crate) credentials: Option<Credentials>,
}

impl Client {
    pub(crate) fn new(settings: Settings<'_>) -> Result<Client, RegistryError> {
        let registry = settings.registry.to_owned();
        let authority = if registry == "docker.io" { "registry-1.docker.io" } else { settings.registry };
        let base = |scheme: &str| -> Result<Uri, RegistryError> {
            let text = format!("{scheme}://{authority}/");
            text.parse::<Uri>().map_err(|_| RegistryError::Url { url: text })
        };
        let secure = base("https")?;
        let host = secure.host().unwrap_or_default().to_owned();
        let mut client = Client {
            agent: agent(&host, settings.ca)?,
            registry,
            base: secure,
            plain_http: settings.plain_http,
            scope: format!("repository:{}:pull", settings.repository),
            authorization: Mutex::new(match &settings.credentials {
                Some(Credentials::Token(token)) => Some(format!("Bearer {token}")),
                _ => None,
            }),
            credentials: settings.credentials,
        };
        if client.plain_http || (is_loopback_name(&host) && !client.speaks_tls()) {
            client.base = base("http")?;
        }
        Ok(client)
    }

    /// Returns the registry's name, for errors.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// Tells whether a registry on this machine answers by TLS. One whose certificate isn't trusted does.
    fn speaks_tls(&self) -> bool {
        let Some(ping) = join(&self.base, "/v2/") else {
            return true;
        };
        match self.agent.get(ping).call() {
            Ok(_) => true,
            Err(error) => is_certificate(&error),
        }
    }

    /// Asks, again if it fails in passing, and answers the response's body and the host that it came from.
    pub(crate) fn get(&self, ask: &Ask<'_>) -> Result<(Response<Body>, String), RegistryError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.get_once(ask) {
                Err(error) if error.is_transient() && attempt < MOST_ATTEMPTS => back_off(attempt),
                result => return result,
            }
        }
    }

    fn get_once(&self, ask: &Ask<'_>) -> Result<(Response<Body>, String), RegistryError> {
        let mut url =
            join(&self.base, ask.path).ok_or_else(|| RegistryError::Url { url: ask.path.to_owned() })?;
        let mut redirects = 0;
        let mut logins = 0;
        loop {
            let own = same_origin(&url, &self.base);
            let response = self.send(&url, ask, own)?;
            let status = response.status();
            match status {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok((response, host(&url))),
                StatusCode::UNAUTHORIZED if own && logins == 0 => {
                    logins += 1;
                    self.log_in(&response)?;
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    redirects += 1;
                    if redirects > MOST_REDIRECTS {
                        return Err(RegistryError::Redirects {
                            url: ask.path.to_owned(),
                            most: MOST_REDIRECTS,
                        });
                    }
                    let location = header(&response, "location").unwrap_or_default();
                    let next = join(&url, location)
                        .ok_or_else(|| RegistryError::Url { url: printable(location, 200) })?;
                    self.check_encryption(&next)?;
                    url = next;
                }
                _ => return Err(self.refusal(response, ask, &url)),
            }
        }
    }

    fn send(&self, url: &Uri, ask: &Ask<'_>, own: bool) -> Result<Response<Body>, RegistryError> {
        let mut request = self.agent.get(url.clone());
        if let Some(accept) = ask.accept {
            request = request.header("Accept", accept);
        }
        if ask.from > 0 {
            request = request.header("Range", format!("bytes={}-", ask.from));
        }
        if own && let Some(value) = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
        {
            request = request.header("Authorization", value);
        }
        request.call().map_err(|error| self.failed(url, error))
    }

    /// Refuses plain HTTP after HTTPS, and plain HTTP to any host that it isn't meant for.
    pub(super) fn check_encryption(&self, url: &Uri) -> Result<(), RegistryError> {
        let host = url.host().unwrap_or_default();
        let plain_is_fine = self.base.scheme_str() == Some("http")
            && (self.plain_http || is_loopback_name(host) || same_origin(url, &self.base));
        if url.scheme_str() == Some("https") || plain_is_fine {
            return Ok(());
        }
        Err(RegistryError::Downgrade {
            registry: self.registry.clone(),
            url: printable(&url.to_string(), 200),
        })
    }

    /// Turns a status that isn't success into an error, with what the registry says in its body.
    fn refusal(&self, mut response: Response<Body>, ask: &Ask<'_>, url: &Uri) -> RegistryError {
        let status = response.status();
        let mut text = Vec::new();
        // Whatever can be read of it is good enough.
        let _ = response.body_mut().as_reader().take(MOST_ERROR_BYTES).read_to_end(&mut text);
        let message = message(&text);
        let (registry, what) = (self.registry.clone(), ask.what.to_owned());
        let own = same_origin(url, &self.base);
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { registry, what, message },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if own => {
                RegistryError::Denied { registry, what, known: self.credentials.is_some(), message }
            }
            _ => RegistryError::Status { host: host(url), what, status: status.as_u16(), message },
        }
    }

    pub(super) fn failed(&self, url: &Uri, error: ureq::Error) -> RegistryError {
        if let ureq::Error::Io(io) = &error
            && let Some(forbidden) = io.get_ref().and_then(|inner| inner.downcast_ref::<Forbidden>())
        {
            return RegistryError::Forbidden { registry: self.registry.clone(), source: forbidden.clone() };
        }
        let (host, source) = (host(url), Box::new(error));
        if is_certificate(&source) {
            return RegistryError::Certificate { host, source };
        }
        RegistryError::Unreachable { host, source }
    }
}

fn agent(host: &str, ca: Option<&Path>) -> Result<Agent, RegistryError> {
    let native = rustls_native_certs::load_native_certs().certs;
    let mut roots: Vec<Certificate<'static>> =
        native.iter().map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()).collect();
    if let Some(path) = ca {
        let pem =
            std::fs::read(path).map_err(|source| RegistryError::CaFile { path: path.to_owned(), source })?;
        let before = roots.len();
        roots.extend(ureq::tls::parse_pem(&pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        }));
        if roots.len() == before {
            return Err(RegistryError::CaEmpty { path: path.to_owned() });
        }
    }
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("vimana/", env!("CARGO_PKG_VERSION")))
        .accept("*/*")
        .max_response_header_size(MOST_HEADER_BYTES)
        .input_buffer_size(256 << 10)
        .timeout_resolve(Some(RESOLVE))
        .timeout_connect(Some(CONNECT))
        .timeout_send_request(Some(IDLE))
        .timeout_recv_response(Some(ANSWER))
        .timeout_per_read(Some(IDLE))
        .timeout_per_write(Some(IDLE))
        .tls_config(tls)
        .build();
    Ok(Agent::with_parts(config, DefaultConnector::default(), Gate::new(host)))
}

/// Tells a certificate that isn't trusted from other failures, wherever it hides in the error.
fn is_certificate(error: &ureq::Error) -> bool {
    let inner = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    matches!(inner, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
}

pub(crate) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Waits 0.2 s after the first failure, then twice as long each time.
pub(crate) fn back_off(attempt: u32) {
    thread::sleep(Duration::from_millis(100_u64.saturating_mul(1 << attempt.min(6))));
}

pub(super) fn host(url: &Uri) -> String {
    url.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default()
}

/// Reads the first of the errors that a registry lists (distribution specification, "Error Codes").
pub(super) fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let first = serde_json::from_slice::<Errors>(body).ok().and_then(|all| all.errors.into_iter().next());
    match first {
        Some(One { code, message }) => {
            let text = if message.is_empty() { code } else { message };
            format!(" (it says: {})", printable(&text, 200))
        }
        None => String::new(),
    }
}

/// Makes a stranger's text fit for a person's terminal.
pub(super) fn printable(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Checks a `Content-Range` (RFC 9110, section 14.4) for where it begins.
pub(crate) fn range_begins_at(response: &Response<Body>, from: u64) -> bool {
    header(response, "content-range")
        .and_then(|value| value.strip_prefix("bytes "))
        .and_then(|range| range.split('-').next())
        .and_then(|begin| begin.trim().parse::<u64>().ok())
        == Some(from)
}

/// Checks the length that an answer announces against what is left to come.
pub(crate) fn check_length(
    response: &Response<Body>,
    host: &str,
    digest: &Digest,
    declared: u64,
    left: u64,
) -> Result<(), RegistryError> {
    let announced = header(response, "content-length").and_then(|value| value.trim().parse::<u64>().ok());
    match announced {
        Some(found) if found != left => Err(RegistryError::Length {
            host: host.to_owned(),
            digest: digest.clone(),
            declared,
            found: declared.saturating_sub(left).saturating_add(found),
        }),
        _ => Ok(()),
    }
}
