//! What the fuzz target of this crate does with any bytes; a test does the same with real requests that were changed.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::folder::{Folder, Reply};

/// A folder of its own, which goes with it.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Requests of a guest's kernel, one behind the other, each as long as its first four bytes say.
pub fn folder(bytes: &[u8]) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let outer = Place(std::env::temp_dir().join(format!("vimana-fuzz-{}-{number}", std::process::id())));
    let shared = outer.0.join("shared");
    let made = fs::create_dir_all(&shared).and_then(|()| fs::write(shared.join("a"), "content"));
    let Some(mut folder) = made.ok().and_then(|()| Folder::open(&shared, false).ok()) else { return };
    let (mut rest, mut reply) = (bytes, Vec::new());
    for _ in 0..64 {
        let Some(length) = rest.first_chunk::<4>() else { break };
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        let (request, behind) = rest.split_at(length.clamp(1, rest.len()));
        match folder.answer(request, &mut reply) {
            Ok(Reply::Send) => {
                let stated = reply.first_chunk::<4>().map(|length| u32::from_ne_bytes(*length) as usize);
                assert_eq!(stated, Some(reply.len()), "a reply says its own length");
            }
            Ok(_) => assert!(reply.is_empty()),
            Err(violation) => {
                assert!(!violation.to_string().is_empty());
                break;
            }
        }
        rest = behind;
    }
    let beside = fs::read_dir(&outer.0).map(Iterator::count);
    assert_eq!(beside.ok(), Some(1), "nothing comes to lie beside the folder");
}

#[cfg(test)]
mod tests;
