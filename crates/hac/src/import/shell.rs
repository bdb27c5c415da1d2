//! A command line in one string, split as a shell splits it: blanks, quotes and backslashes, and nothing else.

use super::reader::{At, Reader};

/// Splits a command line; `None` if a quote isn't closed or a backslash is the last character.
///
/// Follows POSIX 2018, "Quoting" (XCU 2.2); a line's end is a blank like any other.
fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '"' => break,
                        '\\' => match rest.next()? {
                            '\n' => {}
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match rest.next()? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// Reads a command line, in one string or as a list.
pub(super) fn command_line(at: &At<'_>, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    if at.is_list() {
        return reader.texts(at);
    }
    let line = reader.text(at)?;
    let words = split(&line);
    if words.is_none() {
        let help = "close the quotes, or write it as a list: [\"program\", \"argument\"]";
        reader.error(
            at,
            format!("`{}` isn't a command line: a quote or a backslash is left open", at.path),
            help,
        );
    }
    words
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_are_those_that_a_shell_would_pass() {
        let cases: [(&str, &[&str]); 7] = [
            ("redis-server --save 60 1", &["redis-server", "--save", "60", "1"]),
            ("sh -c 'echo \"a b\"'", &["sh", "-c", "echo \"a b\""]),
            ("a\"b c\"d ''", &["ab cd", ""]),
            (r#"a\ b "\$x \n""#, &["a b", r"$x \n"]),
            ("a \\\n  b\nc", &["a", "b", "c"]),
            ("  ", &[]),
            ("", &[]),
        ];
        for (line, words) in cases {
            assert_eq!(split(line).unwrap(), words, "{line:?}");
        }
        for open in ["'a", "\"a", "a\\", "\"\\"] {
            assert_eq!(split(open), None, "{open:?}");
        }
    }
}
