//! What a kernel image says of itself, and what is inside a compressed one.
//!
//! Specification: `Documentation/arch/x86/boot.rst` in the kernel's sources (the fields `header`, `version`,
//! `kernel_version`, `payload_offset`, `payload_length`), and `Documentation/arch/x86/pvh` for the ELF note by which a
//! virtual machine monitor enters an uncompressed kernel.

use std::io::{self, Cursor, Read, Write};

/// The largest image that is read, compressed or not, in bytes.
pub(super) const IMAGE_MAX: u64 = 512 << 20;
/// The number of Xen's ELF note that gives the 32-bit entry point (`XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_ENTRY: u32 = 18;

/// The release that an image says it is, as in `uname -r`; nothing if it says none.
pub(super) fn release(image: &[u8]) -> Option<String> {
    let text = match setup(image) {
        Some(offset) => image.get(offset..)?,
        None => {
            let mark = b"Linux version ";
            let at = image.windows(mark.len()).position(|window| window == mark)?;
            image.get(at.checked_add(mark.len())?..)?
        }
    };
    let end = text.iter().take(200).position(|byte| matches!(byte, 0 | b' ' | b'\n'))?;
    let release = std::str::from_utf8(text.get(..end)?).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+~".contains(c);
    (release.starts_with(|c: char| c.is_ascii_digit()) && release.chars().all(plain))
        .then(|| release.to_owned())
}

/// Where the release lies in a bzImage.
fn setup(image: &[u8]) -> Option<usize> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    usize::from(u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?)).checked_add(0x200)
}

/// The ELF image inside a bzImage, if it is packed in a way that is known here and can be entered without its unpacker.
pub(super) fn uncompressed(image: &[u8]) -> Option<Vec<u8>> {
    setup(image)?;
    let word =
        |at: usize| u32::from_le_bytes(image.get(at..at.checked_add(4)?)?.try_into().ok()?).try_into().ok();
    let sectors = usize::from(*image.get(0x1f1)?).checked_add(1)?;
    let (offset, length): (usize, usize) = (word(0x248)?, word(0x24c)?);
    let begin = sectors.checked_mul(512)?.checked_add(offset)?;
    let payload = image.get(begin..begin.checked_add(length)?)?;
    let unpacked = unpack(payload).ok()??;
    enterable(&unpacked).then_some(unpacked)
}

/// Unpacks what lies in a bzImage: the packed stream, then its unpacked size in 4 bytes.
fn unpack(payload: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let Some((stream, _size)) = payload.split_last_chunk::<4>() else {
        return Ok(None);
    };
    Ok(Some(match stream {
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => lz4_legacy(blocks)?,
        [0x1f, 0x8b, ..] => bounded(flate2::read::GzDecoder::new(stream))?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => bounded(zstd::Decoder::new(stream)?.single_frame())?,
        [0xfd, b'7', b'z', b'X', b'Z', ..] => xz(stream, IMAGE_MAX)?,
        _ => return Ok(None),
    }))
}

/// LZ4's legacy frames: blocks of at most 8 MiB unpacked, each after its packed length.
fn lz4_legacy(mut blocks: &[u8]) -> io::Result<Vec<u8>> {
    const BLOCK: usize = 8 << 20;
    let mut unpacked = Vec::new();
    let mut buffer = vec![0; BLOCK];
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some(block) = rest.get(..length) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let count = lz4_flex::block::decompress_into(block, &mut buffer).map_err(io::Error::other)?;
        unpacked.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if unpacked.len() as u64 > IMAGE_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        blocks = rest.get(length..).unwrap_or_default();
    }
    Ok(unpacked)
}

fn bounded(stream: impl Read) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    stream.take(IMAGE_MAX.saturating_add(1)).read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > IMAGE_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(unpacked)
}

/// Unpacks an xz stream of at most `most` bytes.
pub(super) fn xz(stream: &[u8], most: u64) -> io::Result<Vec<u8>> {
    let mut limited = Limited { inner: Vec::new(), left: most };
    xz_into(&mut Cursor::new(stream), &mut limited)?;
    Ok(limited.inner)
}

/// Unpacks an xz stream from one file into another.
pub(super) fn xz_into(from: &mut impl io::BufRead, into: &mut impl Write) -> io::Result<()> {
    lzma_rs::xz_decompress(from, into).map_err(|error| match error {
        lzma_rs::error::Error::IoError(error) => error,
        error => io::Error::other(format!("not a good xz stream: {error:?}")),
    })
}

/// Refuses to take more than it was told.
pub(super) struct Limited<W> {
    pub(super) inner: W,
    pub(super) left: u64,
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.inner.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Whether this is a 64-bit ELF image with the note that says where a virtual machine monitor enters it.
fn enterable(image: &[u8]) -> bool {
    notes(image).is_some_and(|found| found)
}

fn notes(image: &[u8]) -> Option<bool> {
    if image.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let number = |at: usize, width: usize| -> Option<usize> {
        let bytes = image.get(at..at.checked_add(width)?)?;
        let value =
            bytes.iter().rev().try_fold(0_u64, |sum, byte| sum.checked_mul(256)?.checked_add((*byte).into()));
        usize::try_from(value?).ok()
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let header = table.checked_add(index.checked_mul(size)?)?;
        if number(header, 4)? != 4 {
            continue;
        }
        let (begin, length) = (number(header.checked_add(8)?, 8)?, number(header.checked_add(32)?, 8)?);
        let mut at = begin;
        let end = begin.checked_add(length)?;
        while at < end {
            let (name, content) = (number(at, 4)?, number(at.checked_add(4)?, 4)?);
            let kind = number(at.checked_add(8)?, 4)?;
            let text = at.checked_add(12)?;
            if kind == PVH_ENTRY as usize && image.get(text..text.checked_add(4)?)? == b"Xen\0" {
                return Some(true);
            }
            let padded = |length: usize| length.checked_next_multiple_of(4);
            at = text.checked_add(padded(name)?)?.checked_add(padded(content)?)?;
        }
    }
    Some(false)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A 64-bit ELF image that has nothing but one note segment.
    pub(crate) fn an_elf(note: u32) -> Vec<u8> {
        let mut image = vec![0_u8; 64];
        image[..6].copy_from_slice(b"\x7fELF\x02\x01");
        image[32] = 64;
        image[54] = 56;
        image[56] = 1;
        let mut header = vec![0_u8; 56];
        header[0] = 4;
        header[8] = 120;
        header[32] = 24;
        image.extend(header);
        image.extend([4_u32, 8, note].iter().flat_map(|word| word.to_le_bytes()));
        image.extend(b"Xen\0");
        image.extend([0; 8]);
        image.extend(b"Linux version 6.1.0-1-test (somebody) #1");
        image
    }

    /// A bzImage with this payload.
    pub(crate) fn a_bzimage(stream: &[u8], size: usize) -> Vec<u8> {
        let mut image = vec![0_u8; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        let release = b"6.1.0-1-test (somebody) #1\0";
        image[0x300..0x300 + release.len()].copy_from_slice(release);
        image[0x24c..0x250].copy_from_slice(&(stream.len() as u32 + 4).to_le_bytes());
        image.extend(stream);
        image.extend((size as u32).to_le_bytes());
        image
    }

    #[test]
    fn a_release_is_read_from_both_kinds_of_image() {
        assert_eq!(release(&an_elf(18)).unwrap(), "6.1.0-1-test");
        assert_eq!(release(&a_bzimage(b"", 0)).unwrap(), "6.1.0-1-test");
        assert_eq!(release(b"Linux version ../../etc \0"), None);
        assert_eq!(release(b"nothing"), None);
    }

    #[test]
    fn the_image_inside_is_found_however_it_is_packed() {
        let elf = an_elf(18);
        let block = lz4_flex::block::compress(&elf);
        let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
        lz4.extend((block.len() as u32).to_le_bytes());
        lz4.extend(block);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&elf).unwrap();
        let zstd = zstd::encode_all(&elf[..], 1).unwrap();
        let mut xz = Vec::new();
        lzma_rs::xz_compress(&mut &elf[..], &mut xz).unwrap();
        for (kind, stream) in [("lz4", lz4), ("gzip", gzip.finish().unwrap()), ("zstd", zstd), ("xz", xz)] {
            assert_eq!(uncompressed(&a_bzimage(&stream, elf.len())).as_ref(), Some(&elf), "{kind}");
        }
    }

    #[test]
    fn an_image_that_can_t_be_entered_stays_as_it_is() {
        let elf = an_elf(17);
        let stream = zstd::encode_all(&elf[..], 1).unwrap();
        assert_eq!(uncompressed(&a_bzimage(&stream, elf.len())), None);
        assert_eq!(uncompressed(&a_bzimage(b"BZh9what", 0)), None);
    }

    proptest! {
        #[test]
        fn a_damaged_image_never_panics(mut image in Just(a_bzimage(&zstd::encode_all(&an_elf(18)[..], 1).unwrap(), 200)),
            places in proptest::collection::vec((0_usize..1200, any::<u8>()), 1..20), length in 0_usize..1400) {
            for (place, byte) in places {
                if let Some(slot) = image.get_mut(place) { *slot = byte; }
            }
            image.truncate(length);
            let _ = (release(&image), uncompressed(&image), enterable(&image));
        }

        #[test]
        fn a_damaged_elf_never_panics(mut image in Just(an_elf(18)),
            places in proptest::collection::vec((0_usize..170, any::<u8>()), 1..20)) {
            for (place, byte) in places {
                if let Some(slot) = image.get_mut(place) { *slot = byte; }
            }
            let _ = (release(&image), enterable(&image));
        }
    }
}
