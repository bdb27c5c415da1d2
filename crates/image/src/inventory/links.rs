//! Links where packages are listed.
//!
//! Files are read where they lie, and links aren't followed. Mostly nothing is lost by that: `/var/lib/rpm` leads to another place that
//! is looked at, `/lib` to `/usr/lib`. Where a link leads elsewhere, what lies there would be missed, and that must be said.

use super::format::Format;

/// Where the databases of distributions lie, less the files' own names.
const DATABASES: [&str; 7] = [
    "var/lib/dpkg/status",
    "var/lib/dpkg/status.d",
    "lib/apk/db",
    "usr/lib/apk/db",
    "var/lib/rpm",
    "usr/lib/sysimage/rpm",
    "usr/share/rpm",
];

/// Tells what is missed because of a link, if anything is.
pub(super) fn hidden(path: &[u8], target: &[u8]) -> Option<String> {
    let leads = resolved(path, target);
    // A list that is a link: what it leads to is read by its own name, if that is a list's.
    let listed = Format::of(path, 0, 0);
    let is_missed = listed.is_some() && leads.as_deref().and_then(|leads| Format::of(leads, 0, 0)) != listed;
    // A folder on the way to a database: behind the link there must be another that is looked at.
    let is_on_the_way = |database: &str| match database.as_bytes().strip_prefix(path) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/"),
        None => false,
    };
    let is_elsewhere = |database: &str| {
        let rest = &database.as_bytes()[path.len().min(database.len())..];
        let found = leads.as_ref().map(|leads| [leads, rest].concat());
        !DATABASES.iter().any(|known| found.as_deref() == Some(known.as_bytes()))
    };
    let leads_astray = DATABASES.iter().any(|database| is_on_the_way(database) && is_elsewhere(database));
    (is_missed || leads_astray).then(|| {
        let target: String = String::from_utf8_lossy(target).chars().take(200).collect();
        format!("it is a link to {target}, where no packages are looked for")
    })
}

/// Where a link leads, without looking at what is there; nothing where that is above the root.
fn resolved(path: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = match target.starts_with(b"/") {
        true => Vec::new(),
        false => path.split(|byte| *byte == b'/').collect(),
    };
    parts.pop();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::hidden;

    #[test]
    fn links_that_hide_packages_are_told_from_those_that_don_t() {
        for (path, target, is_hidden) in [
            ("var/lib/rpm", "../../usr/lib/sysimage/rpm", false),
            ("var/lib/rpm", "/usr/lib/sysimage/rpm", false),
            ("var/lib/rpm", "/opt/rpm", true),
            ("lib", "usr/lib", false),
            ("lib", "lib64", true),
            ("usr/lib", "lib64", true),
            ("bin", "usr/bin", false),
            ("var/lib/dpkg/status", "/opt/status", true),
            ("var/lib/dpkg", "/opt/dpkg", true),
            ("var", "../../../..", true),
            ("var/lib/dpkg/info", "/opt/info", false),
            ("app/package-lock.json", "lock/package-lock.json", false),
            ("app/package-lock.json", "lock.txt", true),
            ("app/Cargo.lock", "package-lock.json", true),
            ("srv/x.dist-info/METADATA", "../y.dist-info/METADATA", false),
            ("srv/x.dist-info/METADATA", "/y", true),
            ("app/readme", "/opt/readme", false),
        ] {
            assert_eq!(hidden(path.as_bytes(), target.as_bytes()).is_some(), is_hidden, "{path} -> {target}");
        }
    }
}
