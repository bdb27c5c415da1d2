//! Lines of JSON over a unix socket, some with an open file.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The longest line in bytes.
const LONGEST: usize = 1024 * 1024;

/// One end of such a connection.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: UnixStream,
    read: Vec<u8>,
    files: VecDeque<OwnedFd>,
}

impl Lines {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, read: Vec::new(), files: VecDeque::new() }
    }

    /// Sends a message. Its file is with its first byte.
    pub(crate) async fn send(
        &self,
        message: &impl Serialize,
        mut file: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(message)?;
        bytes.push(b'\n');
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let files = file.map(|file| [file]);
            let write = || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if let Some(files) = &files {
                    ancillary.push(SendAncillaryMessage::ScmRights(files));
                }
                Ok(sendmsg(&self.stream, &[IoSlice::new(rest)], &mut ancillary, SendFlags::NOSIGNAL)?)
            };
            let count = self.stream.async_io(Interest::WRITABLE, write).await?;
            file = None;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// The next message; nothing once the other side is gone. Can be given up and asked again.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.read.len() > LONGEST {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let (bytes, files) = self.stream.async_io(Interest::READABLE, || receive(&self.stream)).await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            self.read.extend(bytes);
            self.files.extend(files);
        }
    }

    /// The file that came with a message: with the first of those whose file wasn't taken yet.
    pub(crate) fn file(&mut self) -> Option<OwnedFd> {
        self.files.pop_front()
    }
}

fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 16 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let count = recvmsg(stream.as_fd(), &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let files = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let files = files.collect();
    bytes.truncate(count);
    Ok((bytes, files))
}
