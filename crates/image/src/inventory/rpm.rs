//! RPM's databases: packages' headers in a table of SQLite, or in RPM's own file (`lib/backend/ndb` in RPM's sources).

use super::{Record, sqlite};

/// Headers of installed packages don't grow beyond that (RPM's own limit).
/// What is read of a name or version, in bytes: more than a proper one has.
const LONGEST_TEXT: usize = 4096;
const LONGEST_HEADER: usize = 256 << 20;
const MOST_ENTRIES: usize = 65_536;

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCH: u32 = 1022;

const STRING: u32 = 6;
const INT32: u32 = 4;

const DAMAGED_HEADER: &str = "an RPM database that holds a header which doesn't hold together";

/// `rpmdb.sqlite`.
pub(super) fn sqlite(bytes: &[u8]) -> Result<Vec<Record>, &'static str> {
    let mut records = Vec::new();
    sqlite::rows(bytes, "Packages", |row| {
        let blob = row.blob(1).ok_or("an RPM database whose packages have no headers")?;
        records.extend(header(&blob)?);
        Ok(())
    })?;
    Ok(records)
}

/// `Packages.db`: pages of slots, each of which says where a package's header lies.
pub(super) fn ndb(bytes: &[u8]) -> Result<Vec<Record>, &'static str> {
    const PAGE: usize = 4096;
    const BLOCK: usize = 16;
    const DAMAGED: &str = "an RPM database (ndb) that doesn't hold together";
    let word = |at: usize| -> Option<u32> {
        let bytes = bytes.get(at..at.checked_add(4)?)?;
        bytes.try_into().ok().map(u32::from_le_bytes)
    };
    if bytes.get(..4) != Some(b"RpmP") {
        return Err("it isn't an RPM database (ndb)");
    }
    let pages = word(12).ok_or(DAMAGED)? as usize;
    let end = pages.checked_mul(PAGE).filter(|end| *end <= bytes.len()).ok_or(DAMAGED)?;
    let mut records = Vec::new();
    let mut taken = 0_usize;
    // The first two slots are the file's own header.
    for at in (2 * BLOCK..end).step_by(BLOCK) {
        if word(at) != Some(u32::from_le_bytes(*b"Slot")) {
            return Err(DAMAGED);
        }
        let (Some(package), Some(block)) = (word(at + 4), word(at + 8)) else { return Err(DAMAGED) };
        if package == 0 {
            continue;
        }
        let start = (block as usize).checked_mul(BLOCK).ok_or(DAMAGED)?;
        let is_blob = word(start) == Some(u32::from_le_bytes(*b"BlbS"))
            && start.checked_add(4).and_then(word) == Some(package);
        let length = start.checked_add(12).and_then(word).filter(|_| is_blob).ok_or(DAMAGED)? as usize;
        // Slots may all lead to the same place: no more is read than there is.
        taken = taken.saturating_add(length);
        if taken > bytes.len() {
            return Err(DAMAGED);
        }
        let from = start.checked_add(BLOCK).ok_or(DAMAGED)?;
        let blob = from.checked_add(length).and_then(|to| bytes.get(from..to)).ok_or(DAMAGED)?;
        records.extend(header(blob)?);
    }
    Ok(records)
}

/// A package's header: counts, an index of tags, the data (`rpm-header(7)`, without the magic). Nothing for keys, which RPM
/// keeps as packages.
fn header(blob: &[u8]) -> Result<Option<Record>, &'static str> {
    let word = |at: usize| -> Option<u32> {
        let bytes = blob.get(at..at.checked_add(4)?)?;
        bytes.try_into().ok().map(u32::from_be_bytes)
    };
    let (Some(entries), Some(length)) = (word(0), word(4)) else { return Err(DAMAGED_HEADER) };
    let (entries, length) = (entries as usize, length as usize);
    if entries > MOST_ENTRIES || length > LONGEST_HEADER {
        return Err(DAMAGED_HEADER);
    }
    let data = blob.get(8 + entries * 16..).and_then(|data| data.get(..length)).ok_or(DAMAGED_HEADER)?;
    let find = |wanted: u32, kind: u32| -> Option<&[u8]> {
        let entry = (0..entries).map(|entry| 8 + entry * 16).find(|at| word(*at) == Some(wanted))?;
        let offset = word(entry + 8).filter(|_| word(entry + 4) == Some(kind))?;
        data.get(offset as usize..)
    };
    let text = |wanted: u32| {
        let bytes = find(wanted, STRING)?;
        let bytes = bytes.get(..LONGEST_TEXT).unwrap_or(bytes).split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let (Some(name), Some(version), Some(release)) = (text(NAME), text(VERSION), text(RELEASE)) else {
        return Err(DAMAGED_HEADER);
    };
    if name == "gpg-pubkey" {
        return Ok(None);
    }
    let epoch =
        find(EPOCH, INT32).and_then(|bytes| bytes.first_chunk::<4>()).map(|bytes| u32::from_be_bytes(*bytes));
    let mut record = match epoch {
        Some(epoch) if epoch > 0 => Record::new(name, format!("{epoch}:{version}-{release}")),
        _ => Record::new(name, format!("{version}-{release}")),
    };
    record.arch = text(ARCH);
    Ok(Some(record))
}
