//! Ruby's gems: Bundler's lock file, and the names of installed specifications.

use super::{MOST_PACKAGES, Record};

/// `Gemfile.lock`: the gems of each source stand four spaces deep below its `specs:`.
pub(super) fn lock(bytes: &[u8]) -> Vec<Record> {
    let text = String::from_utf8_lossy(bytes);
    let mut of_registry = false;
    let mut gems = Vec::new();
    for line in text.lines() {
        if gems.len() > MOST_PACKAGES {
            break;
        }
        if !line.starts_with(' ') {
            of_registry = line.trim() == "GEM";
        } else if let Some(gem) = line.strip_prefix("    ").filter(|gem| of_registry && !gem.starts_with(' '))
            && let Some((name, version)) = gem.split_once(" (")
        {
            let version = version.trim_end().trim_end_matches(')');
            gems.push(Record::new(name.trim(), without_platform(version)));
        }
    }
    gems
}

/// `.../specifications/NAME-VERSION[-PLATFORM].gemspec`.
pub(super) fn gemspec(path: &[u8]) -> Option<Record> {
    let path = String::from_utf8_lossy(path);
    let file = path.rsplit('/').next()?.strip_suffix(".gemspec")?;
    let digit_behind = |at: &usize| file[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    let dash = file.match_indices('-').map(|(at, _)| at).find(digit_behind)?;
    Some(Record::new(&file[..dash], without_platform(&file[dash + 1..])))
}

/// "1.15.4-x86_64-linux" is 1.15.4.
fn without_platform(version: &str) -> &str {
    version.split('-').next().unwrap_or(version)
}
