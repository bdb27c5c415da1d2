//! The node's side of a balancer: finds or starts it, tells it what is to be served, and starts another where it dies.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::core::Happening;
use super::line::look;
use super::port;
use crate::balance::{self, FromBalancer, Lines, SOCKET, Service, ToBalancer, VERSION};
use crate::run_folder::{self, Left};

/// How often something is looked for that nobody announces.
const NAP: Duration = Duration::from_millis(20);
/// How often what failed is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// What a balancer is to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Serve this; some of its ports are bound already.
    Serve(Service, Vec<(u16, TcpListener)>),
    /// End, with all that is left of it.
    End,
}

/// What there is to say of a balancer.
#[derive(Debug)]
pub(super) enum Said {
    /// Nobody is connected to this backend any more.
    Drained(String),
    /// Something isn't as it should be, for people.
    Trouble(String),
    /// It has ended, as it was told to, and nothing of it is left.
    Gone,
}

/// A balancer, as its task knows it.
pub(super) struct Balancer {
    /// The program that it is.
    pub(super) program: PathBuf,
    /// The deployment's name.
    pub(super) deployment: String,
    /// Its run folder.
    pub(super) folder: PathBuf,
    /// Where to tell what happens.
    pub(super) tell: UnboundedSender<Happening>,
    /// What it is to do.
    pub(super) orders: UnboundedReceiver<Order>,
    /// What is wanted now.
    pub(super) wanted: Wanted,
}

/// What was ordered, all together.
#[derive(Default)]
pub(super) struct Wanted {
    service: Service,
    /// The same sockets as the balancer's, as far as this node has bound them: they outlive a balancer that is killed.
    bound: BTreeMap<u16, TcpListener>,
    ends: bool,
    /// What was complained of last, so that it is said once.
    complaint: Option<String>,
}

impl Balancer {
    /// Keeps a balancer until it is told to end, or this node does.
    pub(super) async fn keep(mut self) {
        let mut child = None;
        loop {
            let mut lines = match self.reach(&mut child).await {
                Ok(Some(reached)) => reached,
                Ok(None) => break,
                Err(Ending) => return,
            };
            // Whatever ended the connection, the lock of the folder tells whether the balancer has ended.
            if let Ok(Some(Ending)) = self.speak(&mut lines).await {
                return;
            }
            drop(lines);
            sleep(NAP).await;
            if !self.wanted.ends && look(&self.folder) != Left::Held {
                self.say(Said::Trouble("the balancer has ended; another is started".to_owned()));
            }
        }
        let folder = self.folder.clone();
        // What can't be removed is swept away later.
        let _ = spawn_blocking(move || run_folder::clear(&folder)).await;
        self.say(Said::Gone);
    }

    /// Connects to the balancer that there is, or starts one; nothing where none is wanted and there is none.
    async fn reach(&mut self, child: &mut Option<Child>) -> Result<Option<Lines>, Ending> {
        loop {
            loop {
                match self.orders.try_recv() {
                    Ok(order) => self.wanted.take(order),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Err(Ending),
                }
            }
            if look(&self.folder) == Left::Held {
                if let Ok(stream) = UnixStream::connect(self.folder.join(SOCKET)).await {
                    return Ok(Some(Lines::new(stream)));
                }
                sleep(NAP).await;
                continue;
            }
            if let Some(mut ended) = child.take() {
                // Its lock is free, so that this doesn't take long.
                let _ = spawn_blocking(move || ended.wait()).await;
            }
            if self.wanted.ends {
                return Ok(None);
            }
            let (program, folder) = (self.program.clone(), self.folder.clone());
            let started = spawn_blocking(move || {
                run_folder::clear(&folder)?;
                balance::start(&program, &folder)
            });
            match started.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(started) => *child = Some(started),
                Err(error) => {
                    self.complain(format!("no balancer can be started: {}", image::whole(&error)));
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// Speaks with the balancer until one of both ends.
    async fn speak(&mut self, lines: &mut Lines) -> io::Result<Option<Ending>> {
        let Some(hello) = lines.next::<serde_json::Value>().await? else { return Ok(None) };
        let mut theirs = match serde_json::from_value(hello) {
            Ok(FromBalancer::Hello { version: VERSION, ports }) => ports,
            Ok(_) | Err(_) => {
                // Another version's: it makes room for one of this version's.
                lines.send(&ToBalancer::End, None).await?;
                while lines.next::<serde::de::IgnoredAny>().await?.is_some() {}
                return Ok(None);
            }
        };
        let mut is_complete = self.push(lines, &mut theirs).await?;
        loop {
            tokio::select! {
                order = self.orders.recv() => {
                    let Some(order) = order else { return Ok(Some(Ending)) };
                    self.wanted.take(order);
                    is_complete = self.push(lines, &mut theirs).await?;
                }
                message = lines.next() => match message? {
                    Some(FromBalancer::Drained { backend }) => self.say(Said::Drained(backend)),
                    Some(FromBalancer::Hello { .. }) => {}
                    None => return Ok(None),
                },
                () = sleep(AGAIN), if !is_complete => {
                    is_complete = self.push(lines, &mut theirs).await?;
                }
            }
        }
    }

    /// Tells the balancer everything; whether every port could be had.
    async fn push(&mut self, lines: &Lines, theirs: &mut BTreeSet<u16>) -> io::Result<bool> {
        if self.wanted.ends {
            lines.send(&ToBalancer::End, None).await?;
            return Ok(true);
        }
        let ports = self.wanted.service.ports.clone();
        theirs.retain(|port| ports.contains(port));
        let mut is_complete = true;
        for port in ports {
            if theirs.contains(&port) {
                continue;
            }
            match self.wanted.listener(port) {
                Ok(listener) => {
                    lines.send(&ToBalancer::Listen { port }, Some(listener.as_fd())).await?;
                    theirs.insert(port);
                }
                Err(error) => {
                    is_complete = false;
                    self.complain(format!("can't listen on port {port}: {error}"));
                }
            }
        }
        lines.send(&ToBalancer::Serve(self.wanted.service.clone()), None).await?;
        if is_complete {
            self.wanted.complaint = None;
        }
        Ok(is_complete)
    }

    fn complain(&mut self, text: String) {
        if self.wanted.complaint.as_ref() != Some(&text) {
            self.wanted.complaint = Some(text.clone());
            self.say(Said::Trouble(text));
        }
    }

    fn say(&self, said: Said) {
        // Where nobody hears it the node is ending.
        let _ = self.tell.send(Happening::Balancer { deployment: self.deployment.clone(), said });
    }
}

/// This node is ending, and the balancer goes on.
struct Ending;

impl Wanted {
    fn take(&mut self, order: Order) {
        match order {
            Order::Serve(service, bound) => {
                self.bound.extend(bound);
                self.bound.retain(|port, _| service.ports.contains(port));
                self.service = service;
            }
            Order::End => {
                self.ends = true;
                self.bound.clear();
            }
        }
    }

    /// The socket for a port, which is bound where it isn't yet.
    fn listener(&mut self, port: u16) -> io::Result<&TcpListener> {
        use std::collections::btree_map::Entry;
        match self.bound.entry(port) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(port::bind(port)?)),
        }
    }
}

/// Ends a balancer of a deployment that isn't there any more.
pub(super) async fn end(folder: PathBuf) {
    if let Ok(stream) = UnixStream::connect(folder.join(SOCKET)).await {
        // One that is gone has ended.
        let _ = Lines::new(stream).send(&ToBalancer::End, None).await;
    }
}
