//! One caller, from the moment it is taken until it is gone.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::Shared;
use super::state::Choice;
use crate::clock::now_ns;

/// How long a caller is held.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a replica on this machine may take to take a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a replica that isn't trusted yet has to say no: what publishes its port takes the connection before the workload does.
const DOUBT: Duration = Duration::from_millis(50);
/// The most bytes that are read at once, and so kept for one direction.
const CHUNK: usize = 16 * 1024;
/// After so long without a word it is asked whether the other side is still there.
const SILENCE: Duration = Duration::from_secs(120);

/// Finds a replica for a caller who counts as held, and relays until both have ended.
pub(super) async fn carry(port: u16, caller: TcpStream, shared: &Shared) {
    let deadline = Instant::now() + PATIENCE;
    let mut changes = shared.changes();
    loop {
        changes.mark_unchanged();
        match shared.decide(|state| state.choose(port, now_ms())) {
            Choice::Go { backend, address, is_trusted } => match connect(address, is_trusted).await {
                Ok(replica) => {
                    shared.decide(|state| state.answered(&backend));
                    let broke = relay(&caller, &replica).await;
                    drop((caller, replica));
                    shared.ended(|state| state.ended(&backend, broke));
                    return;
                }
                Err(_) => shared.ended(|state| state.failed(&backend, now_ms())),
            },
            Choice::Wait { until_ms } => {
                let rest = until_ms.map(|until_ms| Duration::from_millis(until_ms.saturating_sub(now_ms())));
                let until = rest.map_or(deadline, |rest| deadline.min(Instant::now() + rest));
                tokio::select! {
                    // Whoever says what changes lives as long as this process.
                    _ = changes.changed() => {}
                    () = sleep_until(until) => {}
                }
                if Instant::now() >= deadline {
                    break;
                }
            }
            Choice::Refuse => break,
        }
    }
    reset(&caller);
    drop(caller);
    shared.ended(super::state::State::gave_up);
}

fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

/// Connects; nothing is sent, so that another can be tried where this fails.
async fn connect(address: SocketAddr, is_trusted: bool) -> io::Result<TcpStream> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let replica = timeout(CONNECT, TcpStream::connect(address)).await.map_err(late)??;
    if !is_trusted && timeout(DOUBT, replica.readable()).await.is_ok() {
        // It has said something, or no; what it has said is still to be read.
        replica.peek(&mut [0]).await?;
    }
    Ok(replica)
}

/// Relays until both directions have ended; tells whether the replica broke off before it said a word.
async fn relay(caller: &TcpStream, replica: &TcpStream) -> bool {
    for end in [caller, replica] {
        // Without these it is slower, or found later that somebody has gone.
        let _ = end.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(end, true);
        let _ = sockopt::set_tcp_keepidle(end, SILENCE);
    }
    let has_answered = AtomicBool::new(false);
    let inwards =
        async { pass(caller, replica, &AtomicBool::new(false)).await.map_err(|broken| (broken, false)) };
    let outwards = async { pass(replica, caller, &has_answered).await.map_err(|broken| (broken, true)) };
    match tokio::try_join!(inwards, outwards) {
        Ok(_) => false,
        Err((broken, is_outwards)) => {
            // What broke on one side is broken on the other, too.
            [caller, replica].into_iter().for_each(reset);
            let is_of_replica = (broken == Broken::Read) == is_outwards;
            is_of_replica && !has_answered.load(Ordering::Relaxed)
        }
    }
}

/// Which side of a direction broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Read,
    Write,
}

/// Passes on one direction, with its end.
async fn pass(from: &TcpStream, to: &TcpStream, has_passed: &AtomicBool) -> Result<(), Broken> {
    loop {
        from.readable().await.map_err(|_| Broken::Read)?;
        // Given back before the next wait, so that a silent connection holds nothing.
        let mut chunk = vec![0; CHUNK];
        let count = match from.try_read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return Err(Broken::Read),
        };
        if count == 0 {
            // Who has gone already needs no word of it.
            let _ = rustix::net::shutdown(to, rustix::net::Shutdown::Write);
            return Ok(());
        }
        has_passed.store(true, Ordering::Relaxed);
        chunk.truncate(count);
        let mut rest = chunk.as_slice();
        while !rest.is_empty() {
            to.writable().await.map_err(|_| Broken::Write)?;
            match to.try_write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Broken::Write),
            }
        }
    }
}

/// Lets the other side know, when it is closed, that this was no regular end.
fn reset(stream: &TcpStream) {
    // Then it is told of a regular one.
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}
