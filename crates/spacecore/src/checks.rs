//! Checks that the keeper asks for: whether the workload answers. They go on beside everything else; a bounded number at a time.

mod program;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::process::Pid;
use spacecore::wire::MAX_CHECKS;
use spacecore::wire::message::{Fetched, Network, ToHost};

use crate::probe::Probe;
use crate::process::Child;
use program::Program;

/// The longest that a check may take, whatever the keeper says.
const LONGEST: Duration = Duration::from_secs(3600);

/// All checks that are under way.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    live: Vec<Check>,
}

#[derive(Debug)]
struct Check {
    request: u32,
    begun: Instant,
    deadline: Instant,
    work: Work,
    /// The page, where one is wanted.
    result: Option<Result<Vec<u8>, String>>,
    is_page: bool,
}

/// A check that is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    request: u32,
    is_page: bool,
    result: Result<Vec<u8>, String>,
}

impl Finished {
    /// The number of the question, where it was about a page.
    pub(crate) fn page_request(&self) -> Option<u32> {
        self.is_page.then_some(self.request)
    }

    /// The answer.
    pub(crate) fn answer(self) -> ToHost {
        let Self { request, is_page, result } = self;
        if !is_page {
            return ToHost::Checked { request, failure: result.err() };
        }
        let page = result
            .and_then(|page| String::from_utf8(page).map_err(|_| "the page isn't text in UTF-8".to_owned()));
        ToHost::Fetched { request, fetched: page.map_or_else(Fetched::Failure, Fetched::Page) }
    }
}

#[derive(Debug)]
enum Work {
    Network(Probe),
    Program(Box<Program>),
}

/// Where a port of this guest may be listened on: the loopback address, and the guest's own addresses.
pub(crate) fn own_addresses(network: Option<&Network>, port: u16) -> Vec<SocketAddr> {
    let own = network.into_iter().flat_map(|network| &network.addresses);
    let own = own.filter_map(|address| address.split('/').next()?.parse::<IpAddr>().ok());
    std::iter::once(IpAddr::V4(Ipv4Addr::LOCALHOST)).chain(own).map(|ip| (ip, port).into()).collect()
}

impl Checks {
    /// Whether no more can be begun.
    pub(crate) fn is_full(&self) -> bool {
        self.live.len() >= MAX_CHECKS
    }

    /// Begins a check over the network.
    pub(crate) fn connect(&mut self, request: u32, probe: Probe, timeout_ms: u64) {
        self.begin(request, Work::Network(probe), timeout_ms);
    }

    /// Begins to fetch a page.
    pub(crate) fn fetch(&mut self, request: u32, probe: Probe, timeout_ms: u64) {
        self.begin(request, Work::Network(probe), timeout_ms);
        if let Some(check) = self.live.last_mut() {
            check.is_page = true;
        }
    }

    /// Takes over a program that was started as a check.
    pub(crate) fn watch(&mut self, request: u32, child: Child, timeout_ms: u64) {
        self.begin(request, Work::Program(Box::new(Program::new(child))), timeout_ms);
    }

    fn begin(&mut self, request: u32, work: Work, timeout_ms: u64) {
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(timeout_ms).min(LONGEST);
        self.live.push(Check { request, begun, deadline, work, result: None, is_page: false });
        self.turn(self.live.len() - 1);
    }

    /// What to wait for now, by the number of the check. Numbers hold until [`Checks::take_finished`].
    pub(crate) fn interests<'a>(&'a self, mut wait: impl FnMut(usize, BorrowedFd<'a>, PollFlags)) {
        for (index, check) in self.live.iter().enumerate() {
            match &check.work {
                Work::Network(probe) => {
                    probe.interest().into_iter().for_each(|(fd, events)| wait(index, fd, events));
                }
                Work::Program(program) => program.interests(|fd| wait(index, fd, PollFlags::IN)),
            }
        }
    }

    /// Goes on with a check to which something has happened.
    pub(crate) fn turn(&mut self, index: usize) {
        if let Some(check) = self.live.get_mut(index).filter(|check| check.result.is_none()) {
            check.result = match &mut check.work {
                Work::Network(probe) => probe.turn(),
                Work::Program(program) => program.turn().map(|result| result.map(|()| Vec::new())),
            };
        }
    }

    /// Notes that a process has exited, which may be a check's.
    pub(crate) fn exited(&mut self, pid: Pid, code: Option<i32>, signal: Option<i32>) {
        for index in 0..self.live.len() {
            if let Work::Program(program) = &mut self.live[index].work
                && program.pid() == pid
            {
                program.exited(code, signal);
                self.turn(index);
            }
        }
    }

    /// When checks are looked at next although nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let lingering = |check: &Check| match &check.work {
            Work::Network(_) => None,
            Work::Program(program) => program.deadline(),
        };
        self.live.iter().map(|check| lingering(check).unwrap_or(check.deadline).min(check.deadline)).min()
    }

    /// Takes the checks that are over.
    pub(crate) fn take_finished(&mut self) -> Vec<Finished> {
        let now = Instant::now();
        let mut finished = Vec::new();
        self.live.retain_mut(|check| {
            let is_lingering = matches!(&check.work, Work::Program(program) if program.deadline().is_some());
            if check.result.is_none() && is_lingering {
                check.result = match &mut check.work {
                    Work::Network(_) => None,
                    Work::Program(program) => program.turn().map(|result| result.map(|()| Vec::new())),
                };
            }
            if check.result.is_none() && now >= check.deadline {
                if let Work::Program(program) = &check.work {
                    program.kill();
                }
                let waited = check.deadline.saturating_duration_since(check.begun).as_millis();
                check.result = Some(Err(format!("no answer within {waited} ms")));
            }
            match check.result.take() {
                Some(result) => {
                    let Check { request, is_page, .. } = *check;
                    finished.push(Finished { request, is_page, result });
                    false
                }
                None => true,
            }
        });
        finished
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn loopback_comes_first_and_then_what_the_guest_is_called_outside() {
        let network = Network {
            addresses: vec!["10.0.2.15/24".into(), "fd00::2/64".into(), "nonsense".into()],
            gateways: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
            mtu: 1500,
        };
        let shown: Vec<_> = own_addresses(Some(&network), 80).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["127.0.0.1:80", "10.0.2.15:80", "[fd00::2]:80"]);
        assert_eq!(own_addresses(None, 80).len(), 1);
    }

    #[test]
    fn a_check_that_gets_no_answer_ends_in_time_and_makes_room() {
        // It takes connections and says nothing.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut checks = Checks::default();
        for request in 0..MAX_CHECKS {
            assert!(!checks.is_full());
            let request = u32::try_from(request).unwrap();
            checks.connect(request, Probe::new([address], Some("/".to_owned())), 50);
        }
        assert!(checks.is_full() && checks.take_finished().is_empty());
        let deadline = checks.deadline().unwrap();
        assert!(deadline <= Instant::now() + Duration::from_millis(50));
        std::thread::sleep(deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(20));
        let finished = checks.take_finished();
        assert_eq!(finished.len(), MAX_CHECKS);
        let failure = Some("no answer within 50 ms".to_owned());
        assert_eq!(finished.into_iter().next().unwrap().answer(), ToHost::Checked { request: 0, failure });
        assert!(!checks.is_full() && checks.deadline().is_none());
    }
}
