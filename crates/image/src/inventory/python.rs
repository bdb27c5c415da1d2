//! Python's installed packages (PEP 376, Core Metadata) and lock files.

use super::{Record, toml};

pub(super) fn metadata(bytes: &[u8]) -> Result<Vec<Record>, &'static str> {
    let text = String::from_utf8_lossy(bytes);
    // The header ends at the first empty line.
    let header = || text.lines().take_while(|line| !line.trim().is_empty());
    let value = |wanted: &str| {
        header().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    match (value("Name"), value("Version")) {
        (Some(name), Some(version)) => Ok(vec![Record::new(normal(&name), version)]),
        _ => Err("it has no name and version in the header that is read"),
    }
}

pub(super) fn lock(bytes: &[u8]) -> Vec<Record> {
    let mut packages = toml::packages(bytes);
    packages.iter_mut().for_each(|package| package.name = normal(&package.name));
    packages
}

/// Writes a name as PEP 503 normalises it.
pub(crate) fn normal(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            other => normal.push(other.to_ascii_lowercase()),
        }
    }
    normal
}
