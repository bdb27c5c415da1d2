//! Standard input, output and error of a program, as WASI's streams over the channel.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::channel::{Channel, Output};

/// The most bytes that are read at once, whatever the program asks for.
const READ_MAX: usize = 64 * 1024;

/// Standard input.
#[derive(Clone)]
pub(super) struct Input {
    channel: Arc<Channel>,
    is_terminal: bool,
}

/// Standard output or error.
#[derive(Clone)]
pub(super) struct Printer {
    channel: Arc<Channel>,
    output: Output,
    is_terminal: bool,
}

impl Input {
    pub(super) fn new(channel: &Arc<Channel>) -> Self {
        Self { channel: Arc::clone(channel), is_terminal: channel.is_terminal() }
    }
}

impl Printer {
    pub(super) fn new(channel: &Arc<Channel>, output: Output) -> Self {
        Self { channel: Arc::clone(channel), output, is_terminal: channel.is_terminal() }
    }
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        self.is_terminal
    }
}

impl IsTerminal for Printer {
    fn is_terminal(&self) -> bool {
        self.is_terminal
    }
}

impl StdinStream for Input {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

impl StdoutStream for Printer {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.channel.poll_input(context)).await;
    }
}

#[async_trait::async_trait]
impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<bytes::Bytes> {
        self.channel.read(size.min(READ_MAX)).map(Into::into).ok_or(StreamError::Closed)
    }
}

#[async_trait::async_trait]
impl Pollable for Printer {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.channel.poll_room(self.output, context)).await;
    }
}

#[async_trait::async_trait]
impl OutputStream for Printer {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        let refuse = |_| StreamError::trap("more was written to a stream than it had room for");
        self.channel.write(self.output, &bytes).map_err(refuse)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.channel.room(self.output))
    }
}

impl AsyncRead for Input {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.channel.poll_input(context));
        if let Some(bytes) = self.channel.read(buffer.remaining().min(READ_MAX)) {
            buffer.put_slice(&bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Printer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.channel.poll_room(self.output, context));
        let length = self.channel.room(self.output).min(bytes.len());
        let refuse = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        let written = self.channel.write(self.output, bytes.get(..length).unwrap_or_default());
        Poll::Ready(written.map(|()| length).map_err(refuse))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
