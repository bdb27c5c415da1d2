//! Questions over TCP: each client has a thread, for as long as it goes on asking.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::question::{self, Judged, SERVER_FAILED};
use super::{Directory, without_answer};

/// The most clients at a time; who comes then is turned away.
const MOST: usize = 16;
/// How long a client may be silent, and a resolver take.
const SILENCE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(3);

type Open = Arc<Mutex<HashMap<u64, TcpStream>>>;

/// Who is being served.
#[derive(Debug, Default)]
pub(super) struct Clients {
    open: Open,
    next: AtomicU64,
}

impl Clients {
    pub(super) fn accept(&self, listener: &TcpListener, directory: &Arc<Directory>) {
        let Ok((stream, _)) = listener.accept() else { return };
        let (Ok(kept), true) = (stream.try_clone(), locked(&self.open).len() < MOST) else { return };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        locked(&self.open).insert(number, kept);
        let (open, directory) = (Arc::clone(&self.open), Arc::clone(directory));
        let served = thread::Builder::new().name("names-tcp".to_owned()).spawn(move || {
            // However it ends: nobody is there to be told.
            let _ = serve(stream, &directory);
            locked(&open).remove(&number);
        });
        if served.is_err() {
            locked(&self.open).remove(&number);
        }
    }
}

impl Drop for Clients {
    /// Ends the threads: at once where they wait for a client, after [`PATIENCE`] where they wait for a resolver.
    fn drop(&mut self) {
        for stream in locked(&self.open).values() {
            // One that has ended already is as good.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn locked(open: &Open) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers questions until the client has no more.
fn serve(mut client: TcpStream, directory: &Directory) -> io::Result<()> {
    client.set_nonblocking(false)?;
    client.set_read_timeout(Some(SILENCE))?;
    client.set_write_timeout(Some(SILENCE))?;
    loop {
        let question = receive(&mut client)?;
        let reply = match directory.judge(&question) {
            Judged::Silence => return Ok(()),
            Judged::Reply(reply) => reply,
            Judged::Ask => {
                let Some((sent, number)) = directory.asked_of_resolver(&question) else { return Ok(()) };
                let asked =
                    (directory.resolvers)().into_iter().find_map(|resolver| ask(&sent, resolver).ok());
                match asked {
                    Some(mut answer) => {
                        directory.learn_from(&answer);
                        if let Some(own) = answer.first_chunk_mut() {
                            *own = number;
                        }
                        answer
                    }
                    None => without_answer(&question, SERVER_FAILED).unwrap_or_default(),
                }
            }
        };
        send(&mut client, &reply)?;
    }
}

fn ask(question: &[u8], resolver: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&resolver, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(&mut stream, question)?;
    let answer = receive(&mut stream)?;
    if question::is_answer(&answer, question) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Reads a message behind its length in 16 bits, big endian (RFC 1035, section 4.2.2).
fn receive(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    from.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    from.read_exact(&mut message)?;
    Ok(message)
}

fn send(to: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    to.write_all(&[&length.to_be_bytes()[..], message].concat())
}
