//! Images that don't hold together: an error, never a panic, a hang or much memory.

use std::fs::File;
use std::io::{Read as _, Write as _};

use image::layer::merge;
use image::layer::reader::{ReadError, Reader};
use proptest::prelude::*;

use crate::archive::{Archive, noise, prose};

fn image(length: usize) -> Vec<u8> {
    let mut archive =
        Archive::default().dir("d").file("d/prose", &prose(2 * length)).file("d/noise", &noise(length, 1));
    for at in 0..300 {
        archive = archive.file(&format!("d/file-{at}"), format!("{at}").as_bytes());
    }
    archive
        .symlink("s", "d/prose")
        .hard_link("h", "d/noise")
        .pax(b'x', &[("SCHILY.xattr.user.a", b"b")])
        .file("x", b"")
        .file(".wh.gone", b"")
        .converted()
        .bytes()
}

/// Reads all that can be read; whether it fails doesn't matter.
fn read_everything(bytes: &[u8]) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    if let Ok(reader) = Reader::open(&file) {
        for entry in reader.entries() {
            let Ok(entry) = entry else { break };
            if let Ok(content) = reader.content(&entry) {
                let _ = std::io::copy(&mut content.take(1 << 20), &mut std::io::sink());
            }
        }
    }
    let mut out = tempfile::tempfile().unwrap();
    let _ = merge(&[file], &mut out, false);
}

#[test]
fn what_is_no_image_is_called_so() {
    let open = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Reader::open(&file).map(|_| ()).unwrap_err()
    };
    for bytes in [&b""[..], b"hsqs", &[0; 4096], &noise(4096, 1)] {
        assert!(matches!(open(bytes), ReadError::Foreign { .. }));
    }
    let whole = image(140_000);
    assert!(matches!(open(&whole[..whole.len() / 2]), ReadError::Damaged { .. }));
    let mut zlib = whole;
    zlib[20] = 1;
    assert!(matches!(open(&zlib), ReadError::Foreign { .. }));
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let folder = File::open("/").unwrap();
    assert!(matches!(Reader::open(&folder), Err(ReadError::Io { .. } | ReadError::Foreign { .. })));
}

#[test]
fn no_single_wrong_byte_in_the_tables_does_harm() {
    let whole = image(1000);
    let tables = u64::from_le_bytes(whole[64..72].try_into().unwrap()) as usize;
    let end = u64::from_le_bytes(whole[40..48].try_into().unwrap()) as usize;
    for at in (0..96).chain((tables..end).step_by(11)) {
        for value in [0xff, whole[at] ^ 1] {
            let mut broken = whole.clone();
            broken[at] = value;
            read_everything(&broken);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_does_harm(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..40),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut broken = image(140_000);
        let tables = u64::from_le_bytes(broken[64..72].try_into().unwrap()) as usize;
        for (at, value) in changes {
            // Mostly in the tables, where it matters.
            let at = tables + at.index(broken.len() - tables);
            broken[at] = value;
        }
        if let Some(cut) = cut {
            broken.truncate(cut.index(broken.len()));
        }
        read_everything(&broken);
    }

    #[test]
    fn no_noise_in_a_tar_does_harm(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..20),
    ) {
        let mut tar = Archive::default()
            .pax(b'x', &[("path", b"long/name"), ("SCHILY.xattr.user.a", b"b")])
            .file("a", b"content")
            .hard_link("b", "long/name")
            .end();
        for (at, value) in changes {
            let at = at.index(tar.len());
            tar[at] = value;
            // The checksum is mended, so that the damage gets through to what it damages.
            let header = at / 512 * 512;
            if tar[header + 257..].starts_with(b"ustar") {
                tar[header + 148..header + 156].fill(b' ');
                let sum: u64 = tar[header..header + 512].iter().map(|byte| u64::from(*byte)).sum();
                tar[header + 148..header + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let mut file = tempfile::tempfile().unwrap();
        let limits = image::layer::Limits { unpacked_bytes: 1 << 24, ..image::layer::Limits::default() };
        let _ = image::layer::convert(tar.as_slice(), &mut file, &limits);
    }
}
