//! Ports of this machine: taking one, and finding out who has it.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// How many callers the kernel lets wait until they are taken.
const QUEUE: i32 = 1024;

/// Listens on a port.
pub(super) fn bind(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    rustix::net::listen(&listener, QUEUE)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The process that listens on a port, as far as this one may know.
pub(super) fn holder(port: u16) -> Option<String> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listeners(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter(|entry| is_number(&entry.file_name())).find_map(|entry| {
        let open = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        let mut links = open.filter_map(|fd| fs::read_link(fd.path()).ok());
        links.find(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        let name = hac::text::printable(name.trim(), 64);
        Some(format!("{name} (process {})", entry.file_name().to_string_lossy()))
    })
}

fn is_number(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

/// The inodes of the sockets that listen on a port (proc(5), `/proc/net/tcp`; state 0A is listening).
fn listeners(table: &str, port: u16) -> Vec<String> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let is_meant = u16::from_str_radix(local, 16) == Ok(port) && *fields.get(3)? == "0A";
        is_meant.then(|| fields.get(9).map(|inode| (*inode).to_owned())).flatten()
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_port_is_found() {
        let listener = bind(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = holder(port).unwrap();
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        assert_eq!(bind(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn only_what_listens_counts() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let line = |address: &str, state: &str, inode: u32| {
            format!(
                "   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 0 10 0\n"
            )
        };
        let table = [
            head.to_owned(),
            line("0100007F:1F90", "0A", 7),
            line("0100007F:1F90", "01", 8),
            line("0100007F:1F91", "0A", 9),
        ];
        assert_eq!(listeners(&table.concat(), 8080), ["7"]);
        assert!(listeners("garbage\n1: x\n", 8080).is_empty());
    }
}
