//! Makes the probe's VM and runs it, with a deadline.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::guest::{ENTRY, FAULT, MEMORY, PORT, contents};
use super::{PATIENCE, Reason, Verdict};

/// How long a kicked vCPU may take to come back.
const GRACE: Duration = Duration::from_millis(250);
/// How many exits a guest that works makes: five reports and a halt.
const EXITS_MAX: usize = 64;

/// Runs the probe on an open `/dev/kvm`.
pub(super) fn run(device: OwnedFd) -> Verdict {
    let (said, answers) = mpsc::channel();
    let spawned = thread::Builder::new().name("kvm-probe".into()).spawn(move || {
        let verdict = block_kick().and_then(|()| guest(device)).unwrap_or_else(Verdict::Fails);
        // The receiver waits for longer than the guest may take.
        let _ = said.send(verdict);
    });
    let thread = match spawned {
        Ok(thread) => thread,
        Err(error) => return Verdict::Fails(setup("starting a thread")(error)),
    };
    if let Ok(verdict) = answers.recv_timeout(PATIENCE) {
        let _ = thread.join();
        return verdict;
    }
    // SAFETY: the thread isn't joined yet, so its handle is good.
    #[allow(unsafe_code)]
    unsafe {
        libc::pthread_kill(thread.as_pthread_t(), kick());
    }
    match answers.recv_timeout(GRACE) {
        Ok(verdict) => {
            let _ = thread.join();
            verdict
        }
        // The kernel itself doesn't give the thread back; it ends with this process.
        Err(_) => Verdict::Fails(Reason::Hang { stage: 0 }),
    }
}

fn setup<E: std::fmt::Display>(step: &'static str) -> impl Fn(E) -> Reason {
    move |error| Reason::Setup { step: step.into(), error: error.to_string() }
}

/// The signal that gets a vCPU out of the kernel.
fn kick() -> i32 {
    libc::SIGRTMIN()
}

/// Blocks the kick for this thread: it stays pending, and no handler of the program sees it.
fn block_kick() -> Result<(), Reason> {
    // SAFETY: the set is initialised by `sigemptyset` before it is read.
    #[allow(unsafe_code)]
    let failed = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, kick());
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(setup("blocking a signal")(io::Error::from_raw_os_error(failed))) }
}

/// Lets the kick through while the vCPU runs (`KVM_SET_SIGNAL_MASK`): everything else stays blocked.
fn let_kick_through(vcpu: &VcpuFd) -> Result<(), Reason> {
    const KVM_SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;
    #[repr(C, packed)]
    struct Mask {
        length: u32,
        blocked: u64,
    }
    let bit = u32::try_from(kick()).ok().and_then(|signal| signal.checked_sub(1)).unwrap_or(0);
    let mask = Mask { length: 8, blocked: !(1_u64.checked_shl(bit).unwrap_or(0)) };
    // SAFETY: the argument is a `struct kvm_signal_mask` with a set of 8 bytes, as the kernel expects on this processor.
    #[allow(unsafe_code)]
    let answer = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_SET_SIGNAL_MASK, &raw const mask) };
    if answer == 0 { Ok(()) } else { Err(setup("KVM_SET_SIGNAL_MASK")(io::Error::last_os_error())) }
}

/// The guest's memory: an anonymous file, mapped, so that it can be filled without a pointer.
struct Memory {
    address: *mut libc::c_void,
}

impl Memory {
    fn new() -> Result<Self, Reason> {
        let fd = rustix::fs::memfd_create("kvm-probe", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(setup("memfd_create"))?;
        let file = File::from(fd);
        file.set_len(MEMORY as u64).map_err(setup("making memory"))?;
        for (place, bytes) in contents() {
            use std::os::unix::fs::FileExt;
            file.write_all_at(&bytes, place as u64).map_err(setup("filling memory"))?;
        }
        // SAFETY: a new mapping at an address that the kernel chooses; nothing in this program refers to it as Rust memory.
        #[allow(unsafe_code)]
        let address = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), MEMORY, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(setup("mapping memory")(io::Error::last_os_error()));
        }
        Ok(Self { address })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, whole, and the VM that used it is gone (it is dropped first).
        #[allow(unsafe_code)]
        unsafe {
            libc::munmap(self.address, MEMORY);
        }
    }
}

fn guest(device: OwnedFd) -> Result<Verdict, Reason> {
    // SAFETY: the descriptor is an open /dev/kvm, and its ownership goes over.
    #[allow(unsafe_code)]
    let kvm = unsafe { Kvm::from_raw_fd(device.into_raw_fd()) };
    if kvm.get_api_version() != 12 {
        return Err(setup("asking for API version 12")(kvm.get_api_version()));
    }
    let memory = Memory::new()?;
    let vm = kvm.create_vm().map_err(setup("KVM_CREATE_VM"))?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY as u64,
        userspace_addr: memory.address.addr() as u64,
    };
    // SAFETY: the region is a mapping of that size which outlives the VM.
    #[allow(unsafe_code)]
    unsafe { vm.set_user_memory_region(region) }.map_err(setup("KVM_SET_USER_MEMORY_REGION"))?;
    let verdict = vcpu(&kvm, &vm)?;
    drop(vm);
    drop(memory);
    Ok(verdict)
}

fn vcpu(kvm: &Kvm, vm: &VmFd) -> Result<Verdict, Reason> {
    let mut vcpu = vm.create_vcpu(0).map_err(setup("KVM_CREATE_VCPU"))?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(setup("KVM_GET_SUPPORTED_CPUID"))?;
    vcpu.set_cpuid2(&cpuid).map_err(setup("KVM_SET_CPUID2"))?;
    let mut special = vcpu.get_sregs().map_err(setup("KVM_GET_SREGS"))?;
    let flat = |selector, type_| kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    special.cs = flat(8, 11);
    [special.ds, special.es, special.fs, special.gs, special.ss] = [flat(16, 3); 5];
    special.cr0 |= 1;
    vcpu.set_sregs(&special).map_err(setup("KVM_SET_SREGS"))?;
    let registers = kvm_regs { rip: ENTRY, rflags: 2, ..kvm_regs::default() };
    vcpu.set_regs(&registers).map_err(setup("KVM_SET_REGS"))?;
    let_kick_through(&vcpu)?;

    let mut stage = 0;
    for _ in 0..EXITS_MAX {
        let wrong = |exit: String| Ok(Verdict::Fails(Reason::Wrong { stage, exit }));
        match vcpu.run() {
            Ok(VcpuExit::IoOut(PORT, &[report])) if report == stage + 1 && report <= 5 => stage = report,
            Ok(VcpuExit::IoOut(PORT, &[report])) if report >= FAULT => {
                return wrong(format!("the guest's check {} failed", report - FAULT));
            }
            Ok(VcpuExit::Hlt) if stage == 5 => return Ok(Verdict::Works),
            Ok(exit) => return wrong(format!("{exit:?}")),
            Err(error) if error.errno() == libc::EINTR => return Ok(Verdict::Fails(Reason::Hang { stage })),
            Err(error) => return wrong(error.to_string()),
        }
    }
    Ok(Verdict::Fails(Reason::Wrong { stage, exit: "too many exits".into() }))
}
