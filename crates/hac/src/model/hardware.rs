//! The hardware: resources, isolation, network.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::peer::Peer;
use crate::units::{BitRate, ByteRate, Bytes, MilliCpu};
use crate::words::words;

words! {
    /// What happens when a node's CPU is contended.
    pub enum Class {
        /// The amount asked for is reserved.
        Guaranteed = "guaranteed",
        /// The amount asked for is a share; idle CPU may be used beyond it.
        Burstable = "burstable",
    }
}

words! {
    /// A kind of accelerator.
    pub enum AcceleratorKind {
        /// A graphics processor.
        Gpu = "gpu",
        /// A tensor processor.
        Tpu = "tpu",
        /// A field-programmable gate array.
        Fpga = "fpga",
        /// A neural processor.
        Npu = "npu",
    }
}

/// Accelerators of one kind and model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Accelerator {
    /// The kind.
    pub kind: AcceleratorKind,
    /// The model; `None` takes any.
    pub model: Option<String>,
    /// How many, at least 1.
    pub count: u32,
}

impl Default for Accelerator {
    fn default() -> Self {
        Self { kind: AcceleratorKind::Gpu, model: None, count: 1 }
    }
}

/// CPU, memory, disk, accelerators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Resources {
    /// The amount of CPU, more than 0.
    pub cpu: MilliCpu,
    /// The memory, the guest kernel's included.
    pub memory: Bytes,
    /// The size of the writable layer; `None` leaves it to the driver (half of the memory where it lies in memory).
    pub storage: Option<Bytes>,
    /// The most processes and threads at a time, at least 1.
    pub pids: u32,
    /// The most elements in all tables of a Wasm program.
    pub table_elements: u32,
    /// How many GPUs of any model.
    pub gpu: u32,
    /// Accelerators by kind and model.
    pub accelerators: Vec<Accelerator>,
    /// The most disk operations a second; `None` is without limit.
    pub iops: Option<u32>,
    /// The most disk traffic; `None` is without limit.
    pub disk_bandwidth: Option<ByteRate>,
    /// Whether each vCPU gets a core of its own.
    pub cpu_pinning: bool,
    /// What happens under contention.
    pub class: Class,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu: MilliCpu::from_cores(1),
            memory: Bytes::from_mib(512),
            storage: None,
            pids: 4096,
            table_elements: 100_000,
            gpu: 0,
            accelerators: Vec::new(),
            iops: None,
            disk_bandwidth: None,
            cpu_pinning: false,
            class: Class::Burstable,
        }
    }
}

words! {
    /// What keeps the workload apart from the host and from others.
    pub enum Isolation {
        /// A virtual machine of its own with a generic guest kernel.
        MicroVM = "MicroVM",
        /// A virtual machine that boots the application's own kernel.
        Unikernel = "Unikernel",
        /// Namespaces, cgroups and seccomp on the host's kernel.
        Container = "Container",
        /// A WebAssembly sandbox in a jailed process.
        Wasm = "Wasm" | "WebAssembly",
        /// A virtual machine whose memory the host can't read.
        TEE = "TEE",
    }
}

impl Isolation {
    /// Gives the least memory with which the isolation starts at all.
    pub const fn least_memory(self) -> Bytes {
        match self {
            Self::MicroVM => Bytes::from_mib(80),
            Self::Unikernel => Bytes::from_mib(16),
            Self::Container => Bytes::from_mib(4),
            Self::Wasm => Bytes::from_mib(1),
            Self::TEE => Bytes::from_mib(128),
        }
    }

    /// Tells whether the processor keeps the workload apart, rather than the host's kernel or a compiler.
    pub const fn is_hardware_virtualisation(self) -> bool {
        match self {
            Self::MicroVM | Self::Unikernel | Self::TEE => true,
            Self::Container | Self::Wasm => false,
        }
    }

    /// Gives the providers that can give this isolation.
    pub const fn providers(self) -> &'static [Provider] {
        match self {
            Self::MicroVM => &[
                Provider::Kvm,
                Provider::Firecracker,
                Provider::CloudHypervisor,
                Provider::Qemu,
                Provider::Kata,
            ],
            Self::Unikernel => &[
                Provider::Unikernel,
                Provider::Kvm,
                Provider::Firecracker,
                Provider::CloudHypervisor,
                Provider::Qemu,
            ],
            Self::Container => &[Provider::Libcontainer],
            Self::Wasm => &[Provider::Wasmtime],
            Self::TEE => &[
                Provider::SevSnp,
                Provider::Tdx,
                Provider::Sgx,
                Provider::Kvm,
                Provider::Qemu,
                Provider::CloudHypervisor,
            ],
        }
    }
}

words! {
    /// Who is to provide the isolation.
    pub enum Provider {
        /// Any virtual machine monitor, accelerated by KVM.
        Kvm = "KVM",
        /// Firecracker.
        Firecracker = "Firecracker",
        /// Cloud Hypervisor.
        CloudHypervisor = "Cloud-Hypervisor" | "CloudHypervisor" | "Cloud Hypervisor" | "CH",
        /// QEMU, accelerated by KVM or emulating.
        Qemu = "QEMU",
        /// A virtual machine that looks like a container.
        Kata = "Kata" | "Kata Containers",
        /// The application's own kernel.
        Unikernel = "Unikernel",
        /// The embedded container runtime.
        Libcontainer = "libcontainer" | "containerd" | "runc" | "crun",
        /// The embedded WebAssembly runtime.
        Wasmtime = "wasmtime",
        /// Intel SGX.
        Sgx = "SGX" | "Intel SGX",
        /// Intel TDX.
        Tdx = "TDX" | "Intel TDX",
        /// AMD SEV-SNP.
        SevSnp = "SEV-SNP" | "AMD SEV-SNP" | "SNP",
    }
}

impl Provider {
    /// Tells whether it works with KVM only.
    pub const fn needs_kvm(self) -> bool {
        match self {
            Self::Kvm | Self::Firecracker | Self::CloudHypervisor | Self::Kata | Self::Tdx | Self::SevSnp => {
                true
            }
            Self::Qemu | Self::Unikernel | Self::Libcontainer | Self::Wasmtime | Self::Sgx => false,
        }
    }
}

words! {
    /// What executes a virtual machine's instructions.
    pub enum Accel {
        /// KVM where it works, else emulation, which is then announced.
        Auto = "auto",
        /// The processor, through KVM.
        Kvm = "kvm",
        /// QEMU's emulation.
        Tcg = "tcg",
    }
}

words! {
    /// How much of a property is demanded.
    pub enum Level {
        /// What every spacecore gets.
        Standard = "standard",
        /// The most that the node has, or a refusal.
        High = "high",
    }
}

/// What is demanded of the isolation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Criteria {
    /// `high`: hardware virtualisation, the full jail and the scan, or a refusal.
    pub security: Level,
    /// `high`: pinned CPUs, huge pages, the warm pool.
    pub performance: Level,
}

impl Default for Criteria {
    fn default() -> Self {
        Self { security: Level::Standard, performance: Level::Standard }
    }
}

/// The isolation and who provides it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Virtualization {
    /// The isolation.
    #[serde(rename = "type")]
    pub isolation: Isolation,
    /// A wish that must hold; `None` takes the node's best.
    pub provider: Option<Provider>,
    /// The accelerator of virtual machines.
    pub accel: Accel,
    /// What is demanded.
    pub criteria: Criteria,
}

impl Default for Virtualization {
    fn default() -> Self {
        Self {
            isolation: Isolation::MicroVM,
            provider: None,
            accel: Accel::Auto,
            criteria: Criteria::default(),
        }
    }
}

words! {
    /// Who reaches a spacecore, and whom it reaches.
    pub enum NetworkType {
        /// The public network, in both directions.
        Public = "public",
        /// The spacecores of its private network.
        Private = "private",
        /// Nobody: there is no network interface but loopback.
        None = "none",
    }
}

/// Bandwidth, reachability, ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Networking {
    /// The most traffic in each direction; `None` is without limit.
    pub bandwidth_limit: Option<BitRate>,
    /// The most incoming traffic; `None` is the `bandwidth_limit`.
    pub ingress: Option<BitRate>,
    /// The most outgoing traffic; `None` is the `bandwidth_limit`.
    pub egress: Option<BitRate>,
    /// Who reaches it.
    pub network_type: NetworkType,
    /// The private network that it shares with the spacecores of the same node and owner that name the same; `None` is the manifest's
    /// own name.
    pub private_network: Option<String>,
    /// Whom it may reach; nobody if empty.
    pub allow_to: Vec<Peer>,
    /// Who may reach its inbound ports: `any`, addresses and networks; nobody if empty.
    pub allow_from: Vec<Peer>,
    /// The TCP ports on which the workload listens, by name; names keep their case.
    pub inbound_ports: BTreeMap<String, u16>,
}

impl Default for Networking {
    fn default() -> Self {
        Self {
            bandwidth_limit: None,
            ingress: None,
            egress: None,
            network_type: NetworkType::Public,
            private_network: None,
            allow_to: vec![Peer::PUBLIC],
            allow_from: vec![Peer::ANY],
            inbound_ports: BTreeMap::new(),
        }
    }
}
