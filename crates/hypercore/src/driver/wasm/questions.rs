//! What a process in the jail asks its keeper for one program, over a pair of sockets of that program's: its code, once, and its
//! network, once. The process may have been taken over: what it asks is bounded, and answered at most so often.
//!
//! Code is looked for, checked and compiled on the keeper's side, as without a jail; the network is set up there, see
//! [`super::network`].

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use spacecore::wire::message::{Network, Refusal, RefusalKind};

use super::engine::Shared;
use super::network::Seen;
use super::program::{Program, Source};
use super::run::refuse_program;
use crate::driver::Wasm;

/// The longest message.
pub(super) const MESSAGE_MAX: usize = 128 * 1024;
/// The most descriptors in one message (`SCM_MAX_FD` is 253).
pub(super) const FDS_MAX: usize = 200;

/// What the runner asks for; behind the second comes the network as JSON.
const CODE: u8 = b'?';
const NETWORK: u8 = b'w';
/// What it is answered; behind the last comes a refusal as JSON.
const CACHED: u8 = b'c';
const COMPILED: u8 = b'n';
const READY: u8 = b'r';
const REFUSED: u8 = b'x';

/// Answers the runner's questions for one program until it has no more. Frames of the program's network are moved as long.
pub(super) fn answer(
    shared: &Shared,
    wasm: &Wasm,
    mut network: Option<Seen>,
    asks: &OwnedFd,
) -> io::Result<()> {
    let (mut has_code, mut has_network) = (false, false);
    loop {
        let (asked, _) = receive(asks)?;
        match asked.split_first() {
            Some((&CODE, [])) if !std::mem::replace(&mut has_code, true) => {
                match Program::find_code(shared, &wasm.module, &wasm.digest, &wasm.cache) {
                    Ok((file, Source::Compiled)) => send(asks, &[COMPILED], &[file.into()])?,
                    Ok((file, Source::Cache | Source::Process)) => send(asks, &[CACHED], &[file.into()])?,
                    Err(error) => send_refusal(asks, &refuse_program(&error))?,
                }
                if network.is_none() {
                    return Ok(());
                }
            }
            Some((&NETWORK, wanted)) if !std::mem::replace(&mut has_network, true) => {
                let Some(network) = &mut network else { return Ok(()) };
                let wanted: Option<Network> = serde_json::from_slice(wanted)?;
                match network.set_up(wanted.as_ref()) {
                    Ok(()) => send(asks, &[READY], &[])?,
                    Err(refusal) => send_refusal(asks, &refusal)?,
                }
            }
            // The program is over, or its process says what it has no leave to.
            None | Some(_) => return Ok(()),
        }
    }
}

fn send_refusal(to: &OwnedFd, refusal: &Refusal) -> io::Result<()> {
    let mut bytes = vec![REFUSED];
    bytes.extend(serde_json::to_vec(refusal)?);
    send(to, &bytes, &[])
}

/// Asks the keeper for the program's code.
///
/// # Errors
/// The keeper's reason why there is none, or that nothing came.
pub(super) fn ask_for_code(keeper: &OwnedFd) -> Result<(File, Source), Refusal> {
    const WHAT: &str = "the program's code didn't arrive";
    let (bytes, fds) = ask(keeper, &[CODE], WHAT)?;
    let file = fds.into_iter().next().map(File::from);
    match (bytes.first(), file) {
        (Some(&CACHED), Some(file)) => Ok((file, Source::Cache)),
        (Some(&COMPILED), Some(file)) => Ok((file, Source::Compiled)),
        _ => Err(broken(WHAT, &io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Has the keeper set up the network that the program was configured with.
///
/// # Errors
/// The keeper's reason why it can't be, or that no answer came.
pub(super) fn ask_for_network(keeper: &OwnedFd, wanted: Option<&Network>) -> Result<(), Refusal> {
    const WHAT: &str = "the program's network wasn't set up";
    let mut question = vec![NETWORK];
    question.extend(serde_json::to_vec(&wanted).map_err(|error| broken(WHAT, &error.into()))?);
    match ask(keeper, &question, WHAT)?.0.first() {
        Some(&READY) => Ok(()),
        _ => Err(broken(WHAT, &io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Asks, and waits for an answer that is no refusal.
fn ask(keeper: &OwnedFd, question: &[u8], what: &str) -> Result<(Vec<u8>, Vec<OwnedFd>), Refusal> {
    let failed = |error: io::Error| broken(what, &error);
    send(keeper, question, &[]).map_err(failed)?;
    let (bytes, fds) = receive(keeper).map_err(failed)?;
    match bytes.split_first() {
        Some((&REFUSED, refusal)) => Err(serde_json::from_slice(refusal).map_err(|e| failed(e.into()))?),
        Some(_) | None => Ok((bytes, fds)),
    }
}

fn broken(what: &str, error: &io::Error) -> Refusal {
    Refusal { kind: RefusalKind::Other, message: format!("{what}: {error}") }
}

/// Messages that stay whole.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

pub(super) fn send(to: &OwnedFd, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    rustix::io::retry_on_intr(|| sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// One message with its descriptors; an empty one where the other side is gone.
pub(super) fn receive(from: &OwnedFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    bytes.truncate(received.bytes);
    let fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    Ok((bytes, fds.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes back for what a process in the jail says, until there is no more.
    fn answers(said: &[&[u8]]) -> Vec<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let wasm = Wasm {
            module: folder.path().join("missing.wasm"),
            digest: "0".repeat(64),
            cache: folder.path().join("cache"),
            mounts: Vec::new(),
            table_elements: 0,
            folder: None,
        };
        let (ours, theirs) = pair().unwrap();
        said.iter().for_each(|bytes| send(&ours, bytes, &[]).unwrap());
        let answered = answer(&Shared::default(), &wasm, None, &theirs);
        assert!(answered.is_ok(), "{answered:?}");
        drop(theirs);
        let next = || receive(&ours).ok().map(|(bytes, _)| bytes).filter(|bytes| !bytes.is_empty());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_process_in_the_jail_is_told_why_there_is_no_code() {
        let answers = answers(&[&[CODE]]);
        let [answer] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(answer[0], REFUSED);
        let refusal: Refusal = serde_json::from_slice(&answer[1..]).unwrap();
        assert_eq!(refusal.kind, RefusalKind::NotFound, "{}", refusal.message);
    }

    #[test]
    fn what_a_process_in_the_jail_may_not_ask_ends_the_conversation() {
        // A network that it doesn't have, what means nothing, and too much of what does.
        for said in [&b"wnull"[..], b"w{", b"z", b"??"] {
            assert_eq!(answers(&[said, &[CODE]]), Vec::<Vec<u8>>::new(), "{said:?}");
        }
    }
}
