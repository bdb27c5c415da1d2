//! A certificate log's promise that a certificate is in it (RFC 6962, sections 3.2 and 3.3).

use sha2::{Digest as _, Sha256};

use super::{KeylessError, TrustedRoot};

/// Checks that a log of the trust root promised to have the certificate. `logged` is its content without the promises,
/// `issuer` the key that has signed it. Where the trust root has no such logs, none is wanted.
pub(super) fn check(
    root: &TrustedRoot,
    timestamps: Option<&[u8]>,
    logged: &[u8],
    issuer: &[u8],
) -> Result<(), KeylessError> {
    if root.certificate_logs.is_empty() {
        return Ok(());
    }
    let missing = |what| KeylessError::Promise { what };
    let list = timestamps.ok_or(missing("it has none"))?;
    let promises = list_of(list).ok_or(missing("its list of them is damaged"))?;
    for promise in promises {
        let Some(promise) = Promise::read(promise) else { continue };
        let seconds = promise.milliseconds / 1000;
        let mut log =
            root.certificate_logs.iter().filter(|log| log.id == promise.log && log.valid.holds(seconds));
        let message = promise.message(logged, issuer);
        if log.any(|log| log.key.verifies(&message, promise.signature)) {
            return Ok(());
        }
    }
    Err(missing("none of them is of a log that the trust root has"))
}

struct Promise<'p> {
    log: &'p [u8],
    milliseconds: u64,
    extensions: &'p [u8],
    signature: &'p [u8],
}

/// Splits off what stands behind a length of two bytes.
fn counted(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn list_of(input: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut list, behind) = counted(input)?;
    let mut found = Vec::new();
    while !list.is_empty() {
        let (one, rest) = counted(list)?;
        found.push(one);
        list = rest;
    }
    behind.is_empty().then_some(found)
}

impl<'p> Promise<'p> {
    /// Reads one of version 1 by ECDSA with SHA-256, the only ones that there are in such logs.
    fn read(input: &'p [u8]) -> Option<Self> {
        let (0, rest) = input.split_first().map(|(version, rest)| (*version, rest))? else { return None };
        let (log, rest) = rest.split_at_checked(32)?;
        let (milliseconds, rest) = rest.split_first_chunk::<8>()?;
        let (extensions, rest) = counted(rest)?;
        let signature = rest.strip_prefix(&[4, 3])?;
        let (signature, behind) = counted(signature)?;
        let milliseconds = u64::from_be_bytes(*milliseconds);
        behind.is_empty().then_some(Self { log, milliseconds, extensions, signature })
    }

    fn message(&self, logged: &[u8], issuer: &[u8]) -> Vec<u8> {
        // v1, certificate_timestamp, the time, precert_entry.
        let mut message = vec![0, 0];
        message.extend_from_slice(&self.milliseconds.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        message.extend_from_slice(&Sha256::digest(issuer));
        let length = u32::try_from(logged.len()).unwrap_or(u32::MAX).to_be_bytes();
        message.extend_from_slice(&length[1..]);
        message.extend_from_slice(logged);
        let length = u16::try_from(self.extensions.len()).unwrap_or(u16::MAX).to_be_bytes();
        message.extend_from_slice(&length);
        message.extend_from_slice(self.extensions);
        message
    }
}

#[cfg(any(test, fuzzing))]
pub(super) fn read_anything(bytes: &[u8]) {
    let promises = list_of(bytes).unwrap_or_else(|| vec![bytes]);
    for promise in promises.into_iter().filter_map(Promise::read) {
        assert!(promise.message(bytes, bytes).len() > bytes.len());
    }
}
