//! The machine: how it is started, and how its end is noticed.

use hypercore::driver::{Body, Ended, Wiring};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::network::{Joined, Joining};
use super::{Host, PARENT, shown};
use crate::folder::Folder;
use crate::keeper::assignment::{FolderShare, Lifetime};
use crate::keeper::driver;
use crate::keeper::shares::Shares;
use crate::keeper::state::Input;
use crate::keeper::wire_socket::WireSocket;
use crate::run_folder;
use crate::volume;

impl Host {
    /// Starts the machine; a failure is an outcome like any other.
    pub(super) fn start(&mut self) {
        if let Err(reason) = self.start_machine() {
            self.machine = None;
            self.input(Input::NotStarted(reason));
        }
    }

    /// Starts the machine before anything that has a thread of its own: a container is forked from this process, which must
    /// be single-threaded for that.
    fn start_machine(&mut self) -> Result<(), String> {
        let folders = self.open_folders()?;
        for volume in &self.assignment.volumes {
            self.volumes.push(volume::hold(volume).map_err(|error| image::whole(&error))?);
        }
        for disk in &self.assignment.scratch {
            hypercore::scratch::create(&disk.path, disk.bytes).map_err(|error| image::whole(&error))?;
        }
        let folder = match &self.assignment.machine.body {
            Body::Container(container) => Some(&container.folder),
            Body::Virtual(machine) => machine.folder.as_ref(),
            Body::Wasm(wasm) => wasm.folder.as_ref(),
        };
        if let Some(folder) = folder {
            run_folder::make(folder).map_err(|error| image::whole(&error))?;
        }
        let pair = || socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair().map_err(|error| image::whole(&error))?;
        let network = self.assignment.network.as_ref();
        let (joining, network_wire) = Joining::begin(network, &self.assignment.machine.body)?.unzip();
        let driver = driver(&self.assignment.driver).map_err(|error| image::whole(&error))?;
        let prepared = driver.prepare(&self.assignment.machine).map_err(|error| image::whole(&error))?;
        let wiring = Wiring { channel: theirs, network: network_wire, console: None };
        self.machine = Some(driver.start(&prepared, wiring).map_err(|error| image::whole(&error))?);
        self.mark("machine started");
        if let (Some(plan), Some(joining)) = (&self.assignment.network, joining) {
            self.network =
                Some(joining.finish(plan, &self.assignment.run_folder, self.assignment.machine.class)?);
            self.mark("network ready");
            self.tell_published();
        }
        let mut guest = WireSocket::new(ours).map_err(|error| image::whole(&error))?;
        self.processes.open_workload(&mut guest.link, self.assignment.configuration.process.stdin);
        if self.assignment.lifetime == Lifetime::Bound
            && let Some(parent) = self.clients.get_mut(&PARENT)
        {
            // A workload may have ended before its parent has said a word; what it printed is the parent's.
            self.processes.attach(PARENT, &mut parent.link);
        }
        for share in &self.assignment.folders {
            guest.link.open_folder(share.stream);
        }
        self.guest = Some(guest);
        if !folders.is_empty() {
            // Last: nothing else may fail once a thread holds the folders.
            self.shares = Some(Shares::serve(folders).map_err(|error| image::whole(&error))?);
        }
        Ok(())
    }

    pub(super) fn open_folders(&self) -> Result<Vec<(u16, Folder)>, String> {
        let open = |share: &FolderShare| match Folder::open(&share.source, share.readonly) {
            Ok(folder) => Ok((share.stream, folder)),
            Err(error) => Err(image::whole(&error)),
        };
        self.assignment.folders.iter().map(open).collect()
    }

    pub(super) fn kill_machine(&mut self) {
        let reason = match self.machine.take().map(|mut machine| machine.stop()) {
            Some(Ok(ended)) => describe(&ended),
            Some(Err(error)) => image::whole(&error),
            None => return,
        };
        // What the guest has said before its end still counts; there can't come more.
        self.read_guest(true);
        self.input(Input::MachineEnded(reason));
    }

    /// Ends the spacecore where its network has ended by itself.
    pub(super) fn watch_network(&mut self) {
        let Some(words) = self.network.as_mut().and_then(Joined::ended) else { return };
        self.network = None;
        // It ends with the machine too, a moment before the machine's own end can be seen.
        std::thread::sleep(std::time::Duration::from_millis(100));
        self.watch_machine();
        if self.machine.is_some() {
            self.input(Input::NetworkEnded(shown(&words)));
        }
    }

    pub(super) fn watch_machine(&mut self) {
        let Some(machine) = &mut self.machine else { return };
        let reason = match machine.ended() {
            Ok(Some(ended)) => describe(&ended),
            Ok(None) => return,
            Err(error) => image::whole(&error),
        };
        self.machine = None;
        self.read_guest(true);
        self.input(Input::MachineEnded(reason));
    }
}

fn describe(ended: &Ended) -> String {
    let how = match (ended.code, ended.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "no status".to_owned(),
    };
    match ended.stderr.trim() {
        "" => how,
        words => format!("{how}: {}", shown(words)),
    }
}
