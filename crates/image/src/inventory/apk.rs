//! apk's database of what is installed (`apk-package(5)`, "installed database").

use super::{MOST_PACKAGES, Record};

pub(super) fn parse(bytes: &[u8]) -> Vec<Record> {
    let text = String::from_utf8_lossy(bytes);
    let mut packages = Vec::new();
    let (mut name, mut version, mut arch, mut origin) = (None, None, None, None);
    // The end closes the last one too.
    for line in text.lines().chain([""]) {
        if packages.len() > MOST_PACKAGES {
            break;
        }
        match line.split_once(':') {
            Some(("P", value)) => name = Some(value),
            Some(("V", value)) => version = Some(value),
            Some(("A", value)) => arch = Some(value),
            Some(("o", value)) => origin = Some(value),
            None if line.trim().is_empty() => {
                if let (Some(name), Some(version)) = (name, version) {
                    let mut record = Record::new(name, version);
                    record.arch = arch.map(str::to_owned);
                    record.source = origin.map(|origin: &str| (origin.to_owned(), version.to_owned()));
                    packages.push(record);
                }
                (name, version, arch, origin) = (None, None, None, None);
            }
            _ => {}
        }
    }
    packages
}
