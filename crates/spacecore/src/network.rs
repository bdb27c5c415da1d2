//! The guest's network: which interface it has.

use spacecore::refusal::{OrRefuse, refuse};
use spacecore::rtnetlink;
use spacecore::wire::message::{Network, Refusal, RefusalKind};

/// Brings up the network.
///
/// # Errors
/// There is no interface, or the kernel refuses an address or a route.
pub(crate) fn set_up(network: &Network) -> Result<(), Refusal> {
    rtnetlink::set_up(interface()?, network)
}

/// The index of `eth0`, or else of the only interface that isn't loopback: some kernels put tunnels into every network
/// namespace.
fn interface() -> Result<u32, Refusal> {
    let what = || "reading /sys/class/net".to_owned();
    if let Ok(index) = std::fs::read_to_string("/sys/class/net/eth0/ifindex") {
        return index.trim_end().parse().or_refuse(RefusalKind::Network, what);
    }
    for entry in std::fs::read_dir("/sys/class/net").or_refuse(RefusalKind::Network, what)? {
        let folder = entry.or_refuse(RefusalKind::Network, what)?.path();
        if folder.ends_with("lo") {
            continue;
        }
        let index = std::fs::read_to_string(folder.join("ifindex")).or_refuse(RefusalKind::Network, what)?;
        return index.trim_end().parse().or_refuse(RefusalKind::Network, what);
    }
    Err(refuse(RefusalKind::Network, "the machine has no network interface"))
}
