//! How a registry is told who asks: basic and token authentication.

use std::io::Read;
use std::sync::PoisonError;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::RegistryError;
use super::challenge;
use super::client::{Client, host, printable};
use super::credentials::Credentials;
use super::url::{escape, join};

const MOST_TOKEN_BYTES: u64 = 64 << 10;

impl Client {
    /// Gets what the next request needs to be let in.
    pub(super) fn log_in(&self, response: &Response<Body>) -> Result<(), RegistryError> {
        let challenges: Vec<_> = response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let bearer = challenges.iter().find(|challenge| challenge.scheme == "bearer");
        let basic = challenges.iter().any(|challenge| challenge.scheme == "basic");
        let value = match (bearer, &self.credentials) {
            // The registry's own token was shown already, and wasn't taken.
            (_, Some(Credentials::Token(_))) => return Ok(()),
            (Some(challenge), credentials) => {
                let realm = challenge.parameter("realm").unwrap_or_default();
                let service = challenge.parameter("service");
                format!("Bearer {}", self.token(realm, service, credentials.as_ref())?)
            }
            (None, Some(Credentials::Basic { user, password })) if basic => basic_header(user, password),
            (None, _) if basic || challenges.is_empty() => return Ok(()),
            (None, _) => {
                let schemes: Vec<&str> =
                    challenges.iter().map(|challenge| challenge.scheme.as_str()).collect();
                let schemes = printable(&schemes.join(", "), 200);
                return Err(RegistryError::Scheme { registry: self.registry.clone(), schemes });
            }
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        Ok(())
    }

    /// Asks the token server for a token that allows pulling this repository and nothing else (distribution's
    /// token authentication specification). Redirects aren't followed: they could carry the password away.
    fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        credentials: Option<&Credentials>,
    ) -> Result<String, RegistryError> {
        let url = join(&self.base, realm).ok_or_else(|| RegistryError::Url { url: printable(realm, 200) })?;
        self.check_encryption(&url)?;
        let failed = |reason: String| RegistryError::Token {
            registry: self.registry.clone(),
            host: host(&url),
            reason,
        };
        let mut query = format!("scope={}", escape(&self.scope));
        if let Some(service) = service {
            query.push_str(&format!("&service={}", escape(service)));
        }
        let result = match credentials {
            Some(Credentials::Identity(token)) => {
                let form = format!(
                    "grant_type=refresh_token&client_id=vimana&refresh_token={}&{query}",
                    escape(token)
                );
                self.agent
                    .post(url.clone())
                    .header("Content-Type", "application/x-www-form-urlencoded")
                    .send(form.as_bytes())
            }
            _ => {
                let separator = if url.query().is_some() { '&' } else { '?' };
                let full = format!("{url}{separator}{query}");
                let mut request = self.agent.get(&full);
                if let Some(Credentials::Basic { user, password }) = credentials {
                    request = request.header("Authorization", basic_header(user, password));
                }
                request.call()
            }
        };
        let mut response = result.map_err(|error| self.failed(&url, error))?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            return Err(RegistryError::Status {
                host: host(&url),
                what: "a token".to_owned(),
                status: status.as_u16(),
                message: String::new(),
            });
        }
        if status != StatusCode::OK {
            let known = if credentials.is_some() { "the credentials found" } else { "nobody's credentials" };
            return Err(failed(format!("it answers {} to {known}", status.as_u16())));
        }
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut text = Vec::new();
        let body = response.body_mut().as_reader().take(MOST_TOKEN_BYTES);
        { body }.read_to_end(&mut text).map_err(|error| failed(error.to_string()))?;
        let answer: Answer =
            serde_json::from_slice(&text).map_err(|_| failed("its answer isn't understood".to_owned()))?;
        let token = answer.token.or(answer.access_token).unwrap_or_default();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(failed("its answer holds no usable token".to_owned()));
        }
        Ok(token)
    }
}

fn basic_header(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
