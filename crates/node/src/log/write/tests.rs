use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::log::{Line, parse_line};

/// 2026-11-28T14:00:00Z.
const NOW: u64 = 1_795_874_400_000_000_000;

fn plan(home: &TempDir, file_bytes: u64, files: u32) -> LogPlan {
    LogPlan { folder: home.path().join("logs/one"), file_bytes, files }
}

/// What the files hold, the oldest first.
fn stored(folder: &Path) -> Vec<(u32, Vec<u8>)> {
    let mut files: Vec<(u32, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (number_of(entry.file_name().to_str().unwrap()).unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    files
}

fn text(folder: &Path) -> String {
    String::from_utf8(stored(folder).into_iter().flat_map(|(_, bytes)| bytes).collect()).unwrap()
}

/// What was printed to a stream, put together again.
fn printed(stored: &[u8], stream: Stream) -> Vec<u8> {
    let lines = stored.split_inclusive(|byte| *byte == b'\n').map(|line| parse_line(line).unwrap());
    let mut printed = Vec::new();
    for Line { full, text, .. } in lines.filter(|line| line.stream == stream) {
        printed.extend_from_slice(text);
        printed.extend(full.then_some(b'\n'));
    }
    printed
}

#[test]
fn lines_are_stored_as_container_runtimes_store_them_and_by_their_owner_alone() {
    let home = tempfile::tempdir().unwrap();
    let plan = plan(&home, 1 << 20, 2);
    let mut writer = Writer::new(&plan);
    writer.take(Stream::Stdout, b"one\ntw", NOW);
    writer.take(Stream::Stderr, b"\xff\x00oops\n", NOW + 1);
    writer.take(Stream::Stdout, b"o\n\nprompt> ", NOW + 2);
    writer.flush(NOW + 2);
    writer.end(Stream::Stdout, NOW + 3);
    writer.flush(NOW + 3);
    let stored = fs::read(plan.folder.join("log")).unwrap();
    let wanted = b"2026-11-28T14:00:00.000000000Z stdout F one\n\
        2026-11-28T14:00:00.000000001Z stderr F \xff\x00oops\n\
        2026-11-28T14:00:00.000000002Z stdout F two\n\
        2026-11-28T14:00:00.000000002Z stdout F \n\
        2026-11-28T14:00:00.000000003Z stdout P prompt> \n";
    assert_eq!(String::from_utf8_lossy(&stored), String::from_utf8_lossy(wanted));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&plan.folder), mode(&plan.folder.join("log"))), (0o700, 0o600));
}

#[test]
fn a_long_line_is_cut_into_parts() {
    let home = tempfile::tempdir().unwrap();
    let plan = plan(&home, 1 << 20, 2);
    let mut writer = Writer::new(&plan);
    let long = [vec![b'x'; 2 * MAX_TEXT], b"\n".to_vec(), vec![b'y'; MAX_TEXT], b"z\n".to_vec()].concat();
    long.chunks(1000).for_each(|piece| writer.take(Stream::Stdout, piece, NOW));
    writer.flush(NOW);
    let stored = fs::read(plan.folder.join("log")).unwrap();
    let lines = stored.split_inclusive(|byte| *byte == b'\n').map(|line| parse_line(line).unwrap());
    let lines: Vec<_> = lines.map(|line| (line.full, line.text.len())).collect();
    assert_eq!(lines, [(false, MAX_TEXT), (true, MAX_TEXT), (false, MAX_TEXT), (true, 1)]);
    assert_eq!(printed(&stored, Stream::Stdout), long);
}

#[test]
fn no_more_files_are_kept_than_asked_for_and_each_is_full_of_whole_lines() {
    for files in [0, 1, 3] {
        let home = tempfile::tempdir().unwrap();
        let plan = plan(&home, 1000, files);
        let mut writer = Writer::new(&plan);
        for round in 0..200 {
            writer.take(Stream::Stdout, format!("line {round}\nand one more\n").as_bytes(), NOW);
            writer.flush(NOW);
        }
        let stored = stored(&plan.folder);
        assert_eq!(stored.len(), files as usize + 1);
        for (_, bytes) in &stored {
            assert!(bytes.len() <= 1000 && bytes.ends_with(b"\n"));
            assert!(bytes.split_inclusive(|byte| *byte == b'\n').all(|line| parse_line(line).is_some()));
        }
        assert!(
            text(&plan.folder)
                .ends_with("stdout F line 199\n2026-11-28T14:00:00.000000000Z stdout F and one more\n")
        );
    }
}

#[test]
fn the_next_writer_goes_on_and_forgets_what_is_too_much_for_it() {
    let home = tempfile::tempdir().unwrap();
    let many = plan(&home, 100, 5);
    let write = |plan: &LogPlan, words: &str| {
        let mut writer = Writer::new(plan);
        writer.take(Stream::Stdout, words.as_bytes(), NOW);
        writer.flush(NOW);
    };
    (0..9).for_each(|round| {
        write(&many, &format!("a line that is some fifty bytes long with its time {round}\n"))
    });
    assert_eq!(stored(&many.folder).len(), 6);
    write(&LogPlan { files: 1, ..many.clone() }, "last\n");
    let numbers: Vec<u32> = stored(&many.folder).into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, [1, 0]);
    assert!(text(&many.folder).contains("time 8\n") && text(&many.folder).ends_with("F last\n"));
}

#[test]
fn after_a_torn_line_the_next_one_begins_afresh() {
    let home = tempfile::tempdir().unwrap();
    let plan = plan(&home, 1 << 20, 2);
    fs::create_dir_all(&plan.folder).unwrap();
    fs::write(plan.folder.join("log"), "2026-11-28T13:59:59.000000000Z stdout F ok\n2026-11-28T13:5")
        .unwrap();
    let mut writer = Writer::new(&plan);
    writer.take(Stream::Stdout, b"again\n", NOW);
    writer.flush(NOW);
    assert_eq!(
        text(&plan.folder),
        "2026-11-28T13:59:59.000000000Z stdout F ok\n2026-11-28T13:5\n2026-11-28T14:00:00.000000000Z stdout F again\n"
    );
}

#[test]
fn what_cant_be_written_is_counted_and_told_once_something_can() {
    let home = tempfile::tempdir().unwrap();
    let plan = plan(&home, 1 << 20, 2);
    // A file where the folder should be.
    fs::write(home.path().join("logs"), "").unwrap();
    let mut writer = Writer::new(&plan);
    for _ in 0..3 {
        writer.take(Stream::Stdout, b"lost\nlost too\n", NOW);
        writer.flush(NOW);
    }
    fs::remove_file(home.path().join("logs")).unwrap();
    writer.take(Stream::Stdout, b"kept\n", NOW + 1);
    writer.flush(NOW + 1);
    writer.take(Stream::Stdout, b"kept too\n", NOW + 2);
    writer.flush(NOW + 2);
    assert_eq!(
        text(&plan.folder),
        "2026-11-28T14:00:00.000000001Z stderr F vimana: 6 lines of output are missing here: Not a directory (os error 20)\n\
         2026-11-28T14:00:00.000000001Z stdout F kept\n2026-11-28T14:00:00.000000002Z stdout F kept too\n"
    );
}

#[test]
fn a_log_that_is_taken_away_meanwhile_begins_again() {
    let home = tempfile::tempdir().unwrap();
    let plan = plan(&home, 200, 2);
    let mut writer = Writer::new(&plan);
    writer.take(Stream::Stdout, b"one\n", NOW);
    writer.flush(NOW);
    fs::remove_dir_all(&plan.folder).unwrap();
    for _ in 0..20 {
        writer.take(Stream::Stdout, b"some words of more or less length\n", NOW);
        writer.flush(NOW);
    }
    assert!(text(&plan.folder).contains("some words"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_was_printed_can_be_given_back(
        pieces in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300), any::<bool>()),
            0..60,
        ),
        file_bytes in 200_u64..4000,
    ) {
        let home = tempfile::tempdir().unwrap();
        let plan = plan(&home, file_bytes, 100);
        let mut writer = Writer::new(&plan);
        let mut wanted = [Vec::new(), Vec::new()];
        for (err, bytes, flushed) in &pieces {
            let stream = if *err { Stream::Stderr } else { Stream::Stdout };
            writer.take(stream, bytes, NOW);
            wanted[stream as usize].extend_from_slice(bytes);
            if *flushed {
                writer.flush(NOW);
            }
        }
        writer.end(Stream::Stdout, NOW);
        writer.end(Stream::Stderr, NOW);
        writer.flush(NOW);
        let files = if plan.folder.exists() { stored(&plan.folder) } else { Vec::new() };
        let all: Vec<u8> = files.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        // Where more files were filled than are kept, the end is there.
        if files.len() <= 100 {
            prop_assert_eq!(printed(&all, Stream::Stdout), &wanted[0][..]);
            prop_assert_eq!(printed(&all, Stream::Stderr), &wanted[1][..]);
        }
    }
}
