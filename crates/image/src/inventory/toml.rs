//! Lock files in TOML: a `[[package]]` for each, with its name and version. Read line by line, as the tools write them.

use super::{MOST_PACKAGES, Record};

pub(super) fn packages(bytes: &[u8]) -> Vec<Record> {
    let text = String::from_utf8_lossy(bytes);
    let mut packages = Vec::new();
    let mut inside = false;
    let (mut name, mut version) = (None, None);
    for line in text.lines().map(str::trim).chain(["[end]"]) {
        if packages.len() > MOST_PACKAGES {
            break;
        }
        if line.starts_with('[') {
            if let (true, Some(name), Some(version)) = (inside, name, version) {
                packages.push(Record::new(name, version));
            }
            (name, version) = (None, None);
            inside = line == "[[package]]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside) {
            let value = value.trim().strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            match key.trim() {
                "name" => name = value,
                "version" => version = value,
                _ => {}
            }
        }
    }
    packages
}
