//! A machine whose PID 1 is a script in busybox, which has the channel as its standard input and output.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hypercore::driver::qemu::Qemu;
use hypercore::driver::{Accelerator, Body, Class, DiskRates, Machine, Virtual};
use hypercore::initramfs;
use hypercore::kernel::{self, Kernel, KernelStore};

/// The kernels that tests share: fetched once, kept in the target folder.
fn kernels() -> PathBuf {
    let shared = std::env::var_os("VIMANA_TEST_KERNEL_HOME").map(PathBuf::from);
    shared.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("test-home/kernels"))
}

fn kernel() -> Result<Kernel, String> {
    let store = KernelStore::open(&kernels()).map_err(|error| error.to_string())?;
    if let Some(kernel) = store.newest().map_err(|error| error.to_string())? {
        return Ok(kernel);
    }
    kernel::fetch(&store, &mut |_| {}).map_err(|error| format!("no kernel: {error}"))
}

/// The machine, where this one can emulate it; otherwise what lacks. The script finds `/busybox`, and the modules with
/// those that they need in `/modules`, in the order of `/modules/load`.
pub(crate) fn machine(folder: &Path, modules: &[&str], script: &str) -> Result<Machine, String> {
    if Qemu::find().program().is_none() {
        return Err("qemu-system-x86_64 isn't installed".into());
    }
    std::fs::copy("/bin/busybox", folder.join("busybox"))
        .map_err(|error| format!("/bin/busybox: {error}"))?;
    let kernel = kernel()?;
    let read = |path: PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())
    };
    let modules = kernel.modules_for(modules).map_err(|error| error.to_string())?;
    let modules: Vec<(String, Vec<u8>)> = modules.into_iter().map(read).collect();
    let mut archive = initramfs::build(script.as_bytes(), &modules).unwrap();
    // A second archive may follow the first: the program that the script runs.
    let mut cpio = Command::new("cpio");
    cpio.args(["-o", "-H", "newc", "--quiet"]).current_dir(folder);
    let mut cpio = cpio
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cpio: {error}"))?;
    cpio.stdin.take().unwrap().write_all(b"busybox\n").unwrap();
    archive.extend(cpio.wait_with_output().unwrap().stdout);
    let initramfs = folder.join("initramfs");
    std::fs::write(&initramfs, archive).unwrap();
    Ok(Machine {
        name: "test".into(),
        cpu_milli: 1000,
        memory_mib: 128,
        class: Class::default(),
        network: None,
        body: Body::Virtual(Virtual {
            accelerator: Accelerator::Tcg,
            kernel: kernel.image,
            initramfs,
            command_line: Vec::new(),
            disks: Vec::new(),
            rates: DiskRates::default(),
            profile: false,
            console: false,
            cache: None,
            folder: None,
        }),
    })
}
