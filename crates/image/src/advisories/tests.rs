use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::inventory::{Distribution, Format, Location, Unread};

fn advisory(id: &str, ecosystem: &str, name: &str, fixed: &str) -> Value {
    json!({
        "id": id,
        "affected": [{
            "package": { "ecosystem": ecosystem, "name": name },
            "ranges": [{ "type": "ECOSYSTEM", "events": [{ "introduced": "0" }, { "fixed": fixed }] }],
        }],
    })
}

struct Shelf {
    folder: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Shelf {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("osv")).unwrap();
        Shelf { folder }
    }

    fn put(&self, name: &str, advisory: &Value) {
        let path = self.folder.path().join("osv").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, advisory.to_string()).unwrap();
    }

    /// Opens it, and counts the files that were read for it.
    fn open(&self) -> (Result<Advisories, AdvisoriesError>, u64) {
        let read = AtomicU64::new(0);
        let count = |_| {
            read.fetch_add(1, Ordering::Relaxed);
        };
        let opened =
            Advisories::open(&self.folder.path().join("osv"), &self.folder.path().join("cache"), &count);
        (opened, read.into_inner())
    }

    fn scan(&self) -> Scan {
        self.open().0.unwrap().scan(&installed()).unwrap()
    }
}

fn installed() -> Inventory {
    let distribution = Distribution::parse(b"ID=debian\nVERSION_ID=12\n");
    let text = "Package: libssl3\nVersion: 3.0.11-1~deb12u1\nSource: openssl\n\nPackage: openssl\nVersion: 3.0.11-1~deb12u1\n\nPackage: bash\nVersion: 5.2\n";
    let of = |format: Format, text: &str| {
        let records = format.parse(text.as_bytes()).unwrap().into_iter();
        let place = Location { layer: Digest::of(b""), path: "/x".to_owned() };
        let make = |record| Package::new(format.kind(), record, vec![place.clone()], distribution.as_ref());
        records.map(make).collect::<Vec<_>>()
    };
    let mut packages = of(Format::Dpkg, text);
    packages.extend(of(Format::PythonMetadata, "Name: PyYAML\nVersion: 5.3\n"));
    let unread = vec![Unread { path: "/b".to_owned(), reason: "isn't read".to_owned() }];
    Inventory { packages, unread, distribution: distribution.clone() }
}

fn found(scan: &Scan) -> Vec<String> {
    let show = |finding: &Finding| {
        let fixed = finding.fixed.as_deref().unwrap_or("-");
        format!("{} {} {fixed} {}", finding.package, finding.version, finding.advisory)
    };
    scan.findings.iter().map(show).collect()
}

#[test]
fn findings_name_the_source_what_is_installed_of_it_and_the_fix() {
    let shelf = Shelf::new();
    shelf.put("Debian/a.json", &advisory("DEBIAN-CVE-1", "Debian:12", "openssl", "3.0.11-1~deb12u2"));
    shelf.put("Debian/b.json", &advisory("DEBIAN-CVE-2", "Debian:11", "openssl", "9"));
    shelf.put("Debian/c.json", &advisory("DEBIAN-CVE-3", "Debian:12", "openssl", "3.0.11-1~deb12u1"));
    shelf.put("PyPI/d.json", &advisory("PYSEC-1", "PyPI", "pyyaml", "5.4"));
    shelf.put("e.json", &advisory("GHSA-1", "Maven", "openssl", "9"));
    let scan = shelf.scan();
    assert_eq!(
        found(&scan),
        ["openssl 3.0.11-1~deb12u1 3.0.11-1~deb12u2 DEBIAN-CVE-1", "pyyaml 5.3 5.4 PYSEC-1"]
    );
    assert_eq!(scan.findings[0].installed, ["libssl3", "openssl"]);
    assert_eq!(scan.packages, 4);
    assert!(scan.unread.contains(&"/b of the image: isn't read".to_owned()));
}

#[test]
fn a_folder_is_read_once_for_each_of_its_states() {
    let shelf = Shelf::new();
    shelf.put("a.json", &advisory("A", "PyPI", "PyYAML", "5.4"));
    let (first, read) = shelf.open();
    assert_eq!(read, 1);
    let first = first.unwrap();
    let (second, read) = shelf.open();
    assert_eq!((read, second.unwrap().digest()), (0, first.digest()), "nothing has changed");
    shelf.put("a.json", &advisory("A", "PyPI", "PyYAML", "5.5"));
    let (third, read) = shelf.open();
    assert_eq!(read, 1, "a file was written again");
    let third = third.unwrap();
    assert_ne!(third.digest(), first.digest());
    assert_eq!(third.scan(&installed()).unwrap().findings[0].fixed.as_deref(), Some("5.5"));
    shelf.put("b.json", &advisory("B", "npm", "x", "1"));
    assert_eq!(shelf.open().1, 2, "a file came");
    fs::remove_file(shelf.folder.path().join("osv/a.json")).unwrap();
    assert_eq!(shelf.open().1, 1, "a file went");
    assert_eq!(found(&shelf.scan()), [""; 0]);
}

#[test]
fn a_damaged_index_is_made_again() {
    let shelf = Shelf::new();
    shelf.put("a.json", &advisory("A", "PyPI", "PyYAML", "5.4"));
    shelf.open().0.unwrap();
    let mut cached =
        fs::read_dir(shelf.folder.path().join("cache")).unwrap().map(|entry| entry.unwrap().path());
    let index = cached.find(|path| path.is_file()).unwrap();
    for bytes in [&b""[..], b"VIMADV\x00\x01", &[0xff; 200]] {
        fs::write(&index, bytes).unwrap();
        assert_eq!(found(&shelf.scan()).len(), 1);
    }
    let whole = fs::read(&index).unwrap();
    for at in 72..96 {
        let mut bent = whole.clone();
        bent[at] ^= 0x80;
        fs::write(&index, &bent).unwrap();
        // Another count may make it unreadable, but neither a panic nor a great deal of memory.
        let _ = shelf.open().0.map(|advisories| advisories.scan(&installed()));
    }
}

#[test]
fn archives_are_read_as_folders_are_and_what_is_in_both_counts_once() {
    let shelf = Shelf::new();
    let path = shelf.folder.path().join("osv/all.zip");
    let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
    for (name, method) in [("A", zip::CompressionMethod::Deflated), ("B", zip::CompressionMethod::Stored)] {
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        archive.start_file(format!("{name}.json"), options).unwrap();
        archive.write_all(advisory(name, "PyPI", "PyYAML", "5.4").to_string().as_bytes()).unwrap();
    }
    archive.finish().unwrap();
    shelf.put("A.json", &advisory("A", "PyPI", "PyYAML", "5.4"));
    assert_eq!(found(&shelf.scan()), ["pyyaml 5.3 5.4 A", "pyyaml 5.3 5.4 B"]);
    fs::write(&path, b"PK no archive").unwrap();
    let error = shelf.open().0.unwrap_err();
    assert!(error.to_string().contains("all.zip"), "{error}");
}

#[test]
fn what_is_no_advisory_is_said_and_a_folder_without_any_is_an_error() {
    let shelf = Shelf::new();
    assert!(shelf.open().0.unwrap_err().to_string().contains("holds no advisory"));
    shelf.put("x.json", &json!(7));
    assert!(shelf.open().0.unwrap_err().to_string().contains("holds no advisory"));
    shelf.put("a.json", &advisory("A", "PyPI", "PyYAML", "5.4"));
    shelf.put("w.json", &json!({ "id": "W", "withdrawn": "2024-01-01T00:00:00Z" }));
    let scan = shelf.scan();
    assert!(scan.unread.iter().any(|line| line.starts_with("x.json: ")), "{:?}", scan.unread);
    assert_eq!(shelf.open().0.unwrap().count(), 1);
    let nowhere = Advisories::open(Path::new("/no/such/folder"), shelf.folder.path(), &|_| {});
    assert!(matches!(nowhere, Err(AdvisoriesError::Read { .. })));
}

#[test]
fn an_advisory_that_isn_t_rated_is_as_bad_as_the_one_that_it_was_made_from() {
    let shelf = Shelf::new();
    let mut debian = advisory("DEBIAN-CVE-2024-1", "Debian:12", "bash", "6");
    debian["upstream"] = json!(["CVE-2024-1"]);
    shelf.put("a.json", &debian);
    let vector = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H";
    shelf.put("b.json", &json!({ "id": "CVE-2024-1", "severity": [{ "type": "CVSS_V3", "score": vector }] }));
    let scan = shelf.scan();
    assert_eq!(scan.findings[0].advisory, "CVE-2024-1");
    assert_eq!(scan.findings[0].aliases, ["DEBIAN-CVE-2024-1"]);
    assert_eq!(scan.findings[0].rating.as_ref().unwrap().level, Level::Critical);
}
