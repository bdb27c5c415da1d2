//! Quantities as compose files and SDLs have them.

use super::reader::{At, Reader};
use crate::units::{Bytes, Duration, MilliCpu, UnitError};

/// Reads a size of a compose file.
pub(super) fn compose_size(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Bytes> {
    let text = reader.text(at)?;
    read(reader, at, &text, parse_compose_size(&text))
}

/// Reads a size as compose has it: `m` and `mb` are 2^20 bytes.
pub(super) fn parse_compose_size(text: &str) -> Result<Bytes, UnitError> {
    let text = text.trim().to_ascii_lowercase();
    let bare = text.strip_suffix("ib").or_else(|| text.strip_suffix('b')).unwrap_or(&text);
    if bare.ends_with(['k', 'm', 'g', 't', 'p']) { format!("{bare}i").parse() } else { bare.parse() }
}

/// Reads a size of an SDL, where the `i` makes the difference.
pub(super) fn size(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Bytes> {
    let text = reader.text(at)?;
    read(reader, at, &text, text.parse())
}

/// Reads a length of time.
pub(super) fn duration(reader: &mut Reader<'_>, at: &At<'_>) -> Option<Duration> {
    let text = reader.text(at)?;
    read(reader, at, &text, text.parse())
}

/// Reads an amount of CPU; what is finer than a thousandth of a core is taken up to the next.
pub(super) fn cpu(reader: &mut Reader<'_>, at: &At<'_>) -> Option<MilliCpu> {
    let text = reader.text(at)?;
    // YAML's numbers may start with their point.
    let text = if text.trim().starts_with('.') { format!("0{}", text.trim()) } else { text };
    let read_as_it_is = text.parse::<MilliCpu>();
    if let (Err(UnitError::TooFine { .. }), Some((whole, fraction))) =
        (&read_as_it_is, text.trim().split_once('.'))
    {
        let thousandths: String = fraction.chars().take(3).collect();
        if let Ok(MilliCpu(below)) = format!("{whole}.{thousandths}").parse() {
            let above = MilliCpu(below.saturating_add(1));
            reader.changed(
                at,
                format!("{} of a core is taken as {above}: thousandths are the smallest step", text.trim()),
                "",
            );
            return Some(above);
        }
    }
    read(reader, at, &text, read_as_it_is)
}

fn read<T>(reader: &mut Reader<'_>, at: &At<'_>, text: &str, result: Result<T, UnitError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            reader.error(at, format!("`{}` can't be read: {error}", at.path), &format!("it is {text:?}"));
            None
        }
    }
}
