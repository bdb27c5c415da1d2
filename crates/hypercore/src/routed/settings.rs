//! The kernel's settings for networks (`/proc/sys/net`, the Linux kernel's `Documentation/networking/ip-sysctl.rst`), in the
//! calling thread's network namespace.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

fn path(family: &str, interface: &str, name: &str) -> PathBuf {
    [&format!("/proc/sys/net/{family}/conf"), interface, name].iter().collect()
}

pub(super) fn set(family: &str, interface: &str, name: &str, value: &str) -> io::Result<()> {
    let path = path(family, interface, name);
    fs::write(&path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn is(family: &str, interface: &str, name: &str, value: &str) -> bool {
    fs::read_to_string(path(family, interface, name)).is_ok_and(|found| found.trim() == value)
}

/// The interfaces that have settings, but for spacecores' own.
fn interfaces(family: &str) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(format!("/proc/sys/net/{family}/conf"))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names
        .filter(|name| !["all", "default", "lo"].contains(&&**name) && !name.starts_with("vm-"))
        .collect())
}

/// Has a new gateway forward packets and believe nobody.
pub(super) fn gateway(has_ipv6: bool) -> io::Result<()> {
    for interface in ["all", "default"] {
        for (name, value) in [
            ("forwarding", "1"),
            ("accept_redirects", "0"),
            ("send_redirects", "0"),
            ("accept_source_route", "0"),
        ] {
            set("ipv4", interface, name, value)?;
        }
        if has_ipv6 {
            // No addresses but those that it is given.
            for (name, value) in
                [("addr_gen_mode", "1"), ("accept_ra", "0"), ("accept_redirects", "0"), ("accept_dad", "0")]
            {
                set("ipv6", interface, name, value)?;
            }
        }
    }
    if has_ipv6 { set("ipv6", "all", "forwarding", "1") } else { Ok(()) }
}

/// Sets the machine's end of a spacecore's wire: it forwards what comes from there, and hears nothing else.
pub(super) fn machine_end(interface: &str, has_ipv6: bool) -> io::Result<()> {
    set("ipv4", interface, "forwarding", "1")?;
    set("ipv4", interface, "accept_redirects", "0")?;
    set("ipv4", interface, "send_redirects", "0")?;
    if has_ipv6 {
        set("ipv6", interface, "addr_gen_mode", "1")?;
        set("ipv6", interface, "accept_ra", "0")?;
        set("ipv6", interface, "accept_redirects", "0")?;
    }
    Ok(())
}

/// What was changed of the machine's settings, and has to be as it was when the last spacecore is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Changed {
    /// Interfaces that forwarded no IPv4.
    pub(super) forwarding4: Vec<String>,
    /// Whether forwarding of IPv6 was off.
    pub(super) all6: bool,
    /// Interfaces that took routers' advertisements only because they forwarded nothing.
    pub(super) accept_ra: Vec<String>,
    /// Interfaces that behaved as a router's though forwarding was off.
    pub(super) routers6: Vec<String>,
}

impl Changed {
    /// Notes that the machine must forward IPv4 that comes in by this interface; says whether that is a change.
    pub(super) fn open4(&mut self, interface: &str) -> bool {
        if interface == "lo" || !is("ipv4", interface, "forwarding", "0") {
            return false;
        }
        if !self.forwarding4.iter().any(|known| known == interface) {
            self.forwarding4.push(interface.to_owned());
        }
        true
    }

    /// Notes that the machine must forward IPv6, and keep the routes that it has from routers' advertisements; says whether
    /// that is a change.
    ///
    /// # Errors
    /// The settings can't be read.
    pub(super) fn open6(&mut self) -> io::Result<bool> {
        if !is("ipv6", "all", "forwarding", "0") {
            return Ok(false);
        }
        self.all6 = true;
        let has = |name: &str, value: &str| -> io::Result<Vec<String>> {
            let all = interfaces("ipv6")?.into_iter();
            Ok(all.filter(|interface| is("ipv6", interface, name, value)).collect())
        };
        self.routers6 = has("forwarding", "1")?;
        // Also those that come later: theirs are the default's.
        self.accept_ra = has("accept_ra", "1")?;
        self.accept_ra.retain(|interface| !self.routers6.contains(interface));
        if is("ipv6", "default", "accept_ra", "1") {
            self.accept_ra.push("default".to_owned());
        }
        Ok(true)
    }

    /// Makes the changes that were noted.
    ///
    /// # Errors
    /// The kernel refuses one.
    pub(super) fn make(&self) -> io::Result<()> {
        for interface in self.forwarding4.iter().filter(|interface| is("ipv4", interface, "forwarding", "0"))
        {
            set("ipv4", interface, "forwarding", "1")?;
        }
        if !self.all6 {
            return Ok(());
        }
        for interface in self.accept_ra.iter().filter(|interface| is("ipv6", interface, "accept_ra", "1")) {
            set("ipv6", interface, "accept_ra", "2")?;
        }
        if is("ipv6", "all", "forwarding", "0") {
            set("ipv6", "all", "forwarding", "1")?;
            // Whoever switches forwarding on beside us sets this to 1 by it.
            set("ipv6", "default", "forwarding", "0")?;
        }
        Ok(())
    }

    /// Sets everything as it was. What is gone, or was changed by others meanwhile, is left.
    pub(super) fn restore(&self) {
        let is_wanted4 = is("ipv4", "all", "forwarding", "1");
        let opened = self.forwarding4.iter().filter(|interface| is("ipv4", interface, "forwarding", "1"));
        for interface in opened.filter(|_| !is_wanted4) {
            let _ = set("ipv4", interface, "forwarding", "0");
        }
        if !self.all6 || is("ipv6", "default", "forwarding", "1") {
            return;
        }
        if is("ipv6", "all", "forwarding", "1") {
            let _ = set("ipv6", "all", "forwarding", "0");
            for interface in &self.routers6 {
                let _ = set("ipv6", interface, "forwarding", "1");
            }
        }
        for interface in self.accept_ra.iter().filter(|interface| is("ipv6", interface, "accept_ra", "2")) {
            let _ = set("ipv6", interface, "accept_ra", "1");
        }
    }
}

/// How many connections the kernel remembers, if it remembers any.
pub(super) fn connections() -> Option<u64> {
    fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").ok()?.trim().parse().ok()
}
