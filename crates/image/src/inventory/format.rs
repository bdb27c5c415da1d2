//! Which files list packages, and how each is read.

use std::io::{self, Read};

use super::{Kind, Record, apk, dpkg, go, json, python, rpm, ruby, toml};

/// A file that lists packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// `/var/lib/dpkg/status`, and the files of `status.d` in images without dpkg.
    Dpkg,
    /// `/lib/apk/db/installed`.
    Apk,
    /// `rpmdb.sqlite`.
    RpmSqlite,
    /// `Packages.db`, RPM's own.
    RpmNdb,
    /// `Packages`, of Berkeley DB: seen, and said not to be read.
    RpmBerkeley,
    /// `package.json` of an installed package.
    NodePackage,
    /// `package-lock.json`.
    NodeLock,
    /// `METADATA` or `PKG-INFO` of an installed package.
    PythonMetadata,
    /// `poetry.lock` or `uv.lock`.
    PythonLock,
    /// `Cargo.lock`.
    CargoLock,
    /// `go.sum`.
    GoSum,
    /// A program that Go built.
    GoProgram,
    /// `Gemfile.lock`.
    GemLock,
    /// The specification of an installed gem.
    Gemspec,
    /// `composer.lock` or Composer's `installed.json`.
    Composer,
}

/// Why a file's packages aren't listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// It is larger than such files are.
    #[error("it has {size} bytes; at most {most} are read")]
    Large {
        /// Its size in bytes.
        size: u64,
        /// How many are read.
        most: u64,
    },
    /// Its bytes can't be read.
    #[error("it can't be read ({0})")]
    Io(io::Error),
    /// It isn't what its name says.
    #[error("{0}")]
    Form(&'static str),
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 15] = [
        Format::Dpkg,
        Format::Apk,
        Format::RpmSqlite,
        Format::RpmNdb,
        Format::RpmBerkeley,
        Format::NodePackage,
        Format::NodeLock,
        Format::PythonMetadata,
        Format::PythonLock,
        Format::CargoLock,
        Format::GoSum,
        Format::GoProgram,
        Format::GemLock,
        Format::Gemspec,
        Format::Composer,
    ];

    /// Tells by a file's path (without a leading slash), permissions and size what it lists, if anything.
    #[must_use]
    pub fn of(path: &[u8], mode: u16, size: u64) -> Option<Format> {
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let (folder, name) = match slash {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        let of_rpm = matches!(folder, b"var/lib/rpm" | b"usr/lib/sysimage/rpm" | b"usr/share/rpm");
        Some(match name {
            b"status" if folder == b"var/lib/dpkg" => Format::Dpkg,
            _ if folder == b"var/lib/dpkg/status.d" && !name.ends_with(b".md5sums") => Format::Dpkg,
            b"installed" if folder == b"lib/apk/db" || folder == b"usr/lib/apk/db" => Format::Apk,
            b"rpmdb.sqlite" if of_rpm => Format::RpmSqlite,
            b"Packages.db" if of_rpm => Format::RpmNdb,
            b"Packages" if of_rpm => Format::RpmBerkeley,
            b"package.json" if is_node_module(folder) => Format::NodePackage,
            b"package-lock.json" | b".package-lock.json" => Format::NodeLock,
            b"METADATA" if folder.ends_with(b".dist-info") => Format::PythonMetadata,
            b"PKG-INFO" if folder.ends_with(b".egg-info") => Format::PythonMetadata,
            b"poetry.lock" | b"uv.lock" => Format::PythonLock,
            b"Cargo.lock" => Format::CargoLock,
            b"go.sum" => Format::GoSum,
            b"Gemfile.lock" => Format::GemLock,
            b"composer.lock" => Format::Composer,
            b"installed.json" if folder.ends_with(b"vendor/composer") => Format::Composer,
            _ if name.ends_with(b".gemspec") && has_component(folder, b"specifications") => Format::Gemspec,
            _ if mode & 0o111 != 0 && size >= go::LEAST_BYTES && !name.ends_with(b".so") => Format::GoProgram,
            _ => return None,
        })
    }

    /// The kind of packages that it lists.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Format::Dpkg => Kind::Deb,
            Format::Apk => Kind::Apk,
            Format::RpmSqlite | Format::RpmNdb | Format::RpmBerkeley => Kind::Rpm,
            Format::NodePackage | Format::NodeLock => Kind::Npm,
            Format::PythonMetadata | Format::PythonLock => Kind::PyPi,
            Format::CargoLock => Kind::Cargo,
            Format::GoSum | Format::GoProgram => Kind::Go,
            Format::GemLock | Format::Gemspec => Kind::Gem,
            Format::Composer => Kind::Composer,
        }
    }

    /// The most bytes that are taken in.
    fn most(self) -> u64 {
        match self {
            Format::RpmSqlite | Format::RpmNdb => 256 << 20,
            Format::GoProgram => 1 << 30,
            Format::NodePackage | Format::Gemspec => 1 << 20,
            // Its text has no bound, but what is looked for stands at its start.
            Format::PythonMetadata => u64::MAX,
            // As values in memory, JSON takes many times its size.
            Format::NodeLock | Format::Composer => 16 << 20,
            _ => 64 << 20,
        }
    }

    /// Reads the packages out of a file's content.
    ///
    /// # Errors
    /// [`Unreadable`], in words that follow the file's name.
    pub fn read(self, path: &[u8], content: impl Read, size: u64) -> Result<Vec<Record>, Unreadable> {
        let most = self.most();
        if size > most {
            return Err(Unreadable::Large { size, most });
        }
        match self {
            Format::GoProgram => return go::program(content),
            // The file's name says it all.
            Format::Gemspec => return Ok(ruby::gemspec(path).into_iter().collect()),
            Format::RpmBerkeley => {
                return Err(Unreadable::Form(
                    "an RPM database of Berkeley DB, which isn't read: RPM 4.16 and later write another form \
                     (rpmdb --rebuilddb makes it)",
                ));
            }
            _ => {}
        }
        let mut bytes = Vec::new();
        content
            .take(most.min(if self == Format::PythonMetadata { 1 << 20 } else { 256 << 20 }))
            .read_to_end(&mut bytes)
            .map_err(Unreadable::Io)?;
        self.parse(&bytes).map_err(Unreadable::Form)
    }

    /// Reads the packages out of bytes.
    ///
    /// # Errors
    /// What is wrong with them, in words that follow the file's name.
    pub fn parse(self, bytes: &[u8]) -> Result<Vec<Record>, &'static str> {
        match self {
            Format::Dpkg => Ok(dpkg::parse(bytes)),
            Format::Apk => Ok(apk::parse(bytes)),
            Format::RpmSqlite => rpm::sqlite(bytes),
            Format::RpmNdb => rpm::ndb(bytes),
            Format::RpmBerkeley => Err("an RPM database of Berkeley DB, which isn't read"),
            Format::NodePackage => json::node_package(bytes),
            Format::NodeLock => json::node_lock(bytes),
            Format::PythonMetadata => python::metadata(bytes),
            Format::PythonLock => Ok(python::lock(bytes)),
            Format::CargoLock => Ok(toml::packages(bytes)),
            Format::GoSum => Ok(go::sum(bytes)),
            Format::GoProgram => go::program(bytes).map_err(|_| "a Go program that isn't understood"),
            Format::GemLock => Ok(ruby::lock(bytes)),
            Format::Gemspec => Ok(ruby::gemspec(bytes).into_iter().collect()),
            Format::Composer => json::composer(bytes),
        }
    }
}

/// Tells a package's own folder from one deeper in it, which may hold test data.
fn is_node_module(folder: &[u8]) -> bool {
    let mut components = folder.rsplit(|byte| *byte == b'/');
    let _name = components.next();
    match components.next() {
        Some(b"node_modules") => true,
        Some(scope) => scope.starts_with(b"@") && components.next() == Some(b"node_modules"),
        None => false,
    }
}

fn has_component(path: &[u8], wanted: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|component| component == wanted)
}
