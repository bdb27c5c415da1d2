//! Text from strangers: made fit for a person's terminal, and what it may have meant.

/// Replaces what could move a cursor, forge a line or turn the direction of writing: control characters and the
/// invisible formatting characters of Unicode (general categories Cc and, of Cf, those that order text). At most
/// `most` characters are kept.
pub fn printable(text: &str, most: usize) -> String {
    let mut clean: String =
        text.chars().take(most).map(|c| if is_harmless(c) { c } else { '\u{fffd}' }).collect();
    if text.chars().nth(most).is_some() {
        clean.push('…');
    }
    clean
}

/// Finds the word that was most likely meant; `None` if none is near.
pub fn nearest<'w>(given: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    crate::decode::nearest_word(given, words)
}

fn is_harmless(c: char) -> bool {
    let orders_text = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    !c.is_control() && !orders_text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_would_obey_is_left() {
        assert_eq!(printable("plain ünïcode ✓", 100), "plain ünïcode ✓");
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{202e}d", 100), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(printable("abcdef", 3), "abc…");
    }
}
