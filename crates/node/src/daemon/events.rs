//! What has happened on the node: numbered, kept on disk, and told to whoever listens.
//!
//! `events` under the node's folder has one event in JSON on each line, `events.1` those before. A line that a power cut has torn is
//! left out when the file is read again.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tokio::sync::broadcast;

use super::view::Event;

/// How many events can be asked for.
const REMEMBERED: usize = 1000;
/// Size in bytes at which the file is set aside.
const ROTATE_AT: u64 = 4 * 1024 * 1024;
/// How many events a listener may be behind.
const BEHIND: usize = 1024;

/// The node's events.
#[derive(Debug)]
pub(super) struct Events {
    path: PathBuf,
    file: File,
    size: u64,
    /// Whether the file may end within a line.
    torn: bool,
    next: u64,
    last: VecDeque<Event>,
    /// How many there were of each kind since this was opened.
    counts: BTreeMap<String, u64>,
    listeners: broadcast::Sender<Event>,
}

impl Events {
    /// Goes on with what was kept.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("events");
        let mut last = VecDeque::new();
        for path in [path.with_extension("1"), path.clone()] {
            let text = match fs::read(&path) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            last.extend(text.lines().filter_map(|line| serde_json::from_str::<Event>(line).ok()));
        }
        let next = last.back().map_or(1, |event| event.number.saturating_add(1));
        last.drain(..last.len().saturating_sub(REMEMBERED));
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            size,
            torn: size > 0,
            next,
            last,
            counts: BTreeMap::new(),
            listeners: broadcast::Sender::new(BEHIND),
        })
    }

    /// Notes what has happened. A full disk is no reason to stop: listeners still hear of it.
    pub(super) fn note(
        &mut self,
        kind: &str,
        deployment: Option<&str>,
        spacecore: Option<&str>,
        text: String,
    ) {
        self.note_with(kind, deployment, spacecore, text, BTreeMap::new());
    }

    /// The same with the numbers behind it.
    pub(super) fn note_with(
        &mut self,
        kind: &str,
        deployment: Option<&str>,
        spacecore: Option<&str>,
        text: String,
        evidence: BTreeMap<String, u64>,
    ) {
        let event = Event {
            number: self.next,
            unix_ms: crate::clock::unix_time_ns() / 1_000_000,
            kind: kind.to_owned(),
            deployment: deployment.map(str::to_owned),
            spacecore: spacecore.map(str::to_owned),
            text,
            evidence,
        };
        self.next = self.next.saturating_add(1);
        let count = self.counts.entry(kind.to_owned()).or_default();
        *count = count.saturating_add(1);
        let _ = self.write(&event);
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(event.clone());
        // Nobody has to listen.
        let _ = self.listeners.send(event);
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        let mut line = Vec::new();
        if self.torn {
            // What was torn ends here.
            line.push(b'\n');
        }
        serde_json::to_writer(&mut line, event)?;
        line.push(b'\n');
        if self.size >= ROTATE_AT {
            fs::rename(&self.path, self.path.with_extension("1"))?;
            self.file = append(&self.path)?;
            self.size = 0;
        }
        self.torn = true;
        self.file.write_all(&line)?;
        self.torn = false;
        self.size = self.size.saturating_add(line.len() as u64);
        Ok(())
    }

    /// How many events there were of each kind, which are few, since the node started.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.clone()
    }

    /// What happened after the event of this number, as far as it is remembered, and all that happens from now on.
    pub(super) fn listen(&self, after: u64) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let past = self.last.iter().filter(|event| event.number > after).cloned().collect();
        (past, self.listeners.subscribe())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_after_a_restart_and_a_torn_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::open(folder.path()).unwrap();
        events.note("applied", Some("web"), None, "one".into());
        events.note("started", Some("web"), Some("web"), "two".into());
        drop(events);
        let mut file = append(&folder.path().join("events")).unwrap();
        file.write_all(b"{\"number\":3,\"unix_").unwrap();
        let mut events = Events::open(folder.path()).unwrap();
        events.note("ended", Some("web"), Some("web"), "three".into());
        let texts = |events: &Events| {
            events.listen(0).0.into_iter().map(|event| (event.number, event.text)).collect::<Vec<_>>()
        };
        let expected = vec![(1, "one".to_owned()), (2, "two".to_owned()), (3, "three".to_owned())];
        assert_eq!(texts(&events), expected);
        drop(events);
        assert_eq!(texts(&Events::open(folder.path()).unwrap()), expected);
    }

    #[test]
    fn who_listens_hears_what_was_and_what_comes() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::open(folder.path()).unwrap();
        for number in 0..5 {
            events.note("k", None, None, number.to_string());
        }
        let (past, mut coming) = events.listen(3);
        assert_eq!(past.iter().map(|event| event.number).collect::<Vec<_>>(), [4, 5]);
        events.note("k", None, None, "later".into());
        assert_eq!(coming.try_recv().unwrap().text, "later");
    }
}
