//! The folder server under a real client: this machine's own kernel mounts it and ordinary programs use it.
//!
//! Each test mounts in a mount namespace of its own thread, so that nothing is left, however it ends.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use node::folder::{Folder, Reply};
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

fn skipped(test: &str, reason: &str) {
    eprintln!("SKIPPED: {test}: {reason}");
}

/// A folder of the host, and the same folder as a guest sees it.
struct Mounted {
    _top: tempfile::TempDir,
    host: PathBuf,
    guest: PathBuf,
}

/// Mounts an empty folder, or says why that can't be done here.
fn mounted(test: &str, readonly: bool) -> Option<Mounted> {
    mounted_with(test, readonly, |host| {
        fs::create_dir(host).unwrap();
        fs::set_permissions(host, fs::Permissions::from_mode(0o777)).unwrap();
    })
}

fn mounted_with(test: &str, readonly: bool, prepare: impl FnOnce(&Path)) -> Option<Mounted> {
    if !rustix::process::geteuid().is_root() {
        skipped(test, "only root can mount");
        return None;
    }
    let device = match rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(device) => device,
        Err(errno) => {
            skipped(test, &format!("/dev/fuse can't be opened: {errno}"));
            return None;
        }
    };
    // SAFETY: a new mount namespace, and the working directory of its own that it implies, change nothing that other
    // threads of this process rely on.
    #[allow(unsafe_code)]
    let own = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) };
    if let Err(errno) = own {
        skipped(test, &format!("no mount namespace can be made: {errno}"));
        return None;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let top = tempfile::tempdir().unwrap();
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (host, guest) = (top.path().join("host"), top.path().join("guest"));
    prepare(&host);
    let folder = Folder::open(&host, readonly).unwrap();
    let kind = if folder.is_file() {
        File::create(&guest).unwrap();
        "100000"
    } else {
        fs::create_dir(&guest).unwrap();
        "40000"
    };
    let options = format!(
        "fd={},rootmode={kind},user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    let options = std::ffi::CString::new(options).unwrap();
    mount("vimana", &guest, "fuse", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str()).unwrap();
    std::thread::spawn(move || pump(&device, folder));
    Some(Mounted { _top: top, host, guest })
}

/// What PID 1 of a guest and the keeper do, without the channel between them. Ends with the mount.
fn pump(device: &OwnedFd, mut folder: Folder) {
    let (mut request, mut reply) = (vec![0; 1024 * 1024 + 4096], Vec::new());
    loop {
        match rustix::io::read(device, &mut request[..]) {
            Ok(bytes) => match folder.answer(&request[..bytes], &mut reply).unwrap() {
                // A request that was interrupted meanwhile is answered by ENOENT.
                Reply::Send => drop(rustix::io::write(device, &reply)),
                Reply::Nothing => {}
            },
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN | rustix::io::Errno::NOENT) => {}
            Err(_) => return,
        }
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..bytes).map(step).collect()
}

#[test]
fn ten_megabytes_come_back_as_they_were_written_on_either_side() {
    let Some(folder) = mounted("ten_megabytes_come_back_as_they_were_written_on_either_side", false) else {
        return;
    };
    let content = noise(10_000_001);
    fs::write(folder.guest.join("a"), &content).unwrap();
    assert!(fs::read(folder.host.join("a")).unwrap() == content);
    assert!(fs::read(folder.guest.join("a")).unwrap() == content);
    fs::copy(folder.guest.join("a"), folder.guest.join("b")).unwrap();
    assert!(fs::read(folder.guest.join("b")).unwrap() == content);
    let file = File::open(folder.guest.join("b")).unwrap();
    let mut middle = [0; 1000];
    file.read_exact_at(&mut middle, 4_999_999).unwrap();
    assert_eq!(middle, content[4_999_999..5_000_999]);
    file.sync_all().unwrap();
}

#[test]
fn renames_links_and_symbolic_links_do_what_they_do_on_the_host() {
    let Some(folder) = mounted("renames_links_and_symbolic_links_do_what_they_do_on_the_host", false) else {
        return;
    };
    let (host, guest) = (&folder.host, &folder.guest);
    fs::write(guest.join("a"), "a").unwrap();
    fs::create_dir_all(guest.join("one/two")).unwrap();
    fs::rename(guest.join("a"), guest.join("one/two/b")).unwrap();
    assert_eq!(fs::read(host.join("one/two/b")).unwrap(), b"a");
    fs::hard_link(guest.join("one/two/b"), guest.join("c")).unwrap();
    assert_eq!(fs::metadata(guest.join("c")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(guest.join("c")).unwrap().ino(), fs::metadata(host.join("c")).unwrap().ino());
    symlink("one/two/b", guest.join("link")).unwrap();
    assert_eq!(fs::read_link(host.join("link")).unwrap(), Path::new("one/two/b"));
    assert_eq!(fs::read(guest.join("link")).unwrap(), b"a");
    symlink("/nowhere", guest.join("dangling")).unwrap();
    assert!(fs::metadata(guest.join("dangling")).is_err());
    fs::hard_link(guest.join("link"), guest.join("same link")).unwrap();
    assert_eq!(fs::read_link(host.join("same link")).unwrap(), Path::new("one/two/b"));

    use rustix::fs::{CWD, RenameFlags, renameat_with};
    fs::write(guest.join("x"), "x").unwrap();
    let (x, c) = (guest.join("x"), guest.join("c"));
    let refused = renameat_with(CWD, &x, CWD, &c, RenameFlags::NOREPLACE);
    assert_eq!(refused, Err(rustix::io::Errno::EXIST));
    renameat_with(CWD, &x, CWD, &c, RenameFlags::EXCHANGE).unwrap();
    assert_eq!((fs::read(&x).unwrap(), fs::read(&c).unwrap()), (b"a".to_vec(), b"x".to_vec()));
    fs::rename(&x, &c).unwrap();
    assert_eq!(fs::read(host.join("c")).unwrap(), b"a");
    assert!(fs::remove_dir(guest.join("one")).is_err());
    fs::remove_dir_all(guest.join("one")).unwrap();
    assert!(!host.join("one").exists());
}

#[test]
fn modes_owners_times_and_sizes_are_kept() {
    let Some(folder) = mounted("modes_owners_times_and_sizes_are_kept", false) else {
        return;
    };
    let (host, guest) = (folder.host.join("a"), folder.guest.join("a"));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&guest).unwrap();
    assert_eq!(fs::metadata(&host).unwrap().mode() & 0o7777, 0o600);
    fs::set_permissions(&guest, fs::Permissions::from_mode(0o4751)).unwrap();
    assert_eq!(fs::metadata(&host).unwrap().mode() & 0o7777, 0o751, "without set-user-ID");
    std::os::unix::fs::chown(&guest, Some(1234), Some(5678)).unwrap();
    let owner = fs::metadata(&host).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (1234, 5678));

    let file = OpenOptions::new().read(true).write(true).open(&guest).unwrap();
    file.set_len(100_000).unwrap();
    assert_eq!(fs::metadata(&host).unwrap().len(), 100_000);
    rustix::fs::ftruncate(&file, 10).unwrap();
    assert_eq!(fs::metadata(&guest).unwrap().len(), 10);
    OpenOptions::new().write(true).truncate(true).open(&guest).unwrap();
    assert_eq!(fs::metadata(&host).unwrap().len(), 0);

    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_times(fs::FileTimes::new().set_modified(then).set_accessed(then)).unwrap();
    assert_eq!(fs::metadata(&host).unwrap().modified().unwrap(), then);
    assert_eq!(fs::metadata(&guest).unwrap().modified().unwrap(), then);
    assert!(Command::new("touch").arg(&guest).status().unwrap().success());
    assert!(fs::metadata(&host).unwrap().modified().unwrap().elapsed().unwrap() < Duration::from_secs(60));
}

#[test]
fn another_user_of_the_guest_owns_what_it_makes_and_is_refused_what_it_may_not() {
    let test = "another_user_of_the_guest_owns_what_it_makes_and_is_refused_what_it_may_not";
    let Some(folder) = mounted(test, false) else {
        return;
    };
    fs::write(folder.guest.join("private"), "x").unwrap();
    fs::set_permissions(folder.guest.join("private"), fs::Permissions::from_mode(0o600)).unwrap();
    let script =
        "echo made > made && mkdir dir && ln -s made link && umask 027 && echo > masked && ! cat private";
    let as_user = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]).current_dir(&folder.guest).uid(1234).gid(5678).status().unwrap()
    };
    assert!(as_user(script).success());
    for name in ["made", "dir", "link", "masked"] {
        let made = fs::symlink_metadata(folder.host.join(name)).unwrap();
        assert_eq!((made.uid(), made.gid()), (1234, 5678), "{name}");
    }
    assert_eq!(fs::metadata(folder.host.join("masked")).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn five_thousand_entries_are_listed_once_each() {
    let Some(folder) = mounted("five_thousand_entries_are_listed_once_each", false) else {
        return;
    };
    let dir = folder.host.join("many");
    fs::create_dir(&dir).unwrap();
    let mut expected: Vec<String> = (0..5000).map(|n| format!("an entry with number {n}")).collect();
    expected.iter().for_each(|name| drop(File::create(dir.join(name)).unwrap()));
    expected.sort();
    for _ in 0..2 {
        let listing = fs::read_dir(folder.guest.join("many")).unwrap();
        let mut listed: Vec<String> = listing
            .map(|entry| {
                let entry = entry.unwrap();
                assert!(entry.metadata().unwrap().is_file());
                entry.file_name().into_string().unwrap()
            })
            .collect();
        listed.sort();
        assert_eq!(listed, expected);
    }
    for name in &expected {
        fs::remove_file(folder.guest.join("many").join(name)).unwrap();
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn holes_are_found_and_made_and_ranges_copied() {
    let Some(folder) = mounted("holes_are_found_and_made_and_ranges_copied", false) else {
        return;
    };
    let path = folder.guest.join("sparse");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all_at(b"data", 8 * 1024 * 1024).unwrap();
    use rustix::fs::{FallocateFlags, SeekFrom as Find};
    let host = File::open(folder.host.join("sparse")).unwrap();
    for find in [Find::Data(0), Find::Hole(0)] {
        assert_eq!(rustix::fs::seek(&file, find).unwrap(), rustix::fs::seek(&host, find).unwrap());
    }
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1024 * 1024).unwrap();
    file.write_all_at(b"front", 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 0, 4096).unwrap();
    let mut front = [1; 5];
    file.read_exact_at(&mut front, 0).unwrap();
    assert_eq!(front, [0; 5]);
    let copy = File::create(folder.guest.join("copy")).unwrap();
    let mut from = 8 * 1024 * 1024;
    assert_eq!(rustix::fs::copy_file_range(&file, Some(&mut from), &copy, Some(&mut 0), 100).unwrap(), 4);
    assert_eq!(fs::read(folder.host.join("copy")).unwrap(), b"data");
    let figures = rustix::fs::statvfs(&folder.guest).unwrap();
    let real = rustix::fs::statvfs(&folder.host).unwrap();
    assert_eq!((figures.f_blocks, figures.f_files), (real.f_blocks, real.f_files));
}

#[test]
fn appends_of_several_writers_lose_nothing() {
    let Some(folder) = mounted("appends_of_several_writers_lose_nothing", false) else {
        return;
    };
    let path = folder.guest.join("log");
    let on_host = folder.host.join("log");
    File::create(&path).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = if writer == 3 { &on_host } else { &path };
            scope.spawn(move || {
                let mut log = OpenOptions::new().append(true).open(path).unwrap();
                (0..200).for_each(|line| log.write_all(format!("{writer} {line}\n").as_bytes()).unwrap());
            });
        }
    });
    let log = fs::read_to_string(&on_host).unwrap();
    for writer in 0..4 {
        let prefix = format!("{writer} ");
        let lines: Vec<usize> =
            log.lines().filter_map(|line| line.strip_prefix(&prefix)).map(|n| n.parse().unwrap()).collect();
        assert!(lines.into_iter().eq(0..200), "writer {writer}");
    }
}

#[test]
fn a_removed_file_lives_as_long_as_it_is_open() {
    let Some(folder) = mounted("a_removed_file_lives_as_long_as_it_is_open", false) else {
        return;
    };
    let path = folder.guest.join("gone");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(b"still").unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!path.exists() && !folder.host.join("gone").exists());
    file.write_all(b" here").unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10);
    file.set_len(7).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still h");
}

#[test]
fn attributes_of_users_are_kept_and_others_refused() {
    let Some(folder) = mounted("attributes_of_users_are_kept_and_others_refused", false) else {
        return;
    };
    let (guest, host) = (folder.guest.join("a"), folder.host.join("a"));
    File::create(&guest).unwrap();
    if rustix::fs::setxattr(&host, "user.probe", b"1", XattrFlags::empty()).is_err() {
        return skipped("attributes_of_users_are_kept_and_others_refused", "the file system has none");
    }
    rustix::fs::setxattr(&guest, "user.colour", b"green", XattrFlags::CREATE).unwrap();
    let mut value = [0; 100];
    assert_eq!(rustix::fs::getxattr(&host, "user.colour", &mut value[..]).unwrap(), 5);
    assert_eq!(rustix::fs::getxattr(&guest, "user.colour", &mut value[..]).unwrap(), 5);
    assert_eq!(&value[..5], b"green");
    let again = rustix::fs::setxattr(&guest, "user.colour", b"red", XattrFlags::CREATE);
    assert_eq!(again, Err(rustix::io::Errno::EXIST));
    let length = rustix::fs::listxattr(&guest, &mut value[..]).unwrap();
    assert_eq!(String::from_utf8_lossy(&value[..length]).matches("user.").count(), 2);
    rustix::fs::removexattr(&guest, "user.colour").unwrap();
    assert!(rustix::fs::getxattr(&host, "user.colour", &mut value[..]).is_err());
    let capability = rustix::fs::setxattr(&guest, "security.capability", &[0; 20], XattrFlags::empty());
    assert!(capability.is_err());
}

#[test]
fn a_read_only_folder_refuses_every_change() {
    let Some(folder) = mounted("a_read_only_folder_refuses_every_change", true) else {
        return;
    };
    fs::write(folder.host.join("a"), "content").unwrap();
    assert_eq!(fs::read(folder.guest.join("a")).unwrap(), b"content");
    let refused = |outcome: std::io::Result<()>| {
        assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::EROFS));
    };
    refused(fs::write(folder.guest.join("a"), "other"));
    refused(fs::write(folder.guest.join("b"), "new"));
    refused(fs::create_dir(folder.guest.join("c")));
    refused(fs::remove_file(folder.guest.join("a")));
    refused(fs::rename(folder.guest.join("a"), folder.guest.join("d")));
    refused(fs::set_permissions(folder.guest.join("a"), fs::Permissions::from_mode(0o777)));
    assert_eq!(fs::read(folder.host.join("a")).unwrap(), b"content");
}

#[test]
fn an_edit_on_the_host_shows_at_the_next_opening_and_a_new_file_within_seconds() {
    let test = "an_edit_on_the_host_shows_at_the_next_opening_and_a_new_file_within_seconds";
    let Some(folder) = mounted(test, false) else {
        return;
    };
    let (host, guest) = (folder.host.join("a"), folder.guest.join("a"));
    fs::write(&host, "first").unwrap();
    assert_eq!(fs::read(&guest).unwrap(), b"first");
    fs::write(&host, "other").unwrap();
    assert_eq!(fs::read(&guest).unwrap(), b"other");
    // A file that has been quiet for long keeps its cache, and loses it by an edit.
    let file = File::options().write(true).open(&host).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(100)).unwrap();
    std::thread::sleep(Duration::from_millis(3100));
    for _ in 0..3 {
        assert_eq!(fs::read(&guest).unwrap(), b"other");
    }
    fs::write(&host, "third").unwrap();
    assert_eq!(fs::read(&guest).unwrap(), b"third");
    assert!(!folder.guest.join("new").exists());
    fs::write(folder.host.join("new"), "").unwrap();
    let shown = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        folder.guest.join("new").exists()
    });
    assert!(shown);
}

#[test]
fn a_single_file_is_mounted_over_a_file() {
    let test = "a_single_file_is_mounted_over_a_file";
    let Some(folder) = mounted_with(test, false, |host| fs::write(host, "configuration").unwrap()) else {
        return;
    };
    assert_eq!(fs::read(&folder.guest).unwrap(), b"configuration");
    fs::write(&folder.guest, "changed").unwrap();
    assert_eq!(fs::read(&folder.host).unwrap(), b"changed");
}

#[test]
fn ordinary_programs_copy_compare_run_and_remove_a_tree() {
    let Some(folder) = mounted("ordinary_programs_copy_compare_run_and_remove_a_tree", false) else {
        return;
    };
    let script = r#"
        mkdir -p src/deep/er src/empty
        for n in $(seq 200); do echo "line $n" > "src/deep/file $n"; done
        head -c 300000 /dev/zero > src/zeros; : > src/nothing; ln src/zeros src/hard; ln -s ../nothing src/deep/soft
        mkfifo src/fifo; chmod 705 src/empty; chmod 440 src/nothing
        printf '#!/bin/sh\nexit 7\n' > run; chmod +x run; code=0; ./run || code=$?; test $code = 7
        cp -a src copy; rm src/fifo copy/fifo
        diff -r --no-dereference src copy
        tar cf all.tar src; mkdir out; tar xf all.tar -C out
        diff -r --no-dereference src out/src
        test "$(find src | sort | md5sum)" = "$(cd out && find src | sort | md5sum)"
        rm -rf src copy out
    "#;
    let shell = Command::new("sh").args(["-ec", script]).current_dir(&folder.guest).output().unwrap();
    assert!(shell.status.success(), "{}", String::from_utf8_lossy(&shell.stderr));
    assert_eq!(fs::read_dir(&folder.host).unwrap().count(), 2);
}

#[test]
fn memory_mapped_from_a_file_is_written_back() {
    let Some(folder) = mounted("memory_mapped_from_a_file_is_written_back", false) else {
        return;
    };
    let path = folder.guest.join("mapped");
    fs::write(&path, vec![b'.'; 10_000]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    // SAFETY: the mapping is of a file that is 10000 bytes long and that nobody else changes, and it is used only here.
    #[allow(unsafe_code)]
    unsafe {
        let at = mmap(
            std::ptr::null_mut(),
            10_000,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &file,
            0,
        )
        .unwrap();
        at.cast::<u8>().add(9_000).write(b'!');
        munmap(at, 10_000).unwrap();
    }
    drop(file);
    let content = fs::read(folder.host.join("mapped")).unwrap();
    assert_eq!((content.len(), content[9_000]), (10_000, b'!'));
}
