//! Keeps a guest's TCP windows as small as its rate needs (RFC 9293, section 3.8.6; RFC 7323, section 2).
//!
//! `passt` sends towards a guest as much as its window allows, at once, and waits for seconds when some of it is lost. Held to
//! a rate behind it, frames pile up until some are lost. A window of what passes in a tenth of a second never lets it come
//! to that, as a router's shaping of acknowledgements does.

use std::collections::HashMap;
use std::net::IpAddr;

use super::packet::{self, ETHERNET};

/// The least window, in bytes: a few segments.
const LEAST: u32 = 128 * 1024;
const MOST: u32 = 1024 * 1024;
/// The most connections whose scales are known.
const REMEMBERED: usize = 4096;
const SYN: u8 = 0x02;
/// The largest scale (RFC 7323, section 2.3).
const SCALE_MAX: u8 = 14;

/// The windows of one guest.
#[derive(Debug)]
pub(super) struct Windows {
    most: u32,
    /// By the other's address and port, and the guest's port.
    scales: HashMap<(IpAddr, u16, u16), u8>,
}

impl Windows {
    pub(super) fn new(bits_per_second: u64) -> Self {
        let tenth = bits_per_second / 80;
        Self { most: u32::try_from(tenth).unwrap_or(MOST).clamp(LEAST, MOST), scales: HashMap::new() }
    }

    /// Makes the window in a segment of the guest's smaller, if it is larger than need be.
    pub(super) fn shrink(&mut self, frame: &mut [u8]) {
        let _ = self.try_shrink(frame);
    }

    fn try_shrink(&mut self, frame: &mut [u8]) -> Option<()> {
        let (connection, header) = packet::tcp(frame)?;
        let at = ETHERNET.checked_add(header)?;
        let flags = *frame.get(at.checked_add(13)?)?;
        if flags & SYN != 0 {
            if self.scales.len() >= REMEMBERED && !self.scales.contains_key(&connection) {
                // Windows of unknown scale stay as they are.
                self.scales.clear();
            }
            self.scales.insert(connection, scale(frame.get(at..)?).unwrap_or(0).min(SCALE_MAX));
            // A window in a SYN is never scaled: it is small enough.
            return None;
        }
        let scale = *self.scales.get(&connection)?;
        let place = at.checked_add(14)?..at.checked_add(16)?;
        let window = u16::from_be_bytes(frame.get(place.clone())?.try_into().ok()?);
        let most = u16::try_from(self.most >> scale).unwrap_or(u16::MAX).max(1);
        if window > most {
            frame.get_mut(place)?.copy_from_slice(&most.to_be_bytes());
            let sum = at.checked_add(16)?..at.checked_add(18)?;
            let old = u16::from_be_bytes(frame.get(sum.clone())?.try_into().ok()?);
            frame.get_mut(sum)?.copy_from_slice(&replaced(old, window, most).to_be_bytes());
        }
        Some(())
    }
}

/// The window scale that a segment offers.
fn scale(segment: &[u8]) -> Option<u8> {
    let length = usize::from(segment.get(12)? >> 4) * 4;
    let mut options = segment.get(20..length)?;
    loop {
        match options {
            [1, rest @ ..] => options = rest,
            [3, 3, scale, ..] => return Some(*scale),
            [2..=255, length @ 2..=255, ..] => options = options.get(usize::from(*length)..)?,
            _ => return None,
        }
    }
}

/// A checksum after one word has become another (RFC 1624).
fn replaced(sum: u16, old: u16, new: u16) -> u16 {
    let wide = u32::from(!sum) + u32::from(!old) + u32::from(new);
    let folded = (wide & 0xffff) + (wide >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passt::packet::checksum;
    use crate::passt::packet::frames::{frame, tcp};
    use proptest::prelude::*;

    const ME: &str = "192.0.2.2";
    const OTHER: &str = "8.8.8.8";

    fn segment(flags: u8, window: u16, options: &[u8]) -> Vec<u8> {
        let mut segment = tcp(4000, 443, flags);
        segment[14..16].copy_from_slice(&window.to_be_bytes());
        segment[12] = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
        segment.extend_from_slice(options);
        let length = u8::try_from(segment.len()).unwrap();
        let sum = checksum(&[&[192, 0, 2, 2, 8, 8, 8, 8, 0, 6, 0, length], &segment]);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        frame(ME.parse().unwrap(), OTHER.parse().unwrap(), 6, &segment)
    }

    fn window(frame: &[u8]) -> u16 {
        u16::from_be_bytes([frame[48], frame[49]])
    }

    fn is_right(frame: &[u8]) -> bool {
        let length = u8::try_from(frame.len() - 34).unwrap();
        checksum(&[&frame[26..34], &[0, 6, 0, length], &frame[34..]]) == 0
    }

    #[test]
    fn a_window_beyond_what_the_rate_needs_is_made_smaller_by_its_scale() {
        let mut windows = Windows::new(16_000_000);
        let mut before = segment(0x10, 60_000, &[]);
        windows.shrink(&mut before);
        assert_eq!(window(&before), 60_000, "its scale isn't known");
        let mut opening = segment(SYN, 64_000, &[2, 4, 5, 0xb4, 1, 3, 3, 7]);
        windows.shrink(&mut opening);
        assert_eq!(window(&opening), 64_000);
        let mut large = segment(0x10, 60_000, &[]);
        windows.shrink(&mut large);
        // 200,000 bytes are a tenth of a second; each step is 128 bytes.
        assert_eq!(window(&large), 1562);
        assert!(is_right(&large));
        let mut small = segment(0x10, 1000, &[]);
        let same = small.clone();
        windows.shrink(&mut small);
        assert_eq!(small, same);
    }

    proptest! {
        #[test]
        fn the_checksum_stays_right(size in 1_u16.., scale in 0_u8..16) {
            let mut windows = Windows::new(1);
            windows.shrink(&mut segment(SYN, 1, &[3, 3, scale, 0]));
            let mut shrunk = segment(0x18, size, &[1, 1, 1, 1]);
            windows.shrink(&mut shrunk);
            prop_assert!(is_right(&shrunk));
            prop_assert!(u32::from(window(&shrunk)) << scale.min(SCALE_MAX) <= LEAST.max(1 << SCALE_MAX));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..90), flags: u8) {
            let mut windows = Windows::new(1);
            windows.shrink(&mut frame(ME.parse().unwrap(), OTHER.parse().unwrap(), 6, &bytes));
            let mut bytes = [&tcp(1, 2, flags)[..12], &[0xf0], &[flags], &bytes[..]].concat();
            bytes.resize(60.max(bytes.len()), 3);
            windows.shrink(&mut frame(ME.parse().unwrap(), OTHER.parse().unwrap(), 6, &bytes));
        }
    }
}
