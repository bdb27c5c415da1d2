//! One line of a log.

/// The most bytes of output that a line of a log holds.
pub const MAX_TEXT: usize = 16 * 1024;

/// The length of a time, as in `2026-11-28T14:00:00.123456789Z`.
const TIME: usize = 30;

/// Bytes of a line beside its text: time, stream, tag, three spaces and the end.
pub(super) const FRAME: usize = TIME + 6 + 1 + 3 + 1;

const DAY: u64 = 86_400;
const SECOND_NS: u64 = 1_000_000_000;

/// Where a workload printed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One line of a log, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it arrived, in nanoseconds since 1970 (UTC).
    pub unix_ns: u64,
    /// Where it was printed.
    pub stream: Stream,
    /// Whether a line's end followed; otherwise the next text of the stream continues it.
    pub full: bool,
    /// What was printed, without a line's end.
    pub text: &'a [u8],
}

/// Takes a line of a log apart, with or without its end. `None` for what isn't one, as after a power cut.
pub fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (time, rest) = line.split_at_checked(TIME)?;
    let unix_ns = parse_time(time)?;
    let (stream, rest) = match rest.strip_prefix(b" std")?.split_at_checked(4)? {
        (b"out ", rest) => (Stream::Stdout, rest),
        (b"err ", rest) => (Stream::Stderr, rest),
        _ => return None,
    };
    let (full, text) = match rest.split_at_checked(2)? {
        (b"F ", text) => (true, text),
        (b"P ", text) => (false, text),
        _ => return None,
    };
    (!text.contains(&b'\n')).then_some(Line { unix_ns, stream, full, text })
}

/// Appends a line whose text is in two pieces. `time` comes from [`time`].
pub(super) fn push(out: &mut Vec<u8>, time: &str, stream: Stream, full: bool, text: [&[u8]; 2]) {
    out.extend_from_slice(time.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(if full { b" F " } else { b" P " });
    text.iter().for_each(|piece| out.extend_from_slice(piece));
    out.push(b'\n');
}

/// A time as a line has it, from nanoseconds since 1970: `2026-11-28T14:00:00.123456789Z`.
pub fn time(unix_ns: u64) -> String {
    let (seconds, ns) = (unix_ns / SECOND_NS, unix_ns % SECOND_NS);
    let (year, month, day) = date(seconds / DAY);
    let rest = seconds % DAY;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ns:09}Z")
}

/// Days since 1970 as year, month and day. The Gregorian calendar repeats itself every 400 years, 146097 days.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from the 1st of March of the year 0, so that a leap day is a year's last.
    let days = days.saturating_add(719_468);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, of_month)
}

/// The inverse of [`date`]; `None` before 1970.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)
}

fn parse_time(time: &[u8]) -> Option<u64> {
    let form = b"dddd-dd-ddTdd:dd:dd.dddddddddZ";
    let fits = |(is, wanted): (&u8, &u8)| if *wanted == b'd' { is.is_ascii_digit() } else { is == wanted };
    if time.len() != form.len() || !time.iter().zip(form).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| {
        time[from..to].iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'))
    };
    let (month, day) = (number(5, 7), number(8, 10));
    let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days(number(0, 4), month, day)? * DAY + hour * 3600 + minute * 60 + second;
    seconds.checked_mul(SECOND_NS)?.checked_add(number(20, 29))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(time(951_782_399_000_000_001), "2000-02-28T23:59:59.000000001Z");
        assert_eq!(time(1_709_164_800_999_999_999), "2024-02-29T00:00:00.999999999Z");
        assert_eq!(parse_time(b"2000-03-01T00:00:00.000000000Z"), Some(951_868_800_000_000_000));
        for wrong in [
            "2000-13-01T00:00:00.000000000Z",
            "2000-03-01 00:00:00.000000000Z",
            "1969-01-01T00:00:00.000000000Z",
        ] {
            assert_eq!(parse_time(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn what_was_torn_is_no_line() {
        let whole = b"2026-11-28T14:00:00.123456789Z stdout F text\n";
        let line = parse_line(whole).unwrap();
        assert_eq!((line.stream, line.full, line.text), (Stream::Stdout, true, &b"text"[..]));
        for end in 0..b"2026-11-28T14:00:00.123456789Z stdout F ".len() {
            assert_eq!(parse_line(&whole[..end]), None, "{end}");
        }
        assert_eq!(parse_line(b"2026-11-28T14:00:00.123456789Z stdin F text"), None);
        assert_eq!(parse_line(b"2026-11-28T14:00:00.123456789Z stdout X text"), None);
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_it_was_written(
            unix_ns in any::<u64>(),
            full in any::<bool>(),
            err in any::<bool>(),
            mut text in proptest::collection::vec(any::<u8>(), 0..100),
            cut in any::<proptest::sample::Index>(),
        ) {
            text.retain(|byte| *byte != b'\n');
            let stream = if err { Stream::Stderr } else { Stream::Stdout };
            let mut stored = Vec::new();
            let (first, second) = text.split_at(cut.index(text.len() + 1));
            push(&mut stored, &time(unix_ns), stream, full, [first, second]);
            prop_assert_eq!(stored.len(), FRAME + text.len());
            prop_assert_eq!(parse_line(&stored), Some(Line { unix_ns, stream, full, text: &text }));
        }
    }
}
