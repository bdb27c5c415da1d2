//! A tree of values as YAML in block style. Strings stand without quotes only where they can't be taken for anything
//! else, by this or any other reader.

use serde_json::{Map, Value};

/// Prints the root table.
pub(super) fn print(root: &Map<String, Value>) -> String {
    let mut out = String::new();
    table(root, 0, &mut out);
    out
}

/// Prints the entries of a table, each starting with `indent` blanks.
fn table(entries: &Map<String, Value>, indent: usize, out: &mut String) {
    for (key, value) in entries {
        out.push_str(&format!("{:indent$}{}:", "", scalar(key)));
        below(value, indent, out);
    }
}

/// Prints what comes after `key:`.
fn below(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            out.push('\n');
            table(entries, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            for item in items {
                list_item(item, indent + 2, out);
            }
        }
        _ => out.push_str(&format!(" {}\n", inline(value))),
    }
}

fn list_item(item: &Value, indent: usize, out: &mut String) {
    match item {
        Value::Object(entries) if !entries.is_empty() => {
            let mut inner = String::new();
            table(entries, indent + 2, &mut inner);
            // The dash takes the place of the first entry's indentation.
            out.push_str(&format!("{:indent$}- {}", "", inner.trim_start_matches(' ')));
        }
        _ => out.push_str(&format!("{:indent$}- {}\n", "", inline(item))),
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => scalar(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{}: {}", scalar(key), inline(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// Words that some version of YAML takes for something else than a string.
const NOT_STRINGS: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf"];

/// Writes a string, in quotes unless it is a plain word.
fn scalar(text: &str) -> String {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '.');
    let reserved = NOT_STRINGS.iter().any(|word| word.eq_ignore_ascii_case(text));
    if starts && text.chars().all(plain) && !reserved { text.to_owned() } else { quoted(text) }
}

/// Writes a double-quoted string; everything that isn't printable is escaped.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{2028}' | '\u{2029}' | '\u{feff}' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            '\u{fffe}' | '\u{ffff}' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
