//! What systemd is told of the node.
//!
//! Source: sd_notify(3).

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that the node serves.
pub(super) fn ready() {
    // Where nobody waits for it nothing is lost.
    let _ = tell("READY=1");
}

/// Says that the node is ending.
pub(super) fn stopping() {
    let _ = tell("STOPPING=1");
}

fn tell(what: &str) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.to_str().and_then(|path| path.strip_prefix('@')) {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(what.as_bytes(), &address).map(drop)
}
