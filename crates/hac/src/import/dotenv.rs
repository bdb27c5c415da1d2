//! Files of variables: one `NAME=VALUE` to a line, as compose reads them.

/// A line that is no `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} isn't NAME=VALUE: {text:?}")]
pub struct InvalidLine {
    /// The line, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

/// Reads the variables of a file in its order; a name alone has no value.
///
/// Empty lines and those that start with `#` are skipped, and `export ` before a name. A value in single quotes is taken as
/// it is; in double quotes `\n`, `\t`, `\r`, `\"`, `\\` and `\$` are escapes. Otherwise it ends at a ` #`. A value in quotes
/// ends on its line.
///
/// # Errors
/// The first line that isn't one.
pub fn dotenv(text: &str) -> Result<Vec<(String, Option<String>)>, InvalidLine> {
    let mut variables = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let wrong = || InvalidLine { line: index + 1, text: trimmed.chars().take(80).collect() };
        let assignment = trimmed.strip_prefix("export ").unwrap_or(trimmed).trim_start();
        let (name, value) = match assignment.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start()).ok_or_else(wrong)?)),
            None => (assignment, None),
        };
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong());
        }
        if value.as_deref().is_some_and(|value| value.contains('\0')) {
            return Err(wrong());
        }
        variables.push((name.to_owned(), value));
    }
    Ok(variables)
}

/// Takes the quotes off a value; `None` if they aren't closed, or something other than a comment comes after them.
fn unquoted(value: &str) -> Option<String> {
    let only_comment = |rest: &str| rest.trim_start().is_empty() || rest.trim_start().starts_with('#');
    if let Some(rest) = value.strip_prefix('\'') {
        let (value, after) = rest.split_once('\'')?;
        return only_comment(after).then(|| value.to_owned());
    }
    let Some(rest) = value.strip_prefix('"') else {
        let end = value.find(" #").unwrap_or(value.len());
        return Some(value[..end].trim_end().to_owned());
    };
    let mut out = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => match characters.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                c @ ('"' | '\\' | '$') => out.push(c),
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
    only_comment(characters.as_str()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_compose_reads_them() {
        let text = "# comment\n\nA=1\nexport B = two words # not this\nC='$x # in'\nD=\"a\\nb\" # out\nE=\nF\nG=a#b\n";
        let read = dotenv(text).unwrap();
        let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let expected = [
            ("A", Some("1")),
            ("B", Some("two words")),
            ("C", Some("$x # in")),
            ("D", Some("a\nb")),
            ("E", Some("")),
            ("F", None),
            ("G", Some("a#b")),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for wrong in ["=x", "A='x", "A=\"x", "two words=1", "A='x'y"] {
            assert_eq!(dotenv(&format!("OK=1\n{wrong}\n")).unwrap_err().line, 2, "{wrong}");
        }
    }
}
