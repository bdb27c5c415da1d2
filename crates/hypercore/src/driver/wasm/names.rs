//! Names of the network: `wasi:sockets/ip-name-lookup`, answered by the name servers that were configured and by nobody else.
//!
//! wasmtime's own would ask the host's resolver, which reads the host's files and speaks to services of the host. This one
//! sends queries from the program's own network namespace (RFC 1035, section 4).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use spacecore::wire::message::Network;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime::{Result, StoreContextMut};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network as Handle};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::state::State;

/// The interface, in the version that wasmtime's own has, which stands for every 0.2.
const INTERFACE: &str = "wasi:sockets/ip-name-lookup@0.2.12";

const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;
const ADDRESSES_MAX: usize = 64;

const A: u16 = 1;
const AAAA: u16 = 28;

/// Who is asked for addresses.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
}

/// Addresses of a name, on their way or there.
#[derive(Debug)]
struct Lookup {
    task: Option<JoinHandle<Result<Vec<IpAddr>, ErrorCode>>>,
    found: Result<VecDeque<IpAddr>, ErrorCode>,
}

#[async_trait::async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        if let Some(task) = &mut self.task {
            let found = task.await.unwrap_or(Err(ErrorCode::TemporaryResolverFailure));
            self.found = found.map(VecDeque::from);
            self.task = None;
        }
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Puts this in the place of wasmtime's own.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    linker.allow_shadowing(true);
    let mut names = linker.instance(INTERFACE)?;
    names.resource("resolve-address-stream", ResourceType::host::<Lookup>(), |mut store, rep| {
        store.data_mut().ctx().table.delete(Resource::<Lookup>::new_own(rep))?;
        Ok(())
    })?;
    names.func_wrap(
        "resolve-addresses",
        |mut store: StoreContextMut<'_, State>, (_network, name): (Resource<Handle>, String)| {
            let resolver = Arc::clone(&store.data().resolver);
            let lookup = match resolver.begin(name) {
                Ok(lookup) => lookup,
                Err(code) => return Ok((Err(code),)),
            };
            Ok((Ok(store.data_mut().ctx().table.push(lookup)?),))
        },
    )?;
    names.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: StoreContextMut<'_, State>, (lookup,): (Resource<Lookup>,)| {
            let lookup = store.data_mut().ctx().table.get_mut(&lookup)?;
            if lookup.task.is_some() {
                return Ok((Err(ErrorCode::WouldBlock),));
            }
            Ok((match &mut lookup.found {
                Ok(found) => Ok(found.pop_front().map(IpAddress::from)),
                Err(code) => Err(*code),
            },))
        },
    )?;
    names.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: StoreContextMut<'_, State>,
         (lookup,): (Resource<Lookup>,)|
         -> Result<(Resource<DynPollable>,)> {
            Ok((subscribe(store.data_mut().ctx().table, lookup)?,))
        },
    )
}

impl Resolver {
    /// The name servers of a network.
    pub(super) fn new(network: Option<&Network>) -> Self {
        let Some(network) = network else { return Self::default() };
        let servers = network.dns.iter().filter_map(|server| Some(SocketAddr::new(server.parse().ok()?, 53)));
        Self { servers: servers.collect(), search: network.search.clone() }
    }

    fn begin(self: Arc<Self>, name: String) -> Result<Lookup, ErrorCode> {
        if self.servers.is_empty() {
            return Err(ErrorCode::PermanentResolverFailure);
        }
        let at_once = |found: Vec<IpAddr>| Ok(Lookup { task: None, found: Ok(found.into()) });
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return at_once(vec![address]);
        }
        if name.eq_ignore_ascii_case("localhost") {
            return at_once(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        query(0, &name, A).ok_or(ErrorCode::InvalidArgument)?;
        let found = Ok(VecDeque::new());
        Ok(Lookup { task: Some(tokio::task::spawn(async move { self.look_up(&name).await })), found })
    }

    /// Asks for a name's addresses, in the calling thread's network.
    pub(super) async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, ErrorCode> {
        let searched = self.search.iter().filter(|_| !name.trim_end_matches('.').contains('.'));
        let candidates = searched.map(|domain| format!("{name}.{domain}")).chain([name.to_owned()]);
        let mut error = ErrorCode::NameUnresolvable;
        for candidate in candidates {
            let (v4, v6) = (self.ask(&candidate, A).await, self.ask(&candidate, AAAA).await);
            let found: Vec<IpAddr> =
                [&v4, &v6].into_iter().flatten().flatten().copied().take(ADDRESSES_MAX).collect();
            if !found.is_empty() {
                return Ok(found);
            }
            error = v4.err().unwrap_or(ErrorCode::NameUnresolvable);
        }
        Err(error)
    }

    async fn ask(&self, name: &str, kind: u16) -> Result<Vec<IpAddr>, ErrorCode> {
        for server in self.servers.iter().cycle().take(self.servers.len().saturating_mul(ATTEMPTS)) {
            let asked = tokio::time::timeout(PATIENCE, ask_one(*server, name, kind)).await;
            if let Ok(Ok(answer)) = asked {
                return answer;
            }
        }
        Err(ErrorCode::TemporaryResolverFailure)
    }
}

/// Asks one server; the outer error means that another should be asked.
async fn ask_one(
    server: SocketAddr,
    name: &str,
    kind: u16,
) -> std::io::Result<Result<Vec<IpAddr>, ErrorCode>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // A port of the kernel's choice and a number of chance: what a stranger would have to guess.
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    let mut number = [0; 2];
    rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty())?;
    let number = u16::from_ne_bytes(number);
    let question = query(number, name, kind).ok_or(std::io::ErrorKind::InvalidInput)?;
    socket.send(&question).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let packet = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = answer(packet, &question, kind) {
            return match answer {
                Err(ErrorCode::TemporaryResolverFailure) => Err(std::io::ErrorKind::Other.into()),
                answer => Ok(answer),
            };
        }
    }
}

/// A query for a name; none where it can't be one.
fn query(number: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > NAME_MAX {
        return None;
    }
    let mut packet = number.to_be_bytes().to_vec();
    // Recursion is wanted; one question.
    packet.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let is_label = (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        packet.push(u8::try_from(label.len()).ok().filter(|_| is_label)?);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    Some(packet)
}

/// The addresses in an answer; none where it isn't the answer to this question.
fn answer(packet: &[u8], question: &[u8], kind: u16) -> Option<Result<Vec<IpAddr>, ErrorCode>> {
    let is_answer = packet.get(..2)? == question.get(..2)?
        && packet.get(2)? & 0x80 != 0
        && packet.get(12..question.len())?.eq_ignore_ascii_case(question.get(12..)?);
    if !is_answer {
        return None;
    }
    match packet.get(3)? & 0x0f {
        0 => {}
        3 => return Some(Err(ErrorCode::NameUnresolvable)),
        2 => return Some(Err(ErrorCode::TemporaryResolverFailure)),
        _ => return Some(Err(ErrorCode::PermanentResolverFailure)),
    }
    let answers = u16::from_be_bytes(*packet.get(6..8)?.first_chunk()?);
    let mut rest = packet.get(question.len()..)?;
    let mut found = Vec::new();
    for _ in 0..answers {
        let Some((record, after)) = next_record(rest) else { break };
        rest = after;
        match (record, kind) {
            ((A, data), A) => found.extend(data.first_chunk::<4>().map(|octets| IpAddr::from(*octets))),
            ((AAAA, data), AAAA) => {
                found.extend(data.first_chunk::<16>().map(|octets| IpAddr::from(*octets)));
            }
            _ => {}
        }
    }
    Some(Ok(found))
}

/// A record's type and data.
type Record<'a> = (u16, &'a [u8]);

/// The next record, and what is behind it. The name before it is skipped: aliases are followed by the server.
fn next_record(mut bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    loop {
        let length = *bytes.first()?;
        if length & 0xc0 == 0xc0 {
            bytes = bytes.get(2..)?;
            break;
        }
        bytes = bytes.get(usize::from(length).saturating_add(1)..)?;
        if length == 0 {
            break;
        }
    }
    let kind = u16::from_be_bytes(*bytes.first_chunk()?);
    let length = usize::from(u16::from_be_bytes(*bytes.get(8..10)?.first_chunk()?));
    let data = bytes.get(10..)?;
    Some(((kind, data.get(..length)?), data.get(length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gives_its_addresses_and_another_s_gives_none() {
        let question = query(7, "a.example", A).unwrap();
        let mut packet = question.clone();
        (packet[2], packet[3], packet[7]) = (0x81, 0x80, 2);
        // An alias, then the address, each named by a pointer to the question.
        packet.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 3, 1, b'b', 0]);
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1]);
        let found = answer(&packet, &question, A);
        assert_eq!(found, Some(Ok(vec![IpAddr::from([192, 0, 2, 1])])));
        assert_eq!(answer(&packet, &query(8, "a.example", A).unwrap(), A), None);
        assert_eq!(answer(&packet, &query(7, "b.example", A).unwrap(), A), None);
        packet[3] = 0x83;
        assert_eq!(answer(&packet, &question, A), Some(Err(ErrorCode::NameUnresolvable)));
        for cut in 0..packet.len() {
            let _ = answer(&packet[..cut], &question, A);
        }
    }

    #[test]
    fn what_can_t_be_a_name_isn_t_asked_for() {
        let long = "x".repeat(64);
        for name in ["", ".", "a..b", "a b", &long, &"a.".repeat(200), "ä.example"] {
            assert_eq!(query(0, name, A), None, "{name}");
        }
        assert!(query(0, "a.example.", A).is_some());
    }
}
