//! What entries mean: whiteouts, replacements, links, extended headers.

use crate::archive::{Archive, Header, Image, noise, prose};

fn archive() -> Archive {
    Archive::default()
}

#[test]
fn a_whiteout_becomes_a_character_device() {
    let image = archive().dir("a").file("a/.wh.gone", b"").converted();
    assert!(image.entry("a/gone").is_whiteout());
    assert!(!image.entry("a").is_opaque());
    assert_eq!(image.paths(), ["a", "a/gone"]);
}

#[test]
fn an_opaque_mark_becomes_an_xattr_wherever_it_stands() {
    for image in [
        archive().dir("a").file("a/.wh..wh..opq", b"").file("a/b", b"").converted(),
        archive().file("a/.wh..wh..opq", b"").dir("a").file("a/b", b"").converted(),
    ] {
        assert!(image.entry("a").is_opaque());
        assert!(!image.entry("a").is_implied());
        assert_eq!(image.entry("a").xattrs, [(b"trusted.overlay.opaque".to_vec(), b"y".to_vec())]);
        assert_eq!(image.paths(), ["a", "a/b"]);
    }
}

#[test]
fn a_whiteout_beside_an_entry_of_its_name_speaks_of_lower_layers_only() {
    for image in [
        archive().file(".wh.a", b"").dir("a").file("a/b", b"").converted(),
        archive().dir("a").file("a/b", b"").file(".wh.a", b"").converted(),
        archive().file(".wh.a", b"").file("a/b", b"").converted(),
    ] {
        assert!(image.entry("a").is_opaque());
        assert_eq!(image.paths(), ["a", "a/b"]);
    }
    for image in [
        archive().file(".wh.a", b"").file("a", b"new").converted(),
        archive().file("a", b"new").file(".wh.a", b"").converted(),
    ] {
        assert_eq!(image.content("a"), b"new");
    }
}

#[test]
fn bookkeeping_of_aufs_is_left_out() {
    let image =
        archive().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", b"x").file(".wh..wh.aufs", b"").converted();
    assert_eq!(image.paths(), [""; 0]);
}

#[test]
fn parents_that_nobody_described_are_implied() {
    let image = archive().file("a/b/c", b"x").dir("a").converted();
    let (a, b) = (image.entry("a"), image.entry("a/b"));
    assert!(!a.is_implied() && b.is_implied() && image.entry("").is_implied());
    assert_eq!((b.mode, b.uid, b.gid, b.mtime), (0o755, 0, 0, 0));
    assert!(!archive().dir("./").converted().entry("").is_implied());
}

#[test]
fn the_last_entry_of_a_name_wins() {
    assert_eq!(archive().file("a", b"1").file("a", b"2").converted().content("a"), b"2");
    let file_then_folder = archive().file("a", b"1").dir("a").file("a/b", b"2").converted();
    assert_eq!(file_then_folder.paths(), ["a", "a/b"]);
    let folder_then_file = archive().dir("a").file("a/b", b"").file("a", b"3").converted();
    assert_eq!(folder_then_file.content("a"), b"3");
    assert_eq!(folder_then_file.paths(), ["a"]);
    let link_then_folder = archive().symlink("a", "/").dir("a").file("a/b", b"").converted();
    assert_eq!(link_then_folder.paths(), ["a", "a/b"]);
    let twice = archive()
        .dir("a")
        .file("a/b", b"")
        .raw(Header { mode: 0o1777, uid: 5, ..Header::new(b'5', b"a") }, b"")
        .file("a/c", b"")
        .converted();
    assert_eq!((twice.entry("a").mode, twice.entry("a").uid), (0o1777, 5));
    assert_eq!(twice.paths(), ["a", "a/b", "a/c"]);
    // A folder that came, went and came again holds only what came after.
    let again = archive().dir("a").file("a/x", b"").file("a", b"").dir("a").file("a/y", b"").converted();
    assert_eq!(again.paths(), ["a", "a/y"]);
}

#[test]
fn hard_links_share_an_inode_and_outlive_their_target() {
    let image = archive().file("a", b"data").hard_link("d/b", "./a").hard_link("c", "/d/b").converted();
    let (a, b, c) = (image.entry("a"), image.entry("d/b"), image.entry("c"));
    assert!(a.inode == b.inode && b.inode == c.inode);
    assert_eq!(a.links, 3);
    let replaced = archive().file("a", b"old").hard_link("b", "a").file("a", b"new").converted();
    assert_eq!((replaced.content("a"), replaced.content("b")), (b"new".to_vec(), b"old".to_vec()));
    assert_eq!(replaced.entry("b").links, 1);
    let itself = archive().file("a", b"1").hard_link("a", "a").converted();
    assert_eq!(itself.content("a"), b"1");
    let to_symlink = archive().symlink("s", "t").hard_link("h", "s").converted();
    assert_eq!(to_symlink.entry("h").links, 2);
}

#[test]
fn symlink_targets_are_kept_as_they_are() {
    for target in ["/etc/passwd", "../../..", "a//b/./c/", "."] {
        let image = archive().symlink("s", target).converted();
        assert_eq!(image.seen()[&b"s"[..]].content, target.as_bytes());
    }
}

#[test]
fn extended_headers_override_and_end() {
    let image = archive()
        .pax(b'g', &[("mtime", b"77.9"), ("comment", b"a commit"), ("uid", b"3000000")])
        .pax(b'x', &[("path", b"caf\xc3\xa9/x"), ("gid", b"4294967295"), ("mtime", b"4294967295.5")])
        .file("short", b"1")
        .file("plain", b"2")
        .pax(b'x', &[("mtime", b"-5"), ("uid", b"")])
        .file("old", b"3")
        .pax(b'x', &[("mtime", b"99999999999")])
        .file("late", b"3")
        .converted();
    let x = image.entry("café/x");
    assert_eq!((x.uid, x.gid, x.mtime), (3_000_000, u32::MAX, u32::MAX));
    let plain = image.entry("plain");
    assert_eq!((plain.uid, plain.gid, plain.mtime), (3_000_000, 0, 77));
    assert_eq!((image.entry("old").mtime, image.entry("old").uid), (0, 0));
    assert_eq!(image.entry("late").mtime, u32::MAX);
    let sized =
        archive().pax(b'x', &[("size", b"3")]).raw(Header { size: 0, ..Header::new(b'0', b"f") }, b"");
    let mut bytes = sized.bytes;
    bytes.extend_from_slice(b"abc");
    bytes.resize(bytes.len() + 509 + 1024, 0);
    assert_eq!(Image::of(&bytes).content("f"), b"abc");
}

#[test]
fn gnu_and_old_headers_are_read() {
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let image = archive()
        .raw(
            Header { magic: b"ustar  \0", ..Header::new(b'L', b"././@LongLink") },
            format!("{long}\0").as_bytes(),
        )
        .raw(Header { magic: b"ustar  \0", ..Header::new(b'K', b"././@LongLink") }, &[b't'; 150])
        .raw(Header { magic: b"ustar  \0", ..Header::new(b'2', b"x") }, b"")
        .raw(Header { magic: &[0; 8], mode: 0o755, ..Header::new(0, b"old/") }, b"")
        .raw(Header { magic: &[0; 8], ..Header::new(0, b"old/file") }, b"v7")
        .raw(Header::new(b'V', b"a label"), b"")
        .raw(Header::new(b'7', b"contiguous"), b"c")
        .converted();
    assert_eq!(image.seen()[long.as_bytes()].content, [b't'; 150]);
    assert_eq!(image.content("old/file"), b"v7");
    assert_eq!(image.content("contiguous"), b"c");
    let mut header = Header::new(b'0', b"base256").encode();
    header[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]);
    header[136..148].copy_from_slice(&[0xff; 12]);
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let entry = Image::of(&header).entry("base256");
    assert_eq!((entry.uid, entry.mtime), (u32::MAX - 1, 0));
}

#[test]
fn names_need_not_be_text() {
    let image = archive().raw(Header::new(b'0', b"\xff\xfe\n\x1b"), b"x").converted();
    assert!(image.seen().contains_key(&b"\xff\xfe\n\x1b"[..]));
}

#[test]
fn xattrs_are_kept_but_those_that_overlayfs_would_believe() {
    let image = archive()
        .pax(
            b'x',
            &[
                ("SCHILY.xattr.user.mime", b"text/plain"),
                ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.trusted.other", b"z"),
                ("SCHILY.xattr.user.overlay.opaque", b"y"),
                ("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0"),
            ],
        )
        .dir("d")
        .file("plain", b"")
        .converted();
    let names: Vec<_> =
        image.entry("d").xattrs.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect();
    assert_eq!(names, ["security.capability", "user.mime"]);
    assert!(!image.entry("d").is_opaque());
    assert_eq!(image.entry("plain").xattrs, []);
}

#[test]
fn content_of_every_length_comes_back() {
    const BLOCK: usize = 128 << 10;
    let mut sizes = vec![0, 1, 511, 512, 513, 4096, 70_000];
    sizes.extend([BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 77]);
    let mut archive = archive();
    let mut contents = Vec::new();
    for (at, size) in sizes.iter().enumerate() {
        for (kind, content) in
            [("noise", noise(*size, at as u64 + 1)), ("prose", prose(*size)), ("zeros", vec![0; *size])]
        {
            archive = archive.file(&format!("{kind}-{size}"), &content);
            contents.push((format!("{kind}-{size}"), content));
        }
    }
    let unpacked: usize = contents.iter().map(|(_, content)| content.len()).sum();
    let image = archive.converted();
    assert_eq!(image.layer.unpacked_bytes, unpacked as u64);
    assert_eq!(image.layer.entries, contents.len() as u64);
    let seen = image.seen();
    for (name, content) in contents {
        assert!(seen[name.as_bytes()].content == content, "{name} came back different");
    }
}

#[test]
fn the_hash_tree_is_that_of_the_file_system() {
    for archive in [archive(), archive().file("a", &noise(3 << 20, 9)).dir("b")] {
        let image = archive.converted();
        let bytes = image.bytes();
        let (data, tree) = bytes.split_at(image.layer.file_system_bytes as usize);
        assert_eq!(image.layer.verity.hash_offset, data.len() as u64);
        assert_eq!(image.layer.verity.data_blocks * 4096, data.len() as u64);
        let mut expected = evidence::verity::Tree::new(b"");
        expected.update(data);
        let expected = expected.finish().unwrap();
        assert_eq!(image.layer.verity.root, expected.root);
        assert_eq!(tree, expected.tree().flatten().copied().collect::<Vec<u8>>());
        assert_eq!(image.layer.verity.root_hex().len(), 64);
    }
}

#[test]
fn the_same_layer_gives_the_same_bytes() {
    let archive =
        archive().dir("d").file("d/a", &prose(5 << 20)).file("d/b", &noise(900_000, 4)).hard_link("c", "d/a");
    let first = archive.clone().converted();
    for _ in 0..8 {
        assert!(archive.clone().converted().bytes() == first.bytes());
    }
    // What stood in the file before doesn't matter.
    let mut used = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut used, &noise(20 << 20, 3)).unwrap();
    let layer =
        image::layer::convert(archive.end().as_slice(), &mut used, &image::layer::Limits::default()).unwrap();
    assert!(Image { file: used, layer }.bytes() == first.bytes());
    // Compressors of another version would change every layer's root: this one is known.
    assert_eq!(
        first.layer.verity.root_hex(),
        "ebdc5bfc6c165dae25fa87dd201bfd0275f7639878d5ac4ee7a88ca252a2df52"
    );
}
