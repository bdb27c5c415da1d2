//! Heads of tar entries as bytes. Sources: POSIX.1-2024 `pax`, the GNU tar manual's "Tar Internals".

use super::{Entry, Kind, PERMISSIONS, Time};

/// Everything in a tar archive is a multiple of so many bytes.
pub(super) const RECORD: usize = 512;

/// A head of its parts; `None` where a number doesn't fit.
fn head(name: &[u8], mode: u32, size: u64, seconds: u64, flag: u8, link: &[u8]) -> [u8; RECORD] {
    let mut head = [0; RECORD];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", size.min(LARGEST)).as_bytes());
    put(136, format!("{:011o}\0", seconds.min(LARGEST)).as_bytes());
    put(148, b"        ");
    put(156, &[flag]);
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}

/// The largest number of eleven octal digits.
const LARGEST: u64 = 0o777_7777_7777;

/// The head of an entry, with the extended one before it that it may need.
pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let (flag, size, link) = match &entry.kind {
        Kind::File { size } => (b'0', *size, &[][..]),
        Kind::Folder => (b'5', 0, &[][..]),
        Kind::Symlink { target } => (b'2', 0, &target[..]),
        Kind::HardLink { target } => (b'1', 0, &target[..]),
    };
    let mut path = entry.path.clone();
    if entry.kind == Kind::Folder && !path.ends_with(b"/") {
        path.push(b'/');
    }
    let Time { seconds, nanoseconds } = entry.modified;
    let mut records = Vec::new();
    if path.len() > 100 {
        record(&mut records, "path", &path);
    }
    if link.len() > 100 {
        record(&mut records, "linkpath", link);
    }
    if size > LARGEST {
        record(&mut records, "size", size.to_string().as_bytes());
    }
    let plain_seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= LARGEST);
    if nanoseconds != 0 || plain_seconds.is_none() {
        record(&mut records, "mtime", decimal(seconds, nanoseconds).as_bytes());
    }
    let mut bytes = Vec::new();
    if !records.is_empty() {
        let size = records.len() as u64;
        bytes.extend(head(b"././@PaxHeader", 0o644, size, 0, b'x', b""));
        bytes.append(&mut records);
        bytes.resize(bytes.len().next_multiple_of(RECORD), 0);
    }
    bytes.extend(head(&path, entry.mode & PERMISSIONS, size, plain_seconds.unwrap_or(0), flag, link));
    bytes
}

/// A time as a decimal number; the fraction goes towards the past with a negative number, so it is turned around there.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    if seconds < 0 && nanoseconds > 0 {
        return format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds);
    }
    format!("{seconds}.{nanoseconds:09}")
}

/// Reads a decimal number of seconds.
pub(super) fn time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let fraction: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    Some(match (is_negative, fraction) {
        (false, nanoseconds) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        (true, fraction) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - fraction },
    })
}

/// Appends one PAX record: its length, which counts itself, a space, `KEY=VALUE`, a line's end.
fn record(to: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    to.extend(format!("{length} {key}=").as_bytes());
    to.extend(value);
    to.push(b'\n');
}

/// The bytes before the first zero.
pub(super) fn terminated(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number of a head: octal digits, or GNU's base 256 when the first bit is set. Negative numbers aren't any here.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    match field {
        [first @ 0x80..=0xbf, rest @ ..] => rest.iter().try_fold(u64::from(first & 0x3f), |value, byte| {
            (value >> 56 == 0).then(|| value << 8 | u64::from(*byte))
        }),
        [0xc0..=0xff, ..] => None,
        _ => {
            let digits = terminated(field).trim_ascii();
            let plain = digits.iter().all(u8::is_ascii_digit);
            match digits {
                [] => Some(0),
                _ if plain => u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok(),
                _ => None,
            }
        }
    }
}

/// Whether the head's sum is right; old programs summed signed characters.
pub(super) fn has_right_sum(head: &[u8; RECORD]) -> bool {
    let bytes =
        || head.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    let noted = number(&head[148..156]).and_then(|sum| i64::try_from(sum).ok());
    noted == Some(unsigned) || noted == Some(signed)
}

/// Hands out the PAX records in these bytes: `LENGTH KEY=VALUE\n`, the length counting the whole record.
///
/// # Errors
/// They are none.
pub(super) fn records<'a>(
    mut bytes: &'a [u8],
    mut each: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    const MALFORMED: &str = "an extended head is malformed";
    while bytes.iter().any(|byte| *byte != 0) {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ').ok_or(MALFORMED)?;
        let length = std::str::from_utf8(&bytes[..space]).ok().and_then(|digits| digits.parse().ok());
        let (record, rest) = bytes.split_at_checked(length.ok_or(MALFORMED)?).ok_or(MALFORMED)?;
        bytes = rest;
        let record =
            record.get(space + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or(MALFORMED)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
        each(&record[..equals], &record[equals + 1..])?;
    }
    Ok(())
}
