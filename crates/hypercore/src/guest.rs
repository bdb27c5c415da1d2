//! The guest's PID 1, embedded.
//!
//! `build.rs` runs a second cargo for the binary of the crate `spacecore`, for the target `ARCH-unknown-linux-gnu` with
//! `-C target-feature=+crt-static -C relocation-model=static`, with the workspace's profile `guest` and in a target folder
//! of its own, so that it neither waits for the outer build's lock nor takes over its flags and wrappers. A build fails if
//! the result has more than 2 MiB. There is no other way in which the guest is built, and no path at which it is looked up.

/// The static guest binary, an ELF file.
pub static GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/spacecore"));

/// The SHA-256 of [`GUEST`], 64 hexadecimal digits.
pub const DIGEST: &str = env!("GUEST_DIGEST");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_a_static_program_of_at_most_2_mib() {
        assert!(GUEST.starts_with(b"\x7fELF") && GUEST.len() <= 2 << 20);
        let headers = GUEST[64..].chunks(56).take(usize::from(GUEST[56]));
        // Neither an interpreter (3) nor a dynamic section (2).
        assert!(headers.into_iter().all(|header| ![2, 3].contains(&header[0])));
    }

    #[test]
    fn the_digest_is_that_of_the_guest() {
        use sha2::Digest;
        assert_eq!(DIGEST, crate::kernel::hex(&sha2::Sha256::digest(GUEST)));
    }
}
