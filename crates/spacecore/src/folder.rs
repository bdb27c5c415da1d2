//! Folders of the host: FUSE requests of the kernel go to the keeper as messages, its answers go back.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use spacecore::wire::frame::MAX_PAYLOAD;
use spacecore::wire::message::{Refusal, RefusalKind};

use crate::channel::Channel;
use spacecore::refusal::OrRefuse;

/// One FUSE connection.
#[derive(Debug)]
pub(crate) struct Folder {
    /// The stream that carries its messages.
    pub(crate) stream: u16,
    device: File,
}

impl Folder {
    /// Opens a connection that isn't mounted yet.
    ///
    /// # Errors
    /// The kernel has no FUSE.
    pub(crate) fn open(stream: u16) -> Result<Self, Refusal> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/fuse")
            .or_refuse(RefusalKind::Mount, || "opening /dev/fuse for a folder".to_owned())?;
        Ok(Self { stream, device })
    }

    /// The options that mount this connection.
    pub(crate) fn mount_options(&self, file: bool) -> CString {
        mount_options(self.device.as_raw_fd(), file)
    }

    /// Sends the kernel's requests to the keeper, as many as the channel has room for; `false` once it is unmounted.
    pub(crate) fn pump(&mut self, channel: &mut Channel, buffer: &mut Vec<u8>) -> bool {
        buffer.resize(MAX_PAYLOAD, 0);
        while channel.has_room() {
            match self.device.read(buffer) {
                Ok(length) => {
                    channel.link.send_message(self.stream, &buffer[..length]);
                }
                // A request can be withdrawn while it is read.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// Gives the keeper's answer to the kernel, which judges it; an answer to a request that was withdrawn is dropped.
    pub(crate) fn answer(&mut self, message: &[u8]) {
        let _ = self.device.write(message);
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn mount_options(device: i32, file: bool) -> CString {
    let mode = if file { "100000" } else { "40000" };
    let options = format!("fd={device},rootmode={mode},user_id=0,group_id=0,allow_other,default_permissions");
    CString::new(options).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_whether_the_root_is_a_folder_or_a_file() {
        assert_eq!(
            mount_options(7, false).to_str().unwrap(),
            "fd=7,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
        );
        assert!(mount_options(7, true).to_str().unwrap().contains("rootmode=100000"));
    }
}
