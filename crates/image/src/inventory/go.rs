//! Go's modules: `go.sum`, and what the linker writes into programs (`debug/buildinfo`).

use std::io::{self, Read};

use super::format::Unreadable;
use super::{MOST_PACKAGES, Record};

/// The smallest program that Go could have built.
pub(super) const LEAST_BYTES: u64 = 256 << 10;

/// What the linker puts before the information.
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// The header of which [`MAGIC`] is the start.
const HEADER: usize = 32;
/// The flag of a header that its texts stand right behind it, as since Go 1.18.
const INLINE: u8 = 2;
/// What stands before and behind the list of modules.
const SENTINEL: usize = 16;
/// The most marks that are looked at before a program counts as one that only speaks of them.
const MOST_MARKS: usize = 64;
/// The longest list of modules.
const LONGEST: usize = 4 << 20;
const CHUNK: usize = 1 << 20;

/// `go.sum`, leaving out what was looked at only for its own requirements.
pub(super) fn sum(bytes: &[u8]) -> Vec<Record> {
    let text = String::from_utf8_lossy(bytes);
    let mut modules = Vec::new();
    for line in text.lines() {
        if modules.len() > MOST_PACKAGES {
            break;
        }
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next())
            && !version.ends_with("/go.mod")
        {
            modules.push(Record::new(name, version));
        }
    }
    modules
}

/// A program: nothing if Go didn't build it.
pub(super) fn program(mut content: impl Read) -> Result<Vec<Record>, Unreadable> {
    let mut bytes = Vec::new();
    fill(&mut content, &mut bytes, 4)?;
    if bytes != b"\x7fELF" {
        return Ok(Vec::new());
    }
    let finder = memchr::memmem::Finder::new(MAGIC);
    let mut marks = 0;
    loop {
        let read = fill(&mut content, &mut bytes, CHUNK)?;
        if let Some(at) = finder.find(&bytes) {
            bytes.drain(..at);
            fill(&mut content, &mut bytes, LONGEST)?;
            // The name of the mark may stand in a program that reads such marks; the mark itself has proper texts.
            if let Some(modules) = build_info(&bytes)? {
                return Ok(modules);
            }
            marks += 1;
            if marks == MOST_MARKS {
                return Err(Unreadable::Form("a program with marks of Go's that lead to nothing"));
            }
            bytes.drain(..MAGIC.len());
            continue;
        }
        if read == 0 {
            return Ok(Vec::new());
        }
        // The mark may lie across two pieces.
        let kept = bytes.len().saturating_sub(MAGIC.len());
        bytes.drain(..kept);
    }
}

fn fill(content: &mut impl Read, bytes: &mut Vec<u8>, count: usize) -> Result<usize, Unreadable> {
    let read: io::Result<usize> = content.take(count as u64).read_to_end(bytes);
    read.map_err(Unreadable::Io)
}

fn build_info(bytes: &[u8]) -> Result<Option<Vec<Record>>, Unreadable> {
    let Some(flags) = bytes.get(MAGIC.len() + 1) else { return Ok(None) };
    if flags & INLINE == 0 {
        let pointer_size = bytes[MAGIC.len()];
        return match pointer_size {
            4 | 8 => Err(Unreadable::Form("a program that Go before 1.18 built, whose modules aren't read")),
            _ => Ok(None),
        };
    }
    let mut rest = bytes.get(HEADER..).unwrap_or_default();
    let (Some(version), Some(modules)) = (string(&mut rest), string(&mut rest)) else { return Ok(None) };
    let Some(version) = std::str::from_utf8(version).ok().and_then(|text| text.strip_prefix("go")) else {
        return Ok(None);
    };
    // "1.22.1 X:boringcrypto" and "1.22.1-custom" are 1.22.1.
    let version = version.split([' ', '-', '+']).next().unwrap_or_default();
    let mut records = Vec::new();
    if version.starts_with(|c: char| c.is_ascii_digit()) {
        records.push(Record::new("stdlib", version));
    }
    let inner = modules.len().checked_sub(SENTINEL).and_then(|end| modules.get(SENTINEL..end));
    let text = String::from_utf8_lossy(inner.unwrap_or_default());
    for line in text.lines() {
        let mut fields = line.split('\t');
        let (kind, name, version) = (fields.next(), fields.next(), fields.next());
        let (Some(name), Some(version)) = (name, version) else { continue };
        match kind {
            // What is built from its own folder has no version.
            Some("mod" | "dep") if version.starts_with('v') => records.push(Record::new(name, version)),
            Some("mod" | "dep") => records.push(Record::default()),
            // What stands here was built in place of what stands above.
            Some("=>") => {
                records.pop();
                if version.starts_with('v') {
                    records.push(Record::new(name, version));
                }
            }
            _ => {}
        }
    }
    records.retain(|record| !record.name.is_empty());
    Ok(Some(records))
}

/// A text behind its length, which is a varint.
fn string<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let mut length = 0_usize;
    for shift in (0..35).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            let (text, behind) = rest.split_at_checked(length)?;
            *rest = behind;
            return Some(text);
        }
    }
    None
}
