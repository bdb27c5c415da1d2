//! Hostile and broken layers: each is refused, and the error says why.

use image::layer::{ConvertError, Limits};

use crate::archive::{Archive, Header, try_convert};

fn archive() -> Archive {
    Archive::default()
}

macro_rules! refused {
    ($archive:expr, $($pattern:tt)+) => {{
        let error = $archive.refused();
        assert!(matches!(error, $($pattern)+), "{error:?}");
        assert!(!error.to_string().is_empty());
    }};
}

#[test]
fn a_path_may_not_climb() {
    for name in ["../a", "a/../b", "a/..", "..", "/..", "./../a", "/a/b/../../../c"] {
        refused!(archive().file(name, b"x"), ConvertError::ParentComponent { .. });
        refused!(archive().dir(name), ConvertError::ParentComponent { .. });
    }
    refused!(
        archive().pax(b'x', &[("path", b"a/../../b")]).file("fine", b""),
        ConvertError::ParentComponent { .. }
    );
}

#[test]
fn a_leading_slash_or_dot_is_stripped() {
    let image = archive().dir("./").dir("/a").file("./a//b", b"x").file("a/./c/", b"").converted();
    assert_eq!(image.paths(), ["a", "a/b", "a/c"]);
    let dots = archive().file("..a", b"").file("b..", b"").file("...", b"").converted();
    assert_eq!(dots.paths(), ["...", "..a", "b.."]);
}

#[test]
fn the_root_must_be_a_folder() {
    refused!(archive().symlink("./", "/etc"), ConvertError::Root);
    refused!(archive().symlink("/", "/etc"), ConvertError::Root);
    refused!(archive().symlink(".", "/etc"), ConvertError::Root);
}

#[test]
fn a_hard_link_must_lead_to_a_file_of_the_layer() {
    refused!(archive().hard_link("a", "b"), ConvertError::LinkMissing { .. });
    refused!(archive().hard_link("a", "b").file("b", b""), ConvertError::LinkMissing { .. });
    refused!(archive().hard_link("a", "a"), ConvertError::LinkMissing { .. });
    refused!(archive().hard_link("a", "/etc/passwd"), ConvertError::LinkMissing { .. });
    refused!(archive().hard_link("a", "../b"), ConvertError::LinkEscapes { .. });
    refused!(archive().hard_link("a", "x/../../b"), ConvertError::LinkEscapes { .. });
    refused!(archive().dir("d").hard_link("a", "d"), ConvertError::LinkDirectory { .. });
    refused!(archive().hard_link("a", "/"), ConvertError::LinkDirectory { .. });
    refused!(
        archive().symlink("s", "d").dir("d").file("d/f", b"").hard_link("a", "s/f"),
        ConvertError::LinkMissing { .. }
    );
}

#[test]
fn nothing_may_lie_below_what_is_no_folder() {
    refused!(archive().symlink("s", "/etc").file("s/passwd", b"x"), ConvertError::BelowNonDirectory { .. });
    refused!(archive().symlink("s", ".").dir("s/a"), ConvertError::BelowNonDirectory { .. });
    refused!(archive().symlink("s", "..").hard_link("s/a", "s"), ConvertError::BelowNonDirectory { .. });
    refused!(archive().file("f", b"").file("f/a/b", b""), ConvertError::BelowNonDirectory { .. });
    refused!(archive().file("f", b"").file("f/.wh.a", b""), ConvertError::BelowNonDirectory { .. });
    let error = archive().dir("a").symlink("a/s", "/").file("a/s/b/c", b"").refused();
    assert!(error.to_string().contains("\"a/s/b/c\" lies below \"a/s\""), "{error}");
}

#[test]
fn names_and_paths_have_linux_lengths() {
    let name = |length: usize| "n".repeat(length);
    let long = |path: &str| archive().pax(b'x', &[("path", path.as_bytes())]).file("x", b"data");
    assert_eq!(long(&name(255)).converted().paths(), [name(255)]);
    refused!(long(&name(256)), ConvertError::TooLong { .. });
    let deep = vec!["d"; 2048].join("/");
    assert_eq!(long(&deep).converted().entries().len(), 2049);
    refused!(long(&format!("{deep}/d")), ConvertError::TooLong { .. });
    let target = |length| archive().pax(b'x', &[("linkpath", name(length).as_bytes())]).symlink("s", "t");
    assert_eq!(target(4095).converted().paths(), ["s"]);
    refused!(target(4096), ConvertError::SymlinkTarget { .. });
    refused!(archive().symlink("s", ""), ConvertError::SymlinkTarget { .. });
}

#[test]
fn a_layer_may_not_have_more_entries_than_allowed() {
    let limits = Limits { entries: 3, ..Limits::default() };
    let three = archive().file("a/b/c", b"").end();
    assert!(try_convert(&three, &limits).is_ok());
    let four = archive().file("a/b/c", b"").file("d", b"").end();
    assert!(matches!(try_convert(&four, &limits), Err(ConvertError::TooManyEntries { limit: 3 })));
    // Also when they replace one another.
    let same = archive().file("a", b"").file("a", b"").file("a", b"").file("a", b"").end();
    assert!(matches!(try_convert(&same, &limits), Err(ConvertError::TooManyEntries { limit: 3 })));
    let whiteouts =
        archive().file(".wh.a", b"").file(".wh.b", b"").file(".wh.c", b"").file(".wh.d", b"").end();
    assert!(matches!(try_convert(&whiteouts, &limits), Err(ConvertError::TooManyEntries { limit: 3 })));
    // Also when they are only more names of one file.
    let links =
        (0..5).fold(archive().file("a", b""), |archive, at| archive.hard_link(&format!("{at}"), "a")).end();
    assert!(matches!(try_convert(&links, &limits), Err(ConvertError::TooManyEntries { limit: 3 })));
}

#[test]
fn a_decompression_bomb_is_refused() {
    let limits = Limits { unpacked_bytes: 10_000, ..Limits::default() };
    let fits = archive().file("a", &[1; 5000]).end();
    assert!(try_convert(&fits, &limits).is_ok());
    let big = archive().file("a", &[1; 5000]).file("b", &[1; 5001]).end();
    assert!(matches!(try_convert(&big, &limits), Err(ConvertError::TooLarge { limit: 10_000 })));
    // A size that is only claimed is refused before it is read.
    let claimed = archive().raw(Header { size: 0o77_777_777_777, ..Header::new(b'0', b"a") }, b"").end();
    assert!(matches!(try_convert(&claimed, &limits), Err(ConvertError::TooLarge { limit: 10_000 })));
    let huge = archive().pax(b'x', &[("size", b"18446744073709551615")]).file("a", b"").end();
    assert!(matches!(try_convert(&huge, &limits), Err(ConvertError::TooLarge { .. })));
    // Zeros without end behind the archive count too.
    let mut trailing = archive().file("a", b"x").end();
    trailing.resize(20_000, 0);
    assert!(matches!(try_convert(&trailing, &limits), Err(ConvertError::TooLarge { limit: 10_000 })));
}

#[test]
fn a_stream_that_ends_early_is_refused() {
    let tar =
        archive().dir("d").file("d/f", &[7; 3000]).pax(b'x', &[("path", b"long")]).file("x", b"y").end();
    let whole = try_convert(&tar, &Limits::default()).unwrap().1;
    // Headers and data; the padding behind data may be missing, and between two entries the end can't be told from an
    // archive without its end mark.
    let (data, extended) = (512 + 512 + 3072, 512 + 512 + 3072 + 1024);
    let whole_records = [1..data - 72, data + 1..data + 512, extended + 1..extended + 512];
    for cut in whole_records.into_iter().flat_map(|range| range.step_by(97)).filter(|cut| cut % 512 != 0) {
        let result = try_convert(&tar[..cut], &Limits::default());
        assert!(matches!(result, Err(ConvertError::Truncated { .. })), "cut at {cut}: {result:?}");
    }
    assert!(matches!(try_convert(&tar[..2048], &Limits::default()), Err(ConvertError::Truncated { .. })));
    assert_eq!(try_convert(&tar[..tar.len() - 1024], &Limits::default()).unwrap().1, whole);
    assert_eq!(try_convert(&[], &Limits::default()).unwrap().1.entries, 0);
}

#[test]
fn a_last_entry_without_padding_and_end_mark_is_whole() {
    let tar = archive().dir("d").file("d/f", &[7; 3000]).end();
    let whole = try_convert(&tar, &Limits::default()).unwrap().1;
    for cut in [512 + 512 + 3000, 512 + 512 + 3001] {
        assert_eq!(try_convert(&tar[..cut], &Limits::default()).unwrap().1, whole, "cut at {cut}");
    }
}

#[test]
fn a_damaged_header_is_refused() {
    let tar = archive().file("a", b"x").end();
    for at in [0, 100, 124, 156, 257] {
        let mut broken = tar.clone();
        broken[at] ^= 1;
        let result = try_convert(&broken, &Limits::default());
        assert!(matches!(result, Err(ConvertError::Header { at: 0, .. })), "{result:?}");
    }
    assert!(matches!(try_convert(&[b'x'; 4096], &Limits::default()), Err(ConvertError::Header { .. })));
    let mut lone = vec![0; 512];
    lone.extend_from_slice(&tar);
    assert!(matches!(try_convert(&lone, &Limits::default()), Err(ConvertError::Header { at: 512, .. })));
    for records in
        ["9999 path=a\n", "5 a\n", "0 a=b\n", "-7 a=b\n", "7 a=bcd", "abc", "18446744073709551616 a=b\n"]
    {
        refused!(
            archive().raw(Header::new(b'x', b"p"), records.as_bytes()).file("a", b""),
            ConvertError::Header { .. }
        );
    }
    for (key, value) in [
        ("size", "1x"),
        ("uid", "-1"),
        ("uid", "4294967296"),
        ("gid", "x"),
        ("mtime", "now"),
        ("path", "a\0b"),
    ] {
        refused!(archive().pax(b'x', &[(key, value.as_bytes())]).file("a", b""), ConvertError::Header { .. });
    }
}

#[test]
fn an_endless_extended_header_is_refused() {
    for flag in [b'x', b'g', b'L', b'K'] {
        refused!(
            archive().raw(Header { size: 1 << 32, ..Header::new(flag, b"x") }, b""),
            ConvertError::Header { .. }
        );
    }
}

#[test]
fn whiteouts_must_name_something() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh."] {
        refused!(archive().file(name, b""), ConvertError::Whiteout { .. });
    }
    refused!(archive().file(".wh.a/b", b""), ConvertError::Whiteout { .. });
}

#[test]
fn device_numbers_must_be_ones_that_linux_has() {
    let node = |device| archive().raw(Header { device, ..Header::new(b'3', b"n") }, b"");
    assert_eq!(node((4095, 0o3_777_777)).converted().seen()[&b"n"[..]].content, b"4095:1048575");
    refused!(node((4096, 0)), ConvertError::Device { .. });
    refused!(node((0, 1 << 20)), ConvertError::Device { .. });
}

#[test]
fn xattrs_have_linux_lengths() {
    let with = |name: &str, value: &[u8]| {
        archive().pax(b'x', &[(&format!("SCHILY.xattr.{name}"), value)]).file("f", b"")
    };
    assert_eq!(with("user.a", &[1; 65536]).converted().entry("f").xattrs[0].1.len(), 65536);
    refused!(with("user.a", &[1; 65537]), ConvertError::Xattr { .. });
    refused!(with(&format!("user.{}", "a".repeat(251)), b""), ConvertError::Xattr { .. });
}

#[test]
fn kinds_that_a_layer_cannot_have_are_named() {
    for (flag, word) in [(b'S', "sparse"), (b'M', "volume"), (b'D', "incremental"), (b'Z', "'Z'")] {
        let error = archive().raw(Header::new(flag, b"odd"), b"").refused();
        assert!(matches!(error, ConvertError::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_source_that_fails_is_said_to_have_failed() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the line is down"))
        }
    }
    use std::io::Read as _;
    let tar = archive().file("a", &[1; 2000]).end();
    let mut file = tempfile::tempfile().unwrap();
    let result = image::layer::convert(tar[..1000].chain(Failing), &mut file, &Limits::default());
    assert!(matches!(result, Err(ConvertError::Read { .. })), "{result:?}");
}

#[test]
fn a_full_disk_is_said_to_be_full() {
    let Ok(mut full) = std::fs::File::options().write(true).open("/dev/full") else {
        return crate::skipped("a_full_disk_is_said_to_be_full", "/dev/full can't be opened");
    };
    let tar = archive().file("a", &crate::archive::noise(40 << 20, 1)).end();
    let result = image::layer::convert(tar.as_slice(), &mut full, &Limits::default());
    assert!(matches!(result, Err(ConvertError::Write(_))), "{result:?}");
}

#[test]
fn the_stream_is_read_to_its_very_end() {
    struct Counting<'c>(&'c [u8], &'c mut usize);
    impl std::io::Read for Counting<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let count = std::io::Read::read(&mut self.0, into)?;
            *self.1 += count;
            Ok(count)
        }
    }
    let mut tar = archive().file("a", b"x").end();
    tar.extend_from_slice(&[0xaa; 700_000]);
    let mut read = 0;
    let mut file = tempfile::tempfile().unwrap();
    image::layer::convert(Counting(&tar, &mut read), &mut file, &Limits::default()).unwrap();
    assert_eq!(read, tar.len());
}
