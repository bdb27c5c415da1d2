//! A tree of values as TOML: tables as `[a.b]`, lists of tables as `[[a.b]]`, everything else in one line.

use serde_json::{Map, Value};

/// Prints the root table.
pub(super) fn print(root: &Map<String, Value>) -> String {
    let mut out = String::new();
    table(root, "", &mut out);
    out
}

fn is_table_like(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(items) => !items.is_empty() && items.iter().all(Value::is_object),
        _ => false,
    }
}

/// Prints a table's own lines, then the tables in it.
fn table(entries: &Map<String, Value>, path: &str, out: &mut String) {
    for (key, value) in entries.iter().filter(|(_, value)| !is_table_like(value)) {
        out.push_str(&format!("{} = {}\n", self::key(key), inline(value)));
    }
    for (key, value) in entries {
        let path = if path.is_empty() { self::key(key) } else { format!("{path}.{}", self::key(key)) };
        match value {
            Value::Object(inner) => {
                let only_tables = !inner.is_empty() && inner.values().all(is_table_like);
                if !only_tables {
                    header(&format!("[{path}]"), out);
                }
                table(inner, &path, out);
            }
            Value::Array(items) if is_table_like(value) => {
                for inner in items.iter().filter_map(Value::as_object) {
                    header(&format!("[[{path}]]"), out);
                    table(inner, &path, out);
                }
            }
            _ => {}
        }
    }
}

fn header(text: &str, out: &mut String) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(text);
    out.push('\n');
}

fn key(text: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !text.is_empty() && text.bytes().all(bare) { text.to_owned() } else { string(text) }
}

fn inline(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => string(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|(name, value)| format!("{} = {}", key(name), inline(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

/// Quotes a basic string.
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
