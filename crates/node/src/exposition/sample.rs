//! One line with a number.

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: String,
}

/// Whether this can be a metric's name.
pub(super) fn is_name(name: &str) -> bool {
    let is_begin = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    name.bytes().next().is_some_and(is_begin)
        && name.bytes().all(|byte| is_begin(byte) || byte.is_ascii_digit())
}

/// Reads a line; says what is wrong with it.
pub(super) fn read(line: &str) -> Result<Line, &'static str> {
    let end = line.find(['{', ' ', '\t']).ok_or("has no value")?;
    let (name, rest) = line.split_at(end);
    if !is_name(name) {
        return Err("begins with what can't be a metric's name");
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => read_labels(rest)?,
        None => (Vec::new(), rest),
    };
    // What follows is an exemplar.
    let rest = rest.split_once(" #").map_or(rest, |(numbers, _)| numbers);
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let value = words.next().and_then(number).ok_or("has no number as its value")?;
    // A time: thousandths of a second, or in OpenMetrics seconds with a fraction.
    if words.next().is_some_and(|time| number(time).is_none()) || words.next().is_some() {
        return Err("has more behind its value than a time");
    }
    Ok(Line { name: name.to_owned(), labels, value })
}

/// A number as both forms write it.
fn number(word: &str) -> Option<String> {
    let parsed: f64 = word.parse().ok()?;
    Some(match parsed {
        _ if parsed.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ if word.len() <= 32 => word.to_owned(),
        _ => format!("{parsed:e}"),
    })
}

type Labels = Vec<(String, String)>;

/// Reads labels behind the brace that opens them; gives what follows the one that closes them.
fn read_labels(mut rest: &str) -> Result<(Labels, &str), &'static str> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Ok((labels, behind));
        }
        let (name, behind) = rest.split_once('=').ok_or("has labels without an end")?;
        let name = name.trim_end_matches([' ', '\t']);
        if !is_name(name) || name.contains(':') {
            return Err("has a label whose name can't be one");
        }
        let value = behind.trim_start_matches([' ', '\t']).strip_prefix('"');
        let (value, behind) = quoted(value.ok_or("has a label whose value isn't in quotes")?)?;
        if labels.iter().any(|(known, _)| known == name) {
            return Err("has a label twice");
        }
        labels.push((name.to_owned(), value));
        rest = behind.trim_start_matches([' ', '\t']);
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind,
            None if rest.starts_with('}') => {}
            None => return Err("has something other than a comma behind a label"),
        }
    }
}

/// Reads a value behind the quote that opens it; gives what follows the one that closes it.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => match letters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, letter @ ('\\' | '"'))) => value.push(letter),
                _ => return Err("has a backslash before what needs none"),
            },
            letter => value.push(letter),
        }
    }
    Err("has a quote that nothing closes")
}
