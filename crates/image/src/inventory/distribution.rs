//! Which distribution an image is made of (`os-release(5)`), and what OSV calls it.

use std::fmt;

use super::Kind;

/// The most bytes of `os-release` that are read.
pub(super) const MOST_BYTES: u64 = 64 << 10;

/// A distribution and its release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// `ID`, such as "debian".
    pub id: String,
    /// `VERSION_ID`, such as "12".
    pub version: Option<String>,
    /// `VERSION`, such as "22.04.3 LTS (Jammy Jellyfish)".
    long_version: String,
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{} {version}", self.id),
            None => f.write_str(&self.id),
        }
    }
}

impl Distribution {
    /// Reads `os-release`; `None` if it names no distribution.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Distribution> {
        let text = String::from_utf8_lossy(bytes);
        let value = |wanted: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.trim().split_once('=')?;
                let value = value.trim_matches(['"', '\'']);
                let proper = value.len() <= 100 && !value.chars().any(char::is_control);
                (name == wanted && proper && !value.is_empty()).then(|| value.to_owned())
            })
        };
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let id = value("ID").filter(|id| id.chars().all(is_word))?;
        let version = value("VERSION_ID").filter(|version| version.chars().all(is_word));
        Some(Distribution { id, version, long_version: value("VERSION").unwrap_or_default() })
    }

    /// Names the ecosystem of its packages as OSV does, if OSV has it (OSV schema, "Defined ecosystems").
    #[must_use]
    pub fn ecosystem(&self, kind: Kind) -> Option<String> {
        let version = self.version.as_deref().unwrap_or_default();
        let major = version.split('.').next().unwrap_or_default();
        let numbered = |name: &str, release: &str| (!release.is_empty()).then(|| format!("{name}:{release}"));
        match (kind, self.id.as_str()) {
            (Kind::Deb, "debian") => numbered("Debian", major),
            (Kind::Deb, "ubuntu") if self.long_version.contains("LTS") => {
                numbered("Ubuntu", version).map(|name| name + ":LTS")
            }
            (Kind::Deb, "ubuntu") => numbered("Ubuntu", version),
            (Kind::Apk, "alpine") => {
                let mut parts = version.split('.');
                let (major, minor) = (parts.next()?, parts.next()?);
                Some(format!("Alpine:v{major}.{minor}"))
            }
            (Kind::Apk, "wolfi") => Some("Wolfi".to_owned()),
            (Kind::Apk, "chainguard") => Some("Chainguard".to_owned()),
            (Kind::Rpm, "rhel") => numbered("Red Hat", &format!("enterprise_linux:{major}")),
            (Kind::Rpm, "rocky") => numbered("Rocky Linux", major),
            (Kind::Rpm, "almalinux") => numbered("AlmaLinux", major),
            (Kind::Rpm, "opensuse-leap") => numbered("openSUSE", &format!("Leap {version}")),
            (Kind::Rpm, "opensuse-tumbleweed") => Some("openSUSE:Tumbleweed".to_owned()),
            (Kind::Rpm, "sles") => match version.split_once('.') {
                Some((major, pack)) => Some(format!("SUSE:Linux Enterprise Server {major} SP{pack}")),
                None => numbered("SUSE", &format!("Linux Enterprise Server {version}")),
            },
            (Kind::Rpm, "openEuler") => {
                // "22.03 (LTS-SP3)"
                let pack = self.long_version.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
                match pack {
                    Some((pack, _)) => numbered("openEuler", &format!("{version}-{pack}")),
                    None => numbered("openEuler", version),
                }
            }
            (Kind::Rpm, "mageia") => numbered("Mageia", version),
            (Kind::Rpm, "azurelinux") => numbered("Azure Linux", major),
            _ => None,
        }
    }
}
