//! Attacks at the level of messages: a guest that sends what no kernel would.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::protocol::op;
use super::*;

/// A guest's kernel, or something that pretends to be one.
struct Guest {
    folder: Folder,
    reply: Vec<u8>,
}

type Answer = Result<Vec<u8>, i32>;

impl Guest {
    fn of(path: &Path, readonly: bool) -> Self {
        Self { folder: Folder::open(path, readonly).unwrap(), reply: Vec::new() }
    }

    fn ask(&mut self, opcode: u32, node: u64, body: &[&[u8]]) -> Answer {
        let request = request(opcode, node, &body.concat());
        assert_eq!(self.folder.answer(&request, &mut self.reply), Ok(Reply::Send));
        let error = i32::from_ne_bytes(self.reply[4..8].try_into().unwrap());
        assert_eq!(u32::from_ne_bytes(self.reply[..4].try_into().unwrap()) as usize, self.reply.len());
        assert_eq!(u64::from_ne_bytes(self.reply[8..16].try_into().unwrap()), 77);
        if error == 0 { Ok(self.reply[16..].to_vec()) } else { Err(-error) }
    }

    fn look_up(&mut self, parent: u64, name: &str) -> Result<u64, i32> {
        let entry = self.ask(op::LOOKUP, parent, &[name.as_bytes(), b"\0"])?;
        match u64_at(&entry, 0) {
            0 => Err(libc::ENOENT),
            node => Ok(node),
        }
    }

    fn open(&mut self, node: u64, flags: i32) -> Result<u64, i32> {
        let flags = flags.cast_unsigned();
        self.ask(op::OPEN, node, &[&flags.to_ne_bytes(), &[0; 4]]).map(|opened| u64_at(&opened, 0))
    }

    fn create(&mut self, parent: u64, name: &str, mode: u32) -> Result<(u64, u64), i32> {
        let flags = libc::O_RDWR.cast_unsigned();
        let fields = [&flags.to_ne_bytes()[..], &mode.to_ne_bytes(), &[0; 8], name.as_bytes(), b"\0"];
        self.ask(op::CREATE, parent, &fields).map(|made| (u64_at(&made, 0), u64_at(&made, 128)))
    }

    fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Answer {
        let fields = [&handle.to_ne_bytes()[..], &offset.to_ne_bytes(), &size.to_ne_bytes(), &[0; 20]];
        self.ask(op::READ, node, &fields)
    }

    fn write(&mut self, node: u64, handle: u64, offset: u64, data: &[u8]) -> Answer {
        self.write_with(node, handle, offset, data, 0, 0)
    }

    fn write_with(&mut self, node: u64, fh: u64, offset: u64, data: &[u8], kind: u32, flags: i32) -> Answer {
        let size = u32::try_from(data.len()).unwrap();
        let flags = flags.cast_unsigned().to_ne_bytes();
        let head = [&fh.to_ne_bytes()[..], &offset.to_ne_bytes(), &size.to_ne_bytes(), &kind.to_ne_bytes()];
        self.ask(op::WRITE, node, &[&head.concat(), &[0; 8], &flags, &[0; 4], data])
    }

    fn set_mode(&mut self, node: u64, mode: u32) -> Answer {
        let valid = 1_u32.to_ne_bytes();
        self.ask(op::SETATTR, node, &[&valid, &[0; 64], &mode.to_ne_bytes(), &[0; 16]])
    }
}

fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(40 + body.len()).unwrap();
    let mut request = Vec::new();
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&opcode.to_ne_bytes());
    request.extend_from_slice(&77_u64.to_ne_bytes());
    request.extend_from_slice(&node.to_ne_bytes());
    request.extend_from_slice(&[0; 16]);
    request.extend_from_slice(body);
    request
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// A folder to give away beside one that nobody was given.
fn inside_and_outside() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let (inside, outside) = (top.path().join("inside"), top.path().join("outside"));
    for folder in [&inside, &outside] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(outside.join("secret"), "secret").unwrap();
    (top, inside, outside)
}

#[test]
fn names_that_could_leave_the_folder_are_refused() {
    let (_top, inside, _) = inside_and_outside();
    let mut guest = Guest::of(&inside, false);
    for name in ["..", ".", "", "/", "../outside", "a/../..", "/etc/passwd", "a/b"] {
        assert_eq!(guest.look_up(1, name), Err(libc::EINVAL), "{name}");
        assert_eq!(guest.create(1, name, 0o644), Err(libc::EINVAL), "{name}");
        let name = [name.as_bytes(), b"\0"].concat();
        let target = [&name[..], b"target\0"].concat();
        for (opcode, body) in [
            (op::UNLINK, name.clone()),
            (op::RMDIR, name.clone()),
            (op::MKDIR, [&[0xff, 1, 0, 0, 0, 0, 0, 0], &name[..]].concat()),
            (op::SYMLINK, target),
            (op::RENAME, [&1_u64.to_ne_bytes()[..], b"ok\0", &name].concat()),
            (op::RENAME, [&1_u64.to_ne_bytes()[..], &name, b"ok\0"].concat()),
            (op::LINK, [&1_u64.to_ne_bytes()[..], &name].concat()),
        ] {
            assert_eq!(guest.ask(opcode, 1, &[&body]), Err(libc::EINVAL));
        }
    }
    assert_eq!(guest.look_up(1, &"n".repeat(256)), Err(libc::ENAMETOOLONG));
    assert_eq!(guest.look_up(1, &"n".repeat(255)), Err(libc::ENOENT));
}

#[test]
fn a_message_that_is_no_request_is_a_violation() {
    let (_top, inside, _) = inside_and_outside();
    let mut folder = Folder::open(&inside, false).unwrap();
    let mut reply = Vec::new();
    for bytes in [0, 1, 39] {
        assert_eq!(folder.answer(&vec![0; bytes], &mut reply), Err(FuseViolation::Truncated { bytes }));
    }
    let mut longer = request(op::STATFS, 1, b"");
    longer.push(0);
    assert_eq!(folder.answer(&longer, &mut reply), Err(FuseViolation::Length { stated: 40, bytes: 41 }));
    let huge = vec![0; protocol::MAX_REQUEST + 1];
    assert_eq!(folder.answer(&huge, &mut reply), Err(FuseViolation::TooLong { bytes: huge.len() }));
}

#[test]
fn bodies_that_do_not_fit_and_unknown_opcodes_are_answered_as_errors() {
    let (_top, inside, _) = inside_and_outside();
    let mut guest = Guest::of(&inside, false);
    assert_eq!(guest.ask(9999, 1, &[]), Err(libc::ENOSYS));
    assert_eq!(guest.ask(op::LOOKUP, 1, &[b"no terminator"]), Err(libc::EINVAL));
    assert_eq!(guest.ask(op::LOOKUP, 1, &[b"two\0names\0"]), Err(libc::EINVAL));
    assert_eq!(guest.ask(op::GETATTR, 1, &[b"short"]), Err(libc::EINVAL));
    assert_eq!(guest.ask(op::STATFS, 1, &[b"more"]), Err(libc::EINVAL));
    let (node, handle) = guest.create(1, "file", 0o644).unwrap();
    assert_eq!(guest.read(node, handle, 0, u32::MAX), Err(libc::EINVAL));
    assert_eq!(guest.read(node, handle, u64::MAX, 1), Err(libc::EINVAL));
    assert_eq!(guest.write(node, handle, u64::MAX, b"x"), Err(libc::EINVAL));
}

#[test]
fn nodes_and_handles_that_were_never_given_are_refused() {
    let (_top, inside, _) = inside_and_outside();
    let mut guest = Guest::of(&inside, false);
    let (node, handle) = guest.create(1, "file", 0o644).unwrap();
    for stale in [0, node + 1, u64::MAX] {
        assert_eq!(guest.look_up(stale, "file"), Err(libc::ESTALE));
        assert_eq!(guest.open(stale, libc::O_RDONLY), Err(libc::ESTALE));
        assert_eq!(guest.read(node, stale, 0, 1), Err(libc::EBADF));
    }
    assert_eq!(guest.read(1, handle, 0, 1), Err(libc::EBADF));
    let mut reply = vec![1];
    let forget = request(op::FORGET, node, &1_u64.to_ne_bytes());
    assert_eq!(guest.folder.answer(&forget, &mut reply), Ok(Reply::Nothing));
    assert_eq!(guest.read(node, handle, 0, 1), Ok(vec![]));
    guest.ask(op::RELEASE, node, &[&handle.to_ne_bytes(), &[0; 16]]).unwrap();
    assert_eq!(guest.open(node, libc::O_RDONLY), Err(libc::ESTALE));
    assert_eq!(guest.read(node, handle, 0, 1), Err(libc::EBADF));
    for nonsense in [request(op::FORGET, 1, &[0xff; 8]), request(op::BATCH_FORGET, 1, &[0xff; 24])] {
        assert_eq!(guest.folder.answer(&nonsense, &mut reply), Ok(Reply::Nothing));
    }
    assert!(guest.look_up(1, "file").is_ok(), "the root is never forgotten");
}

#[test]
fn symbolic_links_are_given_as_text_and_never_followed() {
    let (_top, inside, outside) = inside_and_outside();
    symlink(&outside, inside.join("link")).unwrap();
    symlink(outside.join("secret"), inside.join("file")).unwrap();
    let mut guest = Guest::of(&inside, false);
    let link = guest.look_up(1, "link").unwrap();
    assert_eq!(guest.ask(op::READLINK, link, &[]).unwrap(), outside.as_os_str().as_encoded_bytes());
    assert_eq!(guest.look_up(link, "secret"), Err(libc::ENOTDIR));
    assert_eq!(guest.create(link, "new", 0o644), Err(libc::ENOTDIR));
    assert_eq!(guest.ask(op::OPENDIR, link, &[&[0; 8]]), Err(libc::ENOTDIR));
    let file = guest.look_up(1, "file").unwrap();
    assert_eq!(guest.open(file, libc::O_RDWR), Err(libc::ELOOP));
    assert_eq!(guest.set_mode(file, 0o777), Err(libc::EOPNOTSUPP));
    // CREATE over a link that exists neither follows nor replaces it.
    assert_eq!(guest.create(1, "file", 0o644), Err(libc::ELOOP));
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
}

#[test]
fn swapping_a_directory_for_a_link_while_it_is_used_leads_nowhere() {
    let (_top, inside, outside) = inside_and_outside();
    fs::create_dir(inside.join("dir")).unwrap();
    fs::write(inside.join("dir/secret"), "inside").unwrap();
    symlink(&outside, inside.join("link")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (dir, link) = (inside.join("dir"), inside.join("link"));
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let mut guest = Guest::of(&inside, false);
        let until = Instant::now() + Duration::from_millis(700);
        let mut read = 0;
        while Instant::now() < until {
            let Ok(dir) = guest.look_up(1, "dir") else {
                continue;
            };
            if let Ok(file) = guest.look_up(dir, "secret") {
                let handle = guest.open(file, libc::O_RDONLY).unwrap();
                assert_eq!(guest.read(file, handle, 0, 64).unwrap(), b"inside");
                guest.ask(op::RELEASE, file, &[&handle.to_ne_bytes(), &[0; 16]]).unwrap();
                read += 1;
            }
            if let Ok((node, handle)) = guest.create(dir, "planted", 0o644) {
                guest.ask(op::RELEASE, node, &[&handle.to_ne_bytes(), &[0; 16]]).unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(read > 0, "the race was never won by the directory");
    });
    let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["secret"]);
}

#[test]
fn fifos_and_sockets_are_shown_but_never_opened() {
    let (_top, inside, _) = inside_and_outside();
    let mut guest = Guest::of(&inside, false);
    for (name, kind) in [("fifo", libc::S_IFIFO), ("socket", libc::S_IFSOCK)] {
        let mode = (kind | 0o644).to_ne_bytes();
        guest.ask(op::MKNOD, 1, &[&mode, &[0; 12], name.as_bytes(), b"\0"]).unwrap();
        let node = guest.look_up(1, name).unwrap();
        for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
            assert_eq!(guest.open(node, flags), Err(libc::EPERM));
        }
        assert_eq!(guest.create(1, name, 0o644), Err(libc::EPERM));
    }
    for kind in [libc::S_IFCHR, libc::S_IFBLK] {
        let mode = (kind | 0o666).to_ne_bytes();
        let made = guest.ask(op::MKNOD, 1, &[&mode, &[1, 3, 0, 0], &[0; 8], b"null\0"]);
        assert_eq!(made, Err(libc::EPERM));
    }
}

#[test]
fn devices_of_the_host_are_never_opened_and_procfs_is_refused() {
    let mut guest = Guest::of(Path::new("/dev"), false);
    let node = guest.look_up(1, "null").unwrap();
    assert_eq!(guest.open(node, libc::O_RDWR), Err(libc::EPERM));
    assert!(matches!(Folder::open(Path::new("/proc/self"), true), Err(OpenFolderError::Processes { .. })));
    assert!(matches!(Folder::open(Path::new("/dev/null"), true), Err(OpenFolderError::Kind { .. })));
    let mut root = Guest::of(Path::new("/"), true);
    assert_eq!(root.look_up(1, "proc"), Err(libc::EACCES));
}

#[test]
fn set_user_id_never_reaches_the_host() {
    let (_top, inside, _) = inside_and_outside();
    let mode = |name: &str| fs::metadata(inside.join(name)).unwrap().permissions().mode() & 0o7777;
    let mut guest = Guest::of(&inside, false);
    let (node, handle) = guest.create(1, "made", 0o6755).unwrap();
    assert_eq!(mode("made"), 0o755);
    guest.set_mode(node, 0o6777).unwrap();
    assert_eq!(mode("made"), 0o777);
    fs::set_permissions(inside.join("made"), fs::Permissions::from_mode(0o6711)).unwrap();
    guest.write(node, handle, 0, b"code").unwrap();
    assert_eq!(mode("made"), 0o711);
    fs::set_permissions(inside.join("made"), fs::Permissions::from_mode(0o4711)).unwrap();
    guest.open(node, libc::O_WRONLY).unwrap();
    assert_eq!(mode("made"), 0o711);
}

#[test]
fn a_read_only_folder_is_changed_by_no_request() {
    let (_top, inside, _) = inside_and_outside();
    fs::write(inside.join("file"), "content").unwrap();
    let mut guest = Guest::of(&inside, true);
    let node = guest.look_up(1, "file").unwrap();
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_TRUNC, libc::O_RDWR | libc::O_APPEND] {
        assert_eq!(guest.open(node, flags), Err(libc::EROFS));
    }
    assert_eq!(guest.create(1, "new", 0o644), Err(libc::EROFS));
    assert_eq!(guest.set_mode(node, 0), Err(libc::EROFS));
    assert_eq!(guest.ask(op::UNLINK, 1, &[b"file\0"]), Err(libc::EROFS));
    assert_eq!(guest.ask(op::SETXATTR, node, &[&[1, 0, 0, 0, 0, 0, 0, 0], b"user.a\0x"]), Err(libc::EROFS));
    let handle = guest.open(node, libc::O_RDONLY).unwrap();
    assert_eq!(guest.write(node, handle, 0, b"x"), Err(libc::EROFS));
    assert_eq!(guest.read(node, handle, 0, 100).unwrap(), b"content");
}

#[test]
fn a_handle_serves_only_what_it_was_opened_for() {
    let (_top, inside, _) = inside_and_outside();
    fs::write(inside.join("file"), "content").unwrap();
    let mut guest = Guest::of(&inside, false);
    let node = guest.look_up(1, "file").unwrap();
    let (reader, writer) =
        (guest.open(node, libc::O_RDONLY).unwrap(), guest.open(node, libc::O_WRONLY).unwrap());
    assert_eq!(guest.write(node, reader, 0, b"x"), Err(libc::EBADF));
    assert_eq!(guest.read(node, writer, 0, 1), Err(libc::EBADF));
    let directory = u64_at(&guest.ask(op::OPENDIR, 1, &[&[0; 8]]).unwrap(), 0);
    assert_eq!(guest.read(1, directory, 0, 1), Err(libc::EISDIR));
}

#[test]
fn an_append_goes_to_the_end_and_memory_written_back_goes_where_it_belongs() {
    let (_top, inside, _) = inside_and_outside();
    let mut guest = Guest::of(&inside, false);
    let (node, handle) = guest.create(1, "log", 0o644).unwrap();
    guest.write(node, handle, 0, b"0123456789").unwrap();
    guest.write_with(node, handle, 0, b"+", 0, libc::O_APPEND).unwrap();
    guest.write_with(node, handle, 0, b"m", 1, libc::O_APPEND).unwrap();
    assert_eq!(fs::read(inside.join("log")).unwrap(), b"m123456789+");
}

#[test]
fn more_nodes_than_descriptors_stay_usable() {
    let (_top, inside, _) = inside_and_outside();
    for number in 0..50 {
        fs::create_dir(inside.join(number.to_string())).unwrap();
        fs::write(inside.join(format!("{number}/file")), number.to_string()).unwrap();
    }
    let mut guest = Guest::of(&inside, false);
    guest.folder.nodes = {
        let root = guest.folder.nodes.open(nodes::ROOT).unwrap();
        let stat = fstat(&root).unwrap();
        Nodes::new(root, &stat, 10)
    };
    let known: Vec<u64> = (0..50)
        .map(|number| {
            let dir = guest.look_up(1, &number.to_string()).unwrap();
            guest.look_up(dir, "file").unwrap()
        })
        .collect();
    let (nodes, open) = guest.folder.nodes.count();
    assert_eq!(nodes, 101);
    assert!(open <= 11, "{open}");
    for (number, node) in known.iter().enumerate() {
        let handle = guest.open(*node, libc::O_RDONLY).unwrap();
        assert_eq!(guest.read(*node, handle, 0, 9).unwrap(), number.to_string().as_bytes());
        guest.ask(op::RELEASE, *node, &[&handle.to_ne_bytes(), &[0; 16]]).unwrap();
    }
    // Another file in the place of a closed one isn't taken for it.
    fs::rename(inside.join("1"), inside.join("old")).unwrap();
    fs::create_dir(inside.join("1")).unwrap();
    fs::write(inside.join("1/file"), "another").unwrap();
    for node in &known[2..] {
        guest.ask(op::GETATTR, *node, &[&[0; 16]]).unwrap();
    }
    assert_eq!(guest.open(known[1], libc::O_RDONLY), Err(libc::ESTALE));
}

#[test]
fn handles_and_files_in_use_are_bounded() {
    let (_top, inside, _) = inside_and_outside();
    let mut guest = Guest::of(&inside, false);
    guest.folder.handles = Handles::new(16);
    let (node, _) = guest.create(1, "file", 0o644).unwrap();
    let opened = (0..100).filter(|_| guest.open(node, libc::O_RDONLY).is_ok()).count();
    assert_eq!(opened, 15);
    assert_eq!(guest.open(node, libc::O_RDONLY), Err(libc::EMFILE));
    assert_eq!(guest.create(1, "another", 0o644), Err(libc::EMFILE));
    assert!(!inside.join("another").exists());
}

#[test]
fn mounting_again_begins_from_nothing() {
    let (_top, inside, _) = inside_and_outside();
    let mut guest = Guest::of(&inside, false);
    let (node, handle) = guest.create(1, "file", 0o644).unwrap();
    let mut init = [7_u32, 36, 131_072, u32::MAX].map(u32::to_ne_bytes).concat();
    init.resize(64, 0);
    let terms = guest.ask(op::INIT, 0, &[&init]).unwrap();
    assert_eq!(terms.len(), 64);
    assert_eq!(u32::from_ne_bytes(terms[20..24].try_into().unwrap()), 1024 * 1024);
    assert_eq!(guest.read(node, handle, 0, 1), Err(libc::EBADF));
    assert_eq!(guest.open(node, libc::O_RDONLY), Err(libc::ESTALE));
    assert_eq!(
        guest.ask(op::INIT, 0, &[&[6_u32, 0, 0, 0].map(u32::to_ne_bytes).concat()]),
        Err(libc::EPROTO)
    );
}

#[test]
fn only_attributes_of_users_are_served() {
    let (_top, inside, _) = inside_and_outside();
    let mut guest = Guest::of(&inside, false);
    let (node, _) = guest.create(1, "file", 0o755).unwrap();
    for name in ["security.capability", "trusted.overlay.opaque", "system.posix_acl_access", "user"] {
        let head = [1, 0, 0, 0, 0, 0, 0, 0];
        let value = [name.as_bytes(), b"\0x"].concat();
        assert_eq!(guest.ask(op::SETXATTR, node, &[&head, &value]), Err(libc::EOPNOTSUPP), "{name}");
    }
}

/// A request that has the right form more often than not.
fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        "[ab]".prop_map(String::into_bytes),
        Just(b"..".to_vec()),
        Just(b"link".to_vec()),
        Just(b"../outside/secret".to_vec()),
        prop::collection::vec(any::<u8>(), 0..300),
    ];
    let number = prop_oneof![0_u64..6, any::<u64>()];
    let body = (prop::collection::vec(number, 0..12), prop::collection::vec(name, 0..3), 0_usize..4)
        .prop_map(|(numbers, names, cut)| {
            let mut body: Vec<u8> = numbers.into_iter().flat_map(u64::to_ne_bytes).collect();
            body.truncate(body.len().saturating_sub(cut * 4));
            for name in names {
                body.extend_from_slice(&name);
                body.push(0);
            }
            body
        });
    prop_oneof![
        8 => (0_u32..52, 0_u64..8, body).prop_map(|(opcode, node, body)| request(opcode, node, &body)),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_a_guest_sends_the_server_stands_and_the_outside_stays(
        requests in prop::collection::vec(any_request(), 1..60)
    ) {
        let (top, inside, outside) = inside_and_outside();
        symlink(&outside, inside.join("link")).unwrap();
        fs::write(inside.join("a"), "a").unwrap();
        fs::create_dir(inside.join("b")).unwrap();
        let before = fs::metadata(&outside).unwrap();
        let mut folder = Folder::open(&inside, false).unwrap();
        let mut reply = Vec::new();
        for request in &requests {
            // A file as large as the guest names it costs nothing on the host; reading it back is bounded.
            match folder.answer(request, &mut reply) {
                Ok(Reply::Send) => prop_assert!(reply.len() >= 16 && reply.len() <= protocol::MAX_REQUEST),
                Ok(Reply::Nothing) | Err(_) => prop_assert!(reply.is_empty()),
            }
        }
        let after = fs::metadata(&outside).unwrap();
        prop_assert_eq!((before.mtime_nsec(), before.mode()), (after.mtime_nsec(), after.mode()));
        prop_assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
        prop_assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        prop_assert_eq!(fs::read_dir(top.path()).unwrap().count(), 2);
    }

    #[test]
    fn any_bytes_are_a_request_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let _ = protocol::header(&bytes);
        for opcode in 0..60 {
            let _ = protocol::operation(opcode, &bytes);
        }
    }
}
