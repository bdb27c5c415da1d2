use std::process::Command;

use proptest::prelude::*;

use super::*;

/// Name, version, architecture and source of each.
fn listed(format: Format, bytes: &[u8]) -> Vec<String> {
    let show = |record: Record| {
        let mut text = format!("{} {}", record.name, record.version);
        if let Some(arch) = record.arch {
            text.push_str(&format!(" {arch}"));
        }
        if let Some((name, version)) = record.source {
            text.push_str(&format!(" of {name} {version}"));
        }
        text
    };
    format.parse(bytes).unwrap().into_iter().map(show).collect()
}

const DPKG: &str = "\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+b1
Description: a library
 Package: not-a-field

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libssl3
Status: install ok installed
Source: openssl
Architecture: amd64
Version: 3.0.11-1~deb12u1
";

const APK: &str = "\
C:Q1abc=
P:musl
V:1.2.4-r2
A:x86_64
o:musl
F:lib
R:ld-musl-x86_64.so.1

P:libcrypto3
V:3.1.4-r1
A:x86_64
o:openssl
";

#[test]
fn a_dpkg_status_lists_what_is_installed_with_its_source() {
    let found = listed(Format::Dpkg, DPKG.as_bytes());
    assert_eq!(
        found,
        [
            "libc6 2.36-9+b1 amd64 of glibc 2.36-9",
            "libssl3 3.0.11-1~deb12u1 amd64 of openssl 3.0.11-1~deb12u1"
        ]
    );
    // A file of status.d has no status.
    assert_eq!(listed(Format::Dpkg, b"Package: base-files\nVersion: 12.4\n"), ["base-files 12.4"]);
}

#[test]
fn an_apk_database_lists_what_is_installed_with_its_origin() {
    assert_eq!(
        listed(Format::Apk, APK.as_bytes()),
        ["musl 1.2.4-r2 x86_64 of musl 1.2.4-r2", "libcrypto3 3.1.4-r1 x86_64 of openssl 3.1.4-r1"]
    );
}

#[test]
fn lock_files_of_languages_are_read() {
    let table: [(Format, &str, &[&str]); 10] = [
        (
            Format::CargoLock,
            "version = 4\n\n[[package]]\nname = \"time\"\nversion = \"0.1.44\"\nsource = \"registry\"\ndependencies = [\n \"libc\",\n]\n\n[metadata]\nname = \"no\"\nversion = \"1\"\n",
            &["time 0.1.44"],
        ),
        (
            Format::PythonLock,
            "[[package]]\nname = \"Flask_Login\"\nversion = \"0.6.2\"\n\n[package.dependencies]\nname = \"x\"\n",
            &["flask-login 0.6.2"],
        ),
        (
            Format::PythonMetadata,
            "Metadata-Version: 2.1\nName: PyYAML\nVersion: 5.3\n\nVersion: 9\n",
            &["pyyaml 5.3"],
        ),
        (
            Format::NodeLock,
            r#"{"lockfileVersion":3,"packages":{"":{"version":"1.0.0"},"node_modules/a":{"version":"1.2.3"},
               "node_modules/@s/b/node_modules/c":{"version":"2.0.0"},"node_modules/alias":{"name":"real","version":"3.0.0"},
               "packages/own":{"version":"1"}}}"#,
            &["a 1.2.3", "c 2.0.0", "real 3.0.0"],
        ),
        (
            Format::NodeLock,
            r#"{"dependencies":{"a":{"version":"1.2.3","dependencies":{"b":{"version":"2.0.0"}}},
               "git":{"version":"git+https://example.org/x"},"alias":{"version":"npm:real@3.0.0"}}}"#,
            &["a 1.2.3", "b 2.0.0", "real 3.0.0"],
        ),
        (Format::NodePackage, r#"{"name":"@s/p","version":"1.0.0"}"#, &["@s/p 1.0.0"]),
        (
            Format::GoSum,
            "golang.org/x/net v0.17.0 h1:abc=\ngolang.org/x/net v0.17.0/go.mod h1:def=\n",
            &["golang.org/x/net v0.17.0"],
        ),
        (
            Format::GemLock,
            "GIT\n  remote: x\n  specs:\n    own (1.0)\n\nGEM\n  remote: https://rubygems.org/\n  specs:\n    nokogiri (1.15.4-x86_64-linux)\n      racc (~> 1.4)\n    rake (13.0.6)\n\nPLATFORMS\n  ruby\n",
            &["nokogiri 1.15.4", "rake 13.0.6"],
        ),
        (
            Format::Composer,
            r#"{"packages":[{"name":"Symfony/Http","version":"v5.4.0"}],"packages-dev":[{"name":"a/b","version":"1.0"}]}"#,
            &["symfony/http v5.4.0", "a/b 1.0"],
        ),
        (Format::Composer, r#"[{"name":"a/b","version":"1.0"}]"#, &["a/b 1.0"]),
    ];
    for (format, text, expected) in table {
        assert_eq!(listed(format, text.as_bytes()), expected, "{format:?}");
    }
    let gem =
        Format::Gemspec.read(b"usr/lib/ruby/specifications/default/net-http-0.3.2.gemspec", &b""[..], 0);
    assert_eq!(gem.unwrap(), [Record::new("net-http", "0.3.2")]);
}

#[test]
fn a_place_and_a_name_make_a_list_of_packages() {
    let of = |path: &str| Format::of(path.as_bytes(), 0o644, 100);
    assert_eq!(of("var/lib/dpkg/status"), Some(Format::Dpkg));
    assert_eq!(of("var/lib/dpkg/status.d/base"), Some(Format::Dpkg));
    assert_eq!(of("var/lib/dpkg/status.d/base.md5sums"), None);
    assert_eq!(of("home/status"), None);
    assert_eq!(of("usr/lib/sysimage/rpm/rpmdb.sqlite"), Some(Format::RpmSqlite));
    assert_eq!(of("app/node_modules/a/package.json"), Some(Format::NodePackage));
    assert_eq!(of("app/node_modules/@s/a/package.json"), Some(Format::NodePackage));
    assert_eq!(of("app/node_modules/a/test/data/package.json"), None);
    assert_eq!(of("app/package.json"), None);
    assert_eq!(of("srv/x.dist-info/METADATA"), Some(Format::PythonMetadata));
    assert_eq!(of("Cargo.lock"), Some(Format::CargoLock));
    assert_eq!(Format::of(b"bin/program", 0o755, 1 << 20), Some(Format::GoProgram));
    assert_eq!(Format::of(b"bin/program", 0o644, 1 << 20), None);
}

/// A header as RPM keeps it.
fn rpm_header(name: &str, epoch: Option<u32>) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut data = Vec::new();
    for (tag, text) in [(1000, name), (1001, "1.1.1k"), (1002, "9.el9"), (1022, "x86_64")] {
        entries.push([tag, 6, data.len() as u32, 1]);
        data.extend_from_slice(text.as_bytes());
        data.push(0);
    }
    if let Some(epoch) = epoch {
        entries.push([1003, 4, data.len() as u32, 1]);
        data.extend_from_slice(&epoch.to_be_bytes());
    }
    // What a real header has most of: file names, so that it doesn't fit on a page.
    entries.push([1117, 8, data.len() as u32, 1]);
    data.extend(std::iter::repeat_n(b'f', 20_000));
    let mut header = [entries.len() as u32, data.len() as u32].map(u32::to_be_bytes).concat();
    header.extend(entries.iter().flatten().flat_map(|word| word.to_be_bytes()));
    header.extend(data);
    header
}

fn ndb(headers: &[Vec<u8>]) -> Vec<u8> {
    let mut file = vec![0; 4096];
    file[..4].copy_from_slice(b"RpmP");
    file[12..16].copy_from_slice(&1_u32.to_le_bytes());
    for slot in 2..256 {
        file[slot * 16..slot * 16 + 4].copy_from_slice(b"Slot");
    }
    for (index, header) in headers.iter().enumerate() {
        let package = index as u32 + 1;
        let at = (index + 2) * 16;
        let block = (file.len() / 16) as u32;
        file[at + 4..at + 8].copy_from_slice(&package.to_le_bytes());
        file[at + 8..at + 12].copy_from_slice(&block.to_le_bytes());
        let words = [u32::from_le_bytes(*b"BlbS"), package, 1, header.len() as u32];
        file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        file.extend(header);
        file.resize(file.len().next_multiple_of(16), 0);
    }
    file
}

/// A database as SQLite itself writes it, or nothing where there is no Python to do it.
fn rpm_sqlite(test: &str, headers: &[Vec<u8>]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpmdb.sqlite");
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        db.execute('PRAGMA page_size = 4096')\n\
        db.execute('CREATE TABLE Other (a INTEGER)')\n\
        db.execute('CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)')\n\
        for line in sys.stdin.read().split():\n\
        \x20   db.execute('INSERT INTO Packages (blob) VALUES (?)', (bytes.fromhex(line),))\n\
        db.commit()\n";
    let hex: Vec<String> = headers.iter().map(|header| crate::digest::hex(header)).collect();
    let input = folder.path().join("input");
    std::fs::write(&input, hex.join("\n")).unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(&path).stdin(std::fs::File::open(&input).unwrap());
    match python.status() {
        Ok(status) if status.success() => Some(std::fs::read(&path).unwrap()),
        _ => {
            eprintln!("SKIPPED: {test}: python3 isn't installed");
            None
        }
    }
}

#[test]
fn rpm_databases_of_both_living_forms_are_read_and_keys_are_no_packages() {
    let headers = [rpm_header("openssl", Some(1)), rpm_header("bash", None), rpm_header("gpg-pubkey", None)];
    let expected = ["openssl 1:1.1.1k-9.el9 x86_64", "bash 1.1.1k-9.el9 x86_64"];
    assert_eq!(listed(Format::RpmNdb, &ndb(&headers)), expected);
    if let Some(database) = rpm_sqlite("rpm_databases_of_both_living_forms", &headers) {
        assert_eq!(listed(Format::RpmSqlite, &database), expected);
    }
}

#[test]
fn a_table_of_many_pages_is_walked_whole() {
    let headers: Vec<Vec<u8>> =
        (0..600).map(|number| rpm_header(&format!("package-{number}"), None)).collect();
    let Some(database) = rpm_sqlite("a_table_of_many_pages_is_walked_whole", &headers) else { return };
    assert_eq!(listed(Format::RpmSqlite, &database).len(), 600);
}

#[test]
fn a_database_that_leads_in_circles_ends_with_an_error() {
    let mut circle = vec![0; 4096];
    circle[..16].copy_from_slice(b"SQLite format 3\0");
    circle[16..18].copy_from_slice(&512_u16.to_be_bytes());
    // Page 1 is an interior page whose children are page 1.
    circle[100] = 5;
    circle[104] = 20;
    for cell in 0..20 {
        circle[112 + cell * 2..114 + cell * 2].copy_from_slice(&200_u16.to_be_bytes());
    }
    circle[200..204].copy_from_slice(&1_u32.to_be_bytes());
    assert!(Format::RpmSqlite.parse(&circle).unwrap_err().contains("doesn't hold together"));
    // A leaf with thousands of cells, all of which are the same bytes.
    let mut leaf = vec![0; 65536];
    leaf[..16].copy_from_slice(b"SQLite format 3\0");
    leaf[16..18].copy_from_slice(&1_u16.to_be_bytes());
    leaf[100] = 13;
    leaf[103..105].copy_from_slice(&4000_u16.to_be_bytes());
    for cell in 0..4000 {
        leaf[108 + cell * 2..110 + cell * 2].copy_from_slice(&10_000_u16.to_be_bytes());
    }
    leaf[10_000..10_003].copy_from_slice(&[0x83, 0x50, 1]);
    leaf[10_003] = 1;
    assert!(Format::RpmSqlite.parse(&leaf).unwrap_err().contains("doesn't hold together"));
    let mut bomb = ndb(&[rpm_header("a", None)]);
    // Every slot leads to the one header.
    for slot in 3..256 {
        bomb.copy_within(32..48, slot * 16);
    }
    assert!(Format::RpmNdb.parse(&bomb).unwrap_err().contains("doesn't hold together"));
    assert!(Format::RpmBerkeley.parse(b"").unwrap_err().contains("Berkeley DB"));
}

/// A program with the mark that Go's linker writes, at a distance from the start.
fn go_program(before: usize, modules: &str) -> Vec<u8> {
    let mut program = b"\x7fELF".to_vec();
    program.resize(before, 7);
    program.extend_from_slice(b"\xff Go buildinf:\x08\x02");
    program.extend([0; 16]);
    let modules = format!("0123456789abcdef{modules}fedcba9876543210");
    for text in ["go1.21.3", &modules] {
        let mut length = text.len();
        while length >= 0x80 {
            program.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        program.push(length as u8);
        program.extend_from_slice(text.as_bytes());
    }
    program.extend([0; 5000]);
    program
}

#[test]
fn a_go_program_names_its_modules_wherever_the_mark_lies() {
    let modules = "path\texample.org/x\nmod\texample.org/x\t(devel)\t\ndep\tgolang.org/x/net\tv0.1.0\th1:a=\n\
        dep\ta.org/b\tv1.0.0\n=>\tc.org/d\tv2.0.0\th1:b=\ndep\te.org/f\tv1.0.0\n=>\t./local\t(devel)\n";
    for before in [4, 16, (1 << 20) - 3, 1 << 20, (2 << 20) + 7] {
        let found = listed(Format::GoProgram, &go_program(before, modules));
        assert_eq!(found, ["stdlib 1.21.3", "golang.org/x/net v0.1.0", "c.org/d v2.0.0"], "{before}");
    }
    assert!(listed(Format::GoProgram, b"#!/bin/sh\n").is_empty());
    assert!(listed(Format::GoProgram, b"\x7fELF and no mark").is_empty());
    let marks = [&b"\x7fELF"[..], &b"\xff Go buildinf:".repeat(10_000)].concat();
    let error = Format::GoProgram.read(b"x", &marks[..], 1).unwrap_err().to_string();
    assert!(error.contains("lead to nothing"), "{error}");
    let mut old = go_program(100, "");
    old[100 + 15] = 0;
    assert!(Format::GoProgram.read(b"x", &old[..], 1).unwrap_err().to_string().contains("before 1.18"));
}

#[test]
fn distributions_have_the_names_that_advisories_use() {
    let of = |text: &str, kind| Distribution::parse(text.as_bytes()).and_then(|known| known.ecosystem(kind));
    let table = [
        ("ID=debian\nVERSION_ID=\"12\"\n", Kind::Deb, Some("Debian:12")),
        (
            "ID=ubuntu\nVERSION_ID=\"22.04\"\nVERSION=\"22.04.3 LTS (Jammy)\"\n",
            Kind::Deb,
            Some("Ubuntu:22.04:LTS"),
        ),
        ("ID=ubuntu\nVERSION_ID='23.10'\nVERSION='23.10 (Mantic)'\n", Kind::Deb, Some("Ubuntu:23.10")),
        ("ID=alpine\nVERSION_ID=3.19.1\n", Kind::Apk, Some("Alpine:v3.19")),
        ("ID=wolfi\n", Kind::Apk, Some("Wolfi")),
        ("ID=\"rocky\"\nVERSION_ID=\"9.3\"\n", Kind::Rpm, Some("Rocky Linux:9")),
        ("ID=\"almalinux\"\nVERSION_ID=\"8.9\"\n", Kind::Rpm, Some("AlmaLinux:8")),
        ("ID=\"rhel\"\nVERSION_ID=\"9.3\"\n", Kind::Rpm, Some("Red Hat:enterprise_linux:9")),
        ("ID=\"sles\"\nVERSION_ID=\"15.5\"\n", Kind::Rpm, Some("SUSE:Linux Enterprise Server 15 SP5")),
        ("ID=\"opensuse-leap\"\nVERSION_ID=\"15.5\"\n", Kind::Rpm, Some("openSUSE:Leap 15.5")),
        ("ID=fedora\nVERSION_ID=39\n", Kind::Rpm, None),
        ("ID=debian\n", Kind::Deb, None),
        ("ID=debian\nVERSION_ID=12\n", Kind::Apk, None),
        ("ID=a/b\n", Kind::Deb, None),
        ("", Kind::Deb, None),
    ];
    for (text, kind, expected) in table {
        assert_eq!(of(text, kind).as_deref(), expected, "{text}");
    }
}

#[test]
fn package_urls_are_written_as_the_specification_has_them() {
    let debian = Distribution::parse(b"ID=debian\nVERSION_ID=12\n");
    let rocky = Distribution::parse(b"ID=rocky\nVERSION_ID=9.3\n");
    let purl = |kind, record: Record, known: &Option<Distribution>| {
        Package::new(kind, record, Vec::new(), known.as_ref()).purl
    };
    let deb = Record {
        arch: Some("amd64".to_owned()),
        source: Some(("glibc".to_owned(), "2.36-9".to_owned())),
        ..Record::new("libc6", "2.36-9+b1")
    };
    assert_eq!(
        purl(Kind::Deb, deb, &debian),
        "pkg:deb/debian/libc6@2.36-9%2Bb1?arch=amd64&distro=debian-12&upstream=glibc%402.36-9"
    );
    assert_eq!(
        purl(Kind::Rpm, Record::new("openssl", "1:3.0-1.el9"), &rocky),
        "pkg:rpm/rocky/openssl@3.0-1.el9?distro=rocky-9.3&epoch=1"
    );
    assert_eq!(purl(Kind::Npm, Record::new("@s/p", "1.0.0"), &debian), "pkg:npm/%40s/p@1.0.0");
    assert_eq!(
        purl(Kind::Go, Record::new("golang.org/x/net", "v0.1.0"), &debian),
        "pkg:golang/golang.org/x/net@v0.1.0"
    );
}

#[test]
fn a_list_without_an_end_is_left_at_the_most_that_is_listed() {
    let many = "P:a\nV:1\n\n".repeat(MOST_PACKAGES + 1000);
    assert_eq!(Format::Apk.parse(many.as_bytes()).unwrap().len(), MOST_PACKAGES + 1);
}

#[test]
fn a_name_that_no_package_can_have_is_no_package() {
    for (name, version) in [("", "1"), ("a", ""), ("a\u{1b}[2J", "1"), ("a b", "1"), ("a", "1\n2")] {
        assert!(!Record::new(name, version).is_proper(), "{name:?} {version:?}");
    }
    assert!(!Record::new("a".repeat(513), "1").is_proper());
    assert!(Record::new("@s/p", "1:2.0~rc1+b1").is_proper());
}

fn any_format() -> impl Strategy<Value = Format> {
    prop::sample::select(Format::ALL.to_vec())
}

/// Proper files of every format, to be damaged.
fn samples() -> Vec<(Format, Vec<u8>)> {
    vec![
        (Format::Dpkg, DPKG.as_bytes().to_vec()),
        (Format::Apk, APK.as_bytes().to_vec()),
        (Format::RpmNdb, ndb(&[rpm_header("a", Some(1))])),
        (Format::GoProgram, go_program(16, "dep\ta\tv1\n")),
        (Format::GemLock, b"GEM\n  specs:\n    a (1)\n".to_vec()),
        (Format::CargoLock, b"[[package]]\nname = \"a\"\nversion = \"1\"\n".to_vec()),
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(format in any_format(), bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = format.parse(&bytes);
        let _ = Distribution::parse(&bytes);
    }

    #[test]
    fn damaged_files_give_an_answer_or_an_error(
        which in 0_usize..6, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        end in any::<prop::sample::Index>(), cut in any::<bool>()
    ) {
        let (format, mut bytes) = samples().swap_remove(which);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        let _ = format.parse(&bytes);
    }

    #[test]
    fn an_sqlite_header_with_any_page_behind_it_ends(pages in prop::collection::vec(any::<u8>(), 0..3000)) {
        let mut bytes = b"SQLite format 3\0\x02\x00".to_vec();
        bytes.resize(100, 0);
        bytes.extend(pages);
        let _ = Format::RpmSqlite.parse(&bytes);
    }
}
