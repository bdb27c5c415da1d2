//! Registries (OCI distribution specification), and what is never done on one's word.
//!
//! - Plain HTTP is spoken with loopback only, or when asked for; HTTPS never turns into HTTP on the way.
//! - Credentials go to the registry's own origin, and to the token server that it names; never along a redirect.
//! - A token is asked for pulling the one repository, whatever the registry suggests.
//! - No redirect and no realm leads to an address that is nearer than the registry is itself ([`address`]).
//! - A layer's `urls` aren't read.
//! - Everything has a bound: documents, headers, redirects, attempts, and the time of each silence.
//!
//! A transfer that breaks is taken up where it broke, by `Range`, after a pause that grows.

use std::io::{self, Read};

mod address;
mod challenge;
mod client;
mod credentials;
mod error;
mod login;
mod url;

pub use error::RegistryError;

use client::{Ask, Client, Settings, back_off, check_length, range_begins_at};
use ureq::http::StatusCode;

use crate::digest::{Digest, Hasher};
use crate::manifest::{ACCEPT, Descriptor, MAX_DOCUMENT};
use crate::options::PullOptions;
use crate::reference::RegistryReference;

/// How often a transfer is taken up again without as much as [`WORTHWHILE`] in between.
const MOST_RESUMPTIONS: u32 = 5;
const WORTHWHILE: u64 = 1 << 20;

/// One repository of a registry.
pub(crate) struct Registry {
    client: Client,
    name: RegistryReference,
}

impl Registry {
    pub(crate) fn new(name: &RegistryReference, options: &PullOptions) -> Result<Registry, RegistryError> {
        let credentials = credentials::find(name, options.docker_config.as_deref())?;
        let named = std::env::var_os("VIMANA_REGISTRY_CA").filter(|value| !value.is_empty());
        let ca = options.registry_ca.clone().or_else(|| named.map(Into::into));
        let client = Client::new(Settings {
            registry: name.registry(),
            repository: name.repository(),
            plain_http: options.plain_http,
            ca: ca.as_deref(),
            credentials,
        })?;
        Ok(Registry { client, name: name.clone() })
    }

    /// Fetches the manifest or index that the reference names; one named by digest is checked against it.
    pub(crate) fn manifest(&self) -> Result<Vec<u8>, RegistryError> {
        let which = match (self.name.digest(), self.name.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let bytes = self.fetch_manifest(&which)?;
        if let Some(declared) = self.name.digest() {
            let mut hasher = Hasher::new(declared.algorithm());
            hasher.update(&bytes);
            let found = hasher.finish();
            if found != *declared {
                let registry = self.client.registry().to_owned();
                return Err(RegistryError::Digest { registry, declared: declared.clone(), found });
            }
        }
        Ok(bytes)
    }

    /// Fetches a manifest that an index lists; the caller checks it.
    pub(crate) fn manifest_by(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, RegistryError> {
        Ok(Box::new(io::Cursor::new(self.fetch_manifest(&descriptor.digest.to_string())?)))
    }

    /// Fetches the manifest with a tag or digest, if there is one; nothing of it is checked.
    pub(crate) fn manifest_if_there(&self, which: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        match self.fetch_manifest(which) {
            Err(RegistryError::NotFound { .. }) => Ok(None),
            fetched => fetched.map(Some),
        }
    }

    /// Fetches the list of what refers to a manifest (distribution specification, "Listing Referrers"), by the tag that
    /// stands in for it where the registry doesn't know the list.
    pub(crate) fn referrers(&self, digest: &Digest) -> Result<Option<Vec<u8>>, RegistryError> {
        let path = format!("/v2/{}/referrers/{digest}", self.name.repository());
        let what = format!("referrers of {digest} in {}", self.name.repository());
        match self.fetch_document(&path, &what) {
            Err(RegistryError::NotFound { .. }) => self.manifest_if_there(&digest.file_name()),
            fetched => fetched.map(Some),
        }
    }

    fn fetch_manifest(&self, which: &str) -> Result<Vec<u8>, RegistryError> {
        let path = format!("/v2/{}/manifests/{which}", self.name.repository());
        let what = format!("manifest {which} of {}", self.name.repository());
        self.fetch_document(&path, &what)
    }

    fn fetch_document(&self, path: &str, what: &str) -> Result<Vec<u8>, RegistryError> {
        let ask = Ask { path, what, accept: Some(ACCEPT), from: 0 };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (response, host) = self.client.get(&ask)?;
            let mut bytes = Vec::new();
            let reader = response.into_body().into_reader();
            match reader.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes) {
                Ok(_) if bytes.len() as u64 > MAX_DOCUMENT => {
                    let registry = self.client.registry().to_owned();
                    return Err(RegistryError::Large { registry, most: MAX_DOCUMENT });
                }
                Ok(_) => return Ok(bytes),
                Err(_) if attempt < MOST_RESUMPTIONS => back_off(attempt),
                Err(source) => return Err(RegistryError::Broken { host, source }),
            }
        }
    }

    /// Opens a blob. The reader takes a broken transfer up again by itself.
    pub(crate) fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, RegistryError> {
        let mut blob = Blob {
            client: &self.client,
            path: format!("/v2/{}/blobs/{}", self.name.repository(), descriptor.digest),
            what: format!("blob {} of {}", descriptor.digest, self.name.repository()),
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            done: 0,
            body: None,
            failures: 0,
            last_failure: 0,
        };
        blob.open()?;
        Ok(Box::new(blob))
    }
}

struct Blob<'a> {
    client: &'a Client,
    path: String,
    what: String,
    digest: Digest,
    size: u64,
    done: u64,
    body: Option<Box<dyn Read + Send>>,
    failures: u32,
    last_failure: u64,
}

impl Blob<'_> {
    /// Asks for what is still to come.
    fn open(&mut self) -> Result<(), RegistryError> {
        let ask = Ask { path: &self.path, what: &self.what, accept: None, from: self.done };
        let (response, host) = self.client.get(&ask)?;
        let partial =
            response.status() == StatusCode::PARTIAL_CONTENT && range_begins_at(&response, self.done);
        let from = if partial { self.done } else { 0 };
        check_length(&response, &host, &self.digest, self.size, self.size.saturating_sub(from))?;
        let mut body: Box<dyn Read + Send> = Box::new(response.into_body().into_reader());
        if !partial && self.done > 0 {
            // A server that knows no ranges: what is there already goes by once more.
            let skipped = io::copy(&mut (&mut body).take(self.done), &mut io::sink());
            match skipped {
                Ok(count) if count == self.done => {}
                Ok(_) => {
                    let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(RegistryError::Broken { host, source });
                }
                Err(source) => return Err(RegistryError::Broken { host, source }),
            }
        }
        self.body = Some(body);
        Ok(())
    }

    /// Counts a failure and decides whether to go on.
    fn failed(&mut self, error: io::Error) -> io::Result<()> {
        self.body = None;
        if self.done.saturating_sub(self.last_failure) >= WORTHWHILE {
            self.failures = 0;
        }
        self.last_failure = self.done;
        self.failures += 1;
        if self.failures > MOST_RESUMPTIONS {
            return Err(error);
        }
        back_off(self.failures);
        Ok(())
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(body) = self.body.as_mut() else {
                match self.open() {
                    Ok(()) => continue,
                    Err(error) if error.is_transient() => {
                        self.failed(io::Error::other(error))?;
                        continue;
                    }
                    Err(error) => return Err(io::Error::other(error)),
                }
            };
            let complete = self.done >= self.size;
            match body.read(buffer) {
                Ok(0) if complete => return Ok(0),
                Ok(0) => self.failed(io::ErrorKind::UnexpectedEof.into())?,
                Ok(count) => {
                    self.done = self.done.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                    return Ok(count);
                }
                Err(_) if complete => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.failed(error)?,
            }
        }
    }
}

/// Reads what a registry says beside content, whatever it is: challenges, redirects, errors.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_anything(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for challenge in challenge::parse(&text) {
        let _ = (challenge.parameter("realm"), challenge.parameter("scope"));
    }
    let base = ureq::http::Uri::from_static("https://registry.example.org/v2/a/b?c=d");
    if let Some(target) = url::join(&base, &text) {
        assert!(target.host().is_some_and(|host| !host.is_empty()));
        let _ = (url::same_origin(&base, &target), client::host(&target));
    }
    assert!(url::escape(&text).is_ascii());
    assert!(!client::message(bytes).contains(char::is_control));
}
