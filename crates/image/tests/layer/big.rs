//! Many entries, big folders, huge files.

use std::fmt::Write as _;
use std::io::Read;

use image::layer::reader::Reader;
use image::layer::{Limits, convert};

use crate::archive::{Archive, Header, Image};

#[test]
fn more_inodes_than_sixteen_bits_count_come_back() {
    let mut archive = Archive::default();
    let mut expected = Vec::new();
    for folder in 0..70 {
        let mut name = String::new();
        write!(name, "folder-{folder:02}").unwrap();
        expected.push(name.clone());
        archive = archive.dir(&name);
        for file in 0..1000 {
            let path = format!("{name}/file-{file:03}");
            archive = archive.file(&path, if file % 10 == 0 { path.as_bytes() } else { b"" });
            expected.push(path);
        }
    }
    // Far from its inode's number, so that the listing needs another run.
    archive = archive.hard_link("zz", "folder-00/file-000").hard_link("aa", "folder-69/file-990");
    expected.insert(0, "aa".into());
    expected.push("zz".into());
    let image = archive.converted();
    assert!(image.paths() == expected);
    assert_eq!(image.content("zz"), b"folder-00/file-000");
    assert_eq!(image.content("aa"), b"folder-69/file-990");
    unsquashed(&image, 70_073);
}

#[test]
fn a_folder_of_thirty_thousand_names_comes_back() {
    let mut archive = Archive::default();
    for file in 0..30_000 {
        archive = archive.file(&format!("d/a-name-of-some-length-{file:06}"), b"");
    }
    let image = archive.converted();
    let paths = image.paths();
    assert_eq!(paths.len(), 30_001);
    assert!(paths.is_sorted());
    unsquashed(&image, 30_002);
}

/// Has `unsquashfs` list the image, where it is installed.
fn unsquashed(image: &Image, lines: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    std::fs::write(&path, image.bytes()).unwrap();
    match std::process::Command::new("unsquashfs").arg("-ls").arg(&path).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let names =
                output.stdout.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"squashfs-root"));
            assert_eq!(names.count(), lines);
        }
        Err(error) => crate::skipped("listing a big image with unsquashfs", &error.to_string()),
    }
}

#[test]
fn a_file_of_more_than_four_gibibytes_comes_back() {
    const SIZE: u64 = (4 << 30) + 312_345;
    let mark = b"here is something at last";
    let before = (4 << 30) + 300_000_u64;
    let header = Header { size: SIZE, ..Header::new(b'0', b"huge") }.encode();
    let after = SIZE.next_multiple_of(512) - before - mark.len() as u64 + 1024;
    let tar = header.as_slice().chain(std::io::repeat(0).take(before)).chain(mark.as_slice());
    let mut tar = tar.chain(std::io::repeat(0).take(after));
    let mut file = tempfile::tempfile().unwrap();
    let layer = convert(&mut tar, &mut file, &Limits::default()).unwrap();
    assert_eq!(layer.unpacked_bytes, SIZE);
    assert!(layer.total_bytes < 1 << 20, "{layer:?}");
    let reader = Reader::open(&file).unwrap();
    let entry = reader.entries().nth(1).unwrap().unwrap();
    assert_eq!(entry.size(), SIZE);
    let mut content = reader.content(&entry).unwrap();
    let (mut buffer, zeros) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let (mut at, mut found) = (0, None);
    loop {
        let count = content.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        if buffer[..count] != zeros[..count] {
            let place = buffer.iter().position(|byte| *byte != 0).unwrap();
            assert!(buffer[place..count].starts_with(mark) && found.is_none());
            found = Some(at + place as u64);
        }
        at += count as u64;
    }
    assert_eq!((at, found), (SIZE, Some(before)));
}

#[test]
fn sixty_five_thousand_owners_fit_and_no_more() {
    let archive = |owners: u64| {
        (0..owners).fold(Archive::default(), |archive, uid| {
            archive.raw(Header { uid, ..Header::new(b'0', format!("{uid}").as_bytes()) }, b"")
        })
    };
    assert_eq!(archive(65_535).converted().entry("65534").uid, 65_534);
    let error = archive(65_536).refused();
    assert!(error.to_string().contains("65535"), "{error}");
}
