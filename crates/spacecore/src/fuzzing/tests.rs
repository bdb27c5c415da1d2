use crate::wire::message::{Configuration, Fetched, Probe, Process};

use super::*;

#[path = "../../../../fuzz/mutated.rs"]
mod mutated;

#[test]
fn an_archive_stands_any_change() {
    use crate::archive::{Entry, Kind, Time, write::Writer};
    let modified = Time { seconds: 1_700_000_000, nanoseconds: 7 };
    let mut writer = Writer::new(Vec::new());
    let long = vec![b'n'; 120];
    for kind in [
        Kind::Folder,
        Kind::File { size: 3 },
        Kind::Symlink { target: long.clone() },
        Kind::HardLink { target: b"a".to_vec() },
    ] {
        let has_data = kind == Kind::File { size: 3 };
        writer.begin(&Entry { path: long.clone(), kind, mode: 0o644, modified }).unwrap();
        if has_data {
            writer.data(b"abc").unwrap();
        }
    }
    let seeds = [writer.finish().unwrap()];
    mutated::stands(env!("CARGO_MANIFEST_DIR"), "archive", &seeds, archive);
}

#[test]
fn the_channel_stands_any_change() {
    let mut link = Link::new();
    link.open_sender(stdout_of(0));
    link.open_folder(FIRST_FOLDER);
    let configuration = Configuration::of("web", Process::of(["/bin/sh"]));
    assert!(link.send_control(&ToGuest::Configure(Box::new(configuration))));
    assert!(link.send_control(&ToGuest::Signal { process: 0, signal: 15 }));
    let probe = Probe::Http { port: 80, path: "/".to_owned() };
    assert!(link.send_control(&ToGuest::Check { request: 1, probe, timeout_ms: 1000 }));
    assert!(link.send_control(&ToHost::Checked { request: 1, failure: Some("no".to_owned()) }));
    let path = "/metrics".to_owned();
    assert!(link.send_control(&ToGuest::Fetch { request: 2, port: 80, path, timeout_ms: 1000 }));
    let fetched = Fetched::Page("up 1\n".to_owned());
    assert!(link.send_control(&ToHost::Fetched { request: 2, fetched }));
    link.send_data(stdout_of(0), b"hello");
    assert!(link.send_message(FIRST_FOLDER, &[0; 48]));
    link.send_eof(stdout_of(0));
    let mut credit = vec![7];
    Frame::Credit { stream: stdin_of(0), bytes: 1000 }.encode(&mut credit);
    let seeds = [[&[200], link.outgoing()].concat(), [&[3], link.outgoing()].concat(), credit];
    mutated::stands(env!("CARGO_MANIFEST_DIR"), "channel", &seeds, channel);
}
