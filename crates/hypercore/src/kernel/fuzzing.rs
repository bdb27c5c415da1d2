//! What the fuzz target for kernels does with any bytes; a test does the same with real inputs that were changed.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use super::{image, module, package};

/// A package, a kernel's image or a module.
pub fn kernel(bytes: &[u8]) {
    if let Some(release) = image::release(bytes) {
        assert!(!release.contains('/') && !release.is_empty());
    }
    let _ = image::uncompressed(bytes);
    for name in ["a.ko", "a.ko.xz", "a.ko.zst", "a.ko.gz"] {
        if let Ok(plain) = module::plain(name, bytes.to_vec()) {
            let _ = module::needs(&plain);
        }
    }
    let Ok(folder) = tempfile::tempdir() else { return };
    let into = folder.path().join("into");
    let memory = rustix::fs::memfd_create("package", rustix::fs::MemfdFlags::CLOEXEC).map(File::from);
    if let (Ok(()), Ok(mut file)) = (fs::create_dir(&into), memory)
        && file.write_all(bytes).is_ok()
    {
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let _ = package::unpack(&path, &into);
        let beside = fs::read_dir(folder.path()).map(Iterator::count);
        assert_eq!(beside.ok(), Some(1), "nothing leaves the folder");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{image, module, package};

    use crate::fuzzing::{FOLDER, mutated};

    #[test]
    fn kernels_stand_any_change() {
        let elf = image::tests::an_elf(18);
        let lz4 = lz4_flex::block::compress(&elf);
        let legacy = [&0x184c_2102_u32.to_le_bytes()[..], &(lz4.len() as u32).to_le_bytes(), &lz4].concat();
        let seeds = [
            image::tests::a_bzimage(&legacy, elf.len()),
            elf,
            module::tests::a_module("name=a\0depends=b,c\0"),
            package::tests::a_whole_package(),
        ];
        mutated::stands(FOLDER, "kernel", &seeds, super::kernel);
    }
}
