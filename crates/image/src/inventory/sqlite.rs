//! The rows of one table of an SQLite database, read from its bytes (SQLite's "Database File Format").
//!
//! Nothing of SQLite's is needed for that: tables are B-trees of pages, rows are records in their leaves. What the file
//! says of itself is checked, no page is visited twice, and nothing is written.

use std::borrow::Cow;

const DAMAGED: &str = "an SQLite database that doesn't hold together";

/// The deepest tree: SQLite's own limit.
const MOST_DEPTH: usize = 20;
/// The most columns that a row of interest may have.
const MOST_COLUMNS: usize = 64;

/// The fewest bytes that a cell takes.
const LEAST_CELL: usize = 4;

const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

struct Database<'b> {
    bytes: &'b [u8],
    page_size: usize,
    /// Of each page, without what is reserved at its end.
    usable: usize,
    /// How many pages may still be visited.
    left: usize,
}

/// A row's columns.
pub(super) struct Row<'b> {
    payload: Cow<'b, [u8]>,
    /// Type and place of each.
    columns: Vec<(u64, usize)>,
}

impl Row<'_> {
    /// The bytes of a column that is a blob or a text.
    pub(super) fn blob(&self, column: usize) -> Option<Vec<u8>> {
        let (kind, at) = *self.columns.get(column)?;
        if kind < 12 {
            return None;
        }
        let end = at.checked_add(length(kind)?)?;
        self.payload.get(at..end).map(<[u8]>::to_vec)
    }

    /// The value of a column that is a whole number.
    fn integer(&self, column: usize) -> Option<u64> {
        let (kind, at) = *self.columns.get(column)?;
        match kind {
            8 => Some(0),
            9 => Some(1),
            1..=6 => {
                let bytes = self.payload.get(at..at.checked_add(length(kind)?)?)?;
                Some(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
            }
            _ => None,
        }
    }
}

/// Calls `each` with every row of a table.
pub(super) fn rows(
    bytes: &[u8],
    table: &str,
    mut each: impl FnMut(Row<'_>) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    if !bytes.starts_with(b"SQLite format 3\0") || bytes.len() < 100 {
        return Err("it isn't an SQLite database");
    }
    let page_size = match usize::from(bytes[16]) << 8 | usize::from(bytes[17]) {
        1 => 65536,
        size if size.is_power_of_two() && size >= 512 => size,
        _ => return Err(DAMAGED),
    };
    let usable =
        page_size.checked_sub(usize::from(bytes[20])).filter(|usable| *usable >= 480).ok_or(DAMAGED)?;
    let pages = bytes.len() / page_size;
    let mut database = Database { bytes, page_size, usable, left: pages };
    let mut root = None;
    database.walk(1, MOST_DEPTH, &mut |row| {
        if row.blob(0).as_deref() == Some(b"table") && row.blob(1).as_deref() == Some(table.as_bytes()) {
            root = row.integer(3);
        }
        Ok(())
    })?;
    let root = root
        .and_then(|root| usize::try_from(root).ok())
        .ok_or("an SQLite database without the table of packages")?;
    database.left = pages;
    database.walk(root, MOST_DEPTH, &mut each)
}

impl<'b> Database<'b> {
    /// A page by its number, from 1.
    fn page(&mut self, number: usize) -> Result<&'b [u8], &'static str> {
        self.left = self.left.checked_sub(1).ok_or(DAMAGED)?;
        let start =
            number.checked_sub(1).and_then(|before| before.checked_mul(self.page_size)).ok_or(DAMAGED)?;
        let end = start.checked_add(self.usable).ok_or(DAMAGED)?;
        self.bytes.get(start..end).ok_or(DAMAGED)
    }

    fn walk(
        &mut self,
        number: usize,
        depth: usize,
        each: &mut dyn FnMut(Row<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        let depth = depth.checked_sub(1).ok_or(DAMAGED)?;
        let page = self.page(number)?;
        // The file's own header stands at the start of the first page.
        let header = if number == 1 { 100 } else { 0 };
        let kind = *page.get(header).ok_or(DAMAGED)?;
        let cells = usize::from(short(page, header + 3)?);
        let pointers = match kind {
            INTERIOR => header + 12,
            LEAF => header + 8,
            _ => return Err(DAMAGED),
        };
        // Cells lie side by side: a page that claims more than it has room for would have the same bytes read over and over.
        let mut room = self.usable;
        for cell in 0..cells {
            let at = usize::from(short(page, pointers + cell * 2)?);
            if kind == INTERIOR {
                let child = long(page, at)? as usize;
                self.walk(child, depth, each)?;
            } else {
                let (payload, local) = self.payload(page, at)?;
                room = room.checked_sub(local.max(LEAST_CELL)).ok_or(DAMAGED)?;
                each(row(payload)?)?;
            }
        }
        if kind == INTERIOR {
            let last = long(page, header + 8)? as usize;
            self.walk(last, depth, each)?;
        }
        Ok(())
    }

    /// A row's bytes, of which what doesn't fit on its page lies in a chain of others; and how many lie on its own.
    fn payload(&mut self, page: &'b [u8], at: usize) -> Result<(Cow<'b, [u8]>, usize), &'static str> {
        let (total, after) = varint(page, at)?;
        let (_row_id, start) = varint(page, after)?;
        let total = usize::try_from(total).ok().filter(|total| *total <= self.bytes.len()).ok_or(DAMAGED)?;
        let most = self.usable - 35;
        if total <= most {
            let end = start.checked_add(total).ok_or(DAMAGED)?;
            return page.get(start..end).map(|bytes| (Cow::Borrowed(bytes), total)).ok_or(DAMAGED);
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let wanted = least + (total - least) % (self.usable - 4);
        let local = if wanted <= most { wanted } else { least };
        let end = start.checked_add(local).ok_or(DAMAGED)?;
        let mut payload = page.get(start..end).ok_or(DAMAGED)?.to_vec();
        let mut next = long(page, end)? as usize;
        while payload.len() < total {
            let page = self.page(next)?;
            next = long(page, 0)? as usize;
            let rest = page.get(4..).ok_or(DAMAGED)?;
            payload.extend_from_slice(&rest[..rest.len().min(total - payload.len())]);
        }
        Ok((Cow::Owned(payload), local))
    }
}

fn row(payload: Cow<'_, [u8]>) -> Result<Row<'_>, &'static str> {
    let (header, mut at) = varint(&payload, 0)?;
    let header = usize::try_from(header).ok().filter(|header| *header <= payload.len()).ok_or(DAMAGED)?;
    let mut place = header;
    let mut columns = Vec::new();
    while at < header && columns.len() < MOST_COLUMNS {
        let (kind, after) = varint(&payload, at)?;
        columns.push((kind, place));
        place = length(kind).and_then(|length| place.checked_add(length)).ok_or(DAMAGED)?;
        at = after;
    }
    Ok(Row { payload, columns })
}

/// How many bytes a value of a type takes.
fn length(kind: u64) -> Option<usize> {
    match kind {
        0 | 8 | 9 => Some(0),
        1..=4 => usize::try_from(kind).ok(),
        5 => Some(6),
        6 | 7 => Some(8),
        10 | 11 => None,
        long => usize::try_from((long - 12) / 2).ok(),
    }
}

fn short(bytes: &[u8], at: usize) -> Result<u16, &'static str> {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<2>());
    bytes.map(|bytes| u16::from_be_bytes(*bytes)).ok_or(DAMAGED)
}

fn long(bytes: &[u8], at: usize) -> Result<u32, &'static str> {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<4>());
    bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or(DAMAGED)
}

/// A number in 1 to 9 bytes, and what comes behind it.
fn varint(bytes: &[u8], at: usize) -> Result<(u64, usize), &'static str> {
    let mut value = 0_u64;
    for index in 0..9 {
        let place = at.checked_add(index).ok_or(DAMAGED)?;
        let byte = *bytes.get(place).ok_or(DAMAGED)?;
        if index == 8 {
            return Ok((value << 8 | u64::from(byte), place + 1));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok((value, place + 1));
        }
    }
    Err(DAMAGED)
}
