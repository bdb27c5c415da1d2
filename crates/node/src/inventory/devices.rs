//! Devices: network interfaces, accelerators, and what keeps a guest's memory to itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tree;

/// The most interfaces and accelerators that are listed: a node's own spacecores have some.
const LISTED_MAX: usize = 64;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Whether it carries traffic.
    pub up: bool,
    /// How fast it is, in Mbit/s, where it says so.
    pub speed_mbps: Option<u64>,
    /// Whether a device stands behind it, rather than the kernel alone.
    pub is_device: bool,
}

/// What computes beside the processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accelerator {
    /// Its kind.
    pub kind: AcceleratorKind,
    /// Its address on the PCI bus.
    pub address: String,
    /// Vendor and device as `10de:2330`.
    pub id: String,
    /// The kernel's driver, if one has it.
    pub driver: Option<String>,
    /// The NUMA node that it is near to, if any.
    pub numa_node: Option<u32>,
}

/// What an accelerator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AcceleratorKind {
    /// A graphics processor.
    Gpu,
    /// Another one: NPU, TPU, FPGA, ...
    Processing,
}

/// What hides a guest's memory from the machine that it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Confidential {
    /// KVM can make guests with AMD SEV.
    pub sev: bool,
    /// KVM can make guests with AMD SEV-SNP.
    pub sev_snp: bool,
    /// KVM can make guests with Intel TDX.
    pub tdx: bool,
    /// There are Intel SGX enclaves.
    pub sgx: bool,
    /// This machine is such a guest itself.
    pub is_guest: bool,
}

pub(super) fn interfaces(tree: &Tree) -> Vec<Interface> {
    let folder = "sys/class/net";
    let names = tree
        .names(folder)
        .into_iter()
        .filter(|name| name != "lo" && tree.has(&format!("{folder}/{name}/ifindex")));
    let mut all: Vec<Interface> = names
        .map(|name| {
            let file = |file: &str| format!("{folder}/{name}/{file}");
            let carrier = || tree.number(&file("carrier")) == Some(1);
            let up = match tree.word(&file("operstate")).as_deref() {
                Some("up") => true,
                // A driver that doesn't tell more.
                Some("unknown") => carrier(),
                _ => false,
            };
            // Without a carrier it is -1, or can't be read.
            let speed_mbps = tree.number(&file("speed")).filter(|speed| *speed > 0);
            let is_device = tree.has(&file("device"));
            Interface { name: hac::text::printable(&name, super::WORD_MAX), up, speed_mbps, is_device }
        })
        .collect();
    all.sort_by_key(|interface| !interface.is_device);
    all.truncate(LISTED_MAX);
    all
}

/// Makers of display controllers that only show a console: Bochs and QEMU, ASPEED, Matrox, Cirrus, virtio, VMware, VirtualBox,
/// Hyper-V, Huawei.
const CONSOLES: [u64; 9] = [0x1234, 0x1a03, 0x102b, 0x1013, 0x1af4, 0x15ad, 0x80ee, 0x1414, 0x19e5];

pub(super) fn accelerators(tree: &Tree) -> Vec<Accelerator> {
    let folder = "sys/bus/pci/devices";
    let device = |address: String| {
        let file = |file: &str| format!("{folder}/{address}/{file}");
        let number = |name| tree.number(&file(name));
        let (class, vendor, device) = (number("class")?, number("vendor")?, number("device")?);
        // Base class and subclass; the last byte is the programming interface.
        let kind = match class >> 8 {
            0x0300..=0x03ff if CONSOLES.contains(&vendor) => return None,
            0x0300..=0x03ff => AcceleratorKind::Gpu,
            // Processing accelerators, and co-processors.
            0x1200..=0x12ff | 0x0b40 => AcceleratorKind::Processing,
            _ => return None,
        };
        let numa_node = number("numa_node").and_then(|node| node.try_into().ok());
        let driver = tree.target(&file("driver"));
        let address = hac::text::printable(&address, super::WORD_MAX);
        Some(Accelerator { kind, address, id: format!("{vendor:04x}:{device:04x}"), driver, numa_node })
    };
    tree.names(folder).into_iter().filter_map(device).take(LISTED_MAX).collect()
}

impl Confidential {
    pub(super) fn read(tree: &Tree, flags: &[String]) -> Self {
        let is_on = |parameter: &str| {
            matches!(tree.word(&format!("sys/module/{parameter}")).as_deref(), Some("Y" | "y" | "1"))
        };
        Self {
            sev: is_on("kvm_amd/parameters/sev"),
            sev_snp: is_on("kvm_amd/parameters/sev_snp"),
            tdx: is_on("kvm_intel/parameters/tdx"),
            sgx: flags.iter().any(|flag| flag == "sgx") && tree.has("dev/sgx_enclave"),
            is_guest: tree.has("dev/sev-guest") || tree.has("dev/tdx_guest"),
        }
    }
}
