//! As much of DER (X.690) as is needed to find things in a certificate that an authority has signed: whether it is one is
//! webpki's to judge, before anything here is believed.

/// One value: its tag, what is in it, and all of it with tag and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value<'d> {
    pub(super) tag: u8,
    pub(super) content: &'d [u8],
    pub(super) whole: &'d [u8],
}

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const UTF8: u8 = 0x0c;
pub(super) const SEQUENCE: u8 = 0x30;

/// Reads the first value of some bytes, and gives what is behind it. Lengths must be definite and as short as they can be; tags
/// of several bytes aren't read.
pub(super) fn first(input: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&short, rest) = rest.split_first()?;
    if tag & 0x1f == 0x1f {
        return None;
    }
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            let length = bytes.iter().fold(0_usize, |length, byte| (length << 8) | usize::from(*byte));
            let shortest = length > 0x7f && bytes.first() != Some(&0);
            shortest.then_some((length, rest))?
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    let whole = input.get(..input.len().checked_sub(rest.len())?)?;
    Some((Value { tag, content, whole }, rest))
}

/// Reads bytes that are one value of this tag, and gives what is in it.
pub(super) fn only(input: &[u8], tag: u8) -> Option<&[u8]> {
    let (value, rest) = first(input)?;
    (value.tag == tag && rest.is_empty()).then_some(value.content)
}

/// Reads bytes that are nothing but values.
pub(super) fn all(input: &[u8]) -> Option<Vec<Value<'_>>> {
    let (mut rest, mut values) = (input, Vec::new());
    while !rest.is_empty() {
        let (value, behind) = first(rest)?;
        values.push(value);
        rest = behind;
    }
    Some(values)
}

/// Writes a value.
pub(super) fn write(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let bytes = content.len().to_be_bytes();
    let length: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    match length.as_slice() {
        [] => out.push(0),
        [short @ 0..=0x7f] => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(0));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_that_could_be_written_otherwise_are_refused() {
        for bytes in
            [&[4, 0x80, 0, 0][..], &[4, 0x81, 1, 0], &[4, 0x82, 0, 200], &[4, 5, 0], &[0x1f, 1, 0], &[4]]
        {
            assert_eq!(first(bytes), None, "{bytes:?}");
        }
        assert_eq!(only(&[4, 1, 7, 0], 4), None, "something is behind it");
        assert_eq!(only(&[4, 1, 7], 5), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(tag in 0_u8..0x1f, content in prop::collection::vec(any::<u8>(), 0..400)) {
            let written = write(tag, &content);
            prop_assert_eq!(only(&written, tag), Some(content.as_slice()));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some((value, rest)) = first(&bytes) {
                prop_assert_eq!(write(value.tag, value.content), value.whole);
                prop_assert_eq!(value.whole.len() + rest.len(), bytes.len());
            }
        }
    }
}
