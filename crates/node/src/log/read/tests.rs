use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::keeper::assignment::LogPlan;
use crate::log::{Stream, Writer};

/// 2026-11-28T14:00:00Z.
const NOW: u64 = 1_795_874_400_000_000_000;

fn plan(home: &TempDir, file_bytes: u64, files: u32) -> LogPlan {
    LogPlan { folder: home.path().join("log"), file_bytes, files }
}

/// Writes lines of these numbers, one nanosecond apart.
fn write(writer: &mut Writer, numbers: std::ops::Range<usize>) {
    for number in numbers {
        writer.take(Stream::Stdout, format!("{number}\n").as_bytes(), NOW + number as u64);
    }
    writer.flush(NOW);
}

/// The numbers in a chunk of whole lines.
fn numbers_in(chunk: &[u8]) -> Vec<usize> {
    assert!(chunk.is_empty() || chunk.ends_with(b"\n"));
    let lines = chunk.split_inclusive(|byte| *byte == b'\n').map(|line| parse_line(line).unwrap().text);
    lines.map(|text| std::str::from_utf8(text).unwrap().parse().unwrap()).collect()
}

/// All that a reader has to say now.
fn all(reader: &mut Reader) -> Vec<usize> {
    let mut all = Vec::new();
    loop {
        match reader.next_chunk().unwrap() {
            chunk if chunk.is_empty() => return all,
            chunk => all.extend(numbers_in(&chunk)),
        }
    }
}

fn read(plan: &LogPlan, wanted: Wanted) -> Vec<usize> {
    all(&mut Reader::open(&plan.folder, wanted).unwrap())
}

#[test]
fn all_is_read_across_files_or_only_the_end_or_what_is_new_enough() {
    let home = tempfile::tempdir().unwrap();
    let plan = plan(&home, 500, 100);
    assert_eq!(read(&plan, Wanted::default()), Vec::<usize>::new(), "nothing was written yet");
    write(&mut Writer::new(&plan), 0..300);
    assert!(plan.folder.join("log.20").exists());
    assert_eq!(read(&plan, Wanted::default()), Vec::from_iter(0..300));
    for tail in [0, 1, 10, 11, 12, 150, 299, 300, 1000] {
        let wanted = Wanted { tail: Some(tail), ..Wanted::default() };
        assert_eq!(read(&plan, wanted), Vec::from_iter(300_usize.saturating_sub(tail)..300), "{tail}");
    }
    let since = Some(UNIX_EPOCH + Duration::from_nanos(NOW + 120));
    assert_eq!(read(&plan, Wanted { since, ..Wanted::default() }), Vec::from_iter(120..300));
    assert_eq!(read(&plan, Wanted { since, tail: Some(5), follow: false }), Vec::from_iter(295..300));
    let future = Some(UNIX_EPOCH + Duration::from_nanos(NOW + 1000));
    assert!(read(&plan, Wanted { since: future, ..Wanted::default() }).is_empty());
}

#[test]
fn what_was_torn_is_left_out_and_what_comes_after_isnt() {
    let home = tempfile::tempdir().unwrap();
    let plan = plan(&home, 1 << 20, 2);
    write(&mut Writer::new(&plan), 0..3);
    let mut reader = Reader::open(&plan.folder, Wanted { follow: true, ..Wanted::default() }).unwrap();
    let mut file = File::options().append(true).open(plan.folder.join("log")).unwrap();
    file.write_all(&vec![0; 3 * CHUNK]).unwrap();
    file.write_all(b"2026-11-28T14:00:00.000000000Z std").unwrap();
    assert_eq!(all(&mut reader), [0, 1, 2]);
    write(&mut Writer::new(&plan), 3..5);
    assert_eq!(all(&mut reader), [3, 4]);
    assert_eq!(read(&plan, Wanted::default()), [0, 1, 2, 3, 4]);
}

#[test]
fn the_end_of_a_large_log_is_read_without_reading_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let plan = plan(&home, 1 << 40, 2);
    write(&mut Writer::new(&plan), 0..100);
    // A hole of 100 GB, which nobody reads in the time that a test may take.
    let file = File::options().write(true).open(plan.folder.join("log")).unwrap();
    file.set_len(100 << 30).unwrap();
    write(&mut Writer::new(&plan), 100..200);
    let wanted = Wanted { tail: Some(10), ..Wanted::default() };
    assert_eq!(read(&plan, wanted), Vec::from_iter(190..200));
}

#[test]
fn a_reader_that_follows_sees_what_a_writer_in_another_thread_writes_each_line_once() {
    const LINES: usize = 20_000;
    let home = tempfile::tempdir().unwrap();
    let plan = plan(&home, 1000, 60);
    let seen = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Writer::new(&plan);
            for number in (0..LINES).step_by(3) {
                // Some twenty lines are in a file: whoever is further behind than what is kept loses lines.
                while number > seen.load(Ordering::Acquire) + 20 * 40 {
                    std::thread::yield_now();
                }
                write(&mut writer, number..(number + 3).min(LINES));
            }
        });
        let mut reader = Reader::open(&plan.folder, Wanted { follow: true, ..Wanted::default() }).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let mut next = 0;
        while next < LINES {
            for number in numbers_in(&reader.next_chunk().unwrap()) {
                assert_eq!(number, next);
                next += 1;
            }
            seen.store(next, Ordering::Release);
            assert!(std::time::Instant::now() < deadline, "stands at {next}");
        }
    });
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize),
    /// So many calls.
    Read(usize),
    /// The writer's end, with so many bytes of a line that it didn't finish, and the next writer.
    Crash(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_usize..12).prop_map(Step::Write),
        4 => (1_usize..4).prop_map(Step::Read),
        1 => (0_usize..30).prop_map(Step::Crash),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_reader_that_follows_neither_loses_nor_repeats_a_line(steps in steps(), file_bytes in 1_u64..400) {
        let home = tempfile::tempdir().unwrap();
        let plan = plan(&home, file_bytes, 100);
        let mut writer = Writer::new(&plan);
        let mut reader = Reader::open(&plan.folder, Wanted { follow: true, ..Wanted::default() }).unwrap();
        let (mut written, mut seen) = (0, Vec::new());
        for step in steps {
            match step {
                Step::Write(lines) => {
                    // No more than is kept: what is beyond is lost by intent.
                    if written + lines < seen.len() + 90 {
                        write(&mut writer, written..written + lines);
                        written += lines;
                    }
                }
                Step::Read(calls) => {
                    for _ in 0..calls {
                        seen.extend(numbers_in(&reader.next_chunk().unwrap()));
                    }
                }
                Step::Crash(torn) => {
                    if let Ok(mut file) = File::options().append(true).open(plan.folder.join("log")) {
                        file.write_all(&b"2026-11-28T14:00:00.000000000Z stdout F"[..torn]).unwrap();
                    }
                    writer = Writer::new(&plan);
                }
            }
        }
        seen.extend(all(&mut reader));
        prop_assert_eq!(seen, Vec::from_iter(0..written));
        // What was torn counts as well.
        let tail = read(&plan, Wanted { tail: Some(20), ..Wanted::default() });
        prop_assert!(tail.len() <= 20 && (0..written).collect::<Vec<_>>().ends_with(&tail));
    }
}

/// How many removed files of this folder are held by this process.
fn held(home: &TempDir) -> usize {
    let folder = home.path().display().to_string();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let links = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    links
        .map(|link| link.display().to_string())
        .filter(|link| link.starts_with(&folder) && link.ends_with("(deleted)"))
        .count()
}

#[test]
fn who_does_not_read_holds_no_removed_file_and_is_told_what_is_missing() {
    let home = tempfile::tempdir().unwrap();
    let plan = plan(&home, 500, 2);
    let mut writer = Writer::new(&plan);
    write(&mut writer, 0..20);
    let mut reader = Reader::open(&plan.folder, Wanted { follow: true, ..Wanted::default() }).unwrap();
    let first = *all(&mut Reader::open(&plan.folder, Wanted::default()).unwrap()).first().unwrap();
    reader.let_go();
    write(&mut writer, 20..300);
    assert!(held(&home) > 0, "the test shows nothing unless something is held");
    reader.let_go();
    assert_eq!(held(&home), 0);
    let note = reader.next_chunk().unwrap();
    let note = parse_line(&note).unwrap();
    assert_eq!((note.stream, note.text), (Stream::Stderr, MISSED.as_bytes()));
    let rest = all(&mut reader);
    assert!(rest[0] > first && rest == Vec::from_iter(rest[0]..300), "{first} {rest:?}");
    write(&mut writer, 300..310);
    assert_eq!(all(&mut reader), Vec::from_iter(300..310), "it goes on, and is told once");
}

#[test]
fn who_has_read_all_of_a_removed_file_misses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let plan = plan(&home, 500, 0);
    let mut writer = Writer::new(&plan);
    write(&mut writer, 0..5);
    let mut reader = Reader::open(&plan.folder, Wanted { follow: true, ..Wanted::default() }).unwrap();
    assert_eq!(all(&mut reader), Vec::from_iter(0..5));
    std::fs::remove_file(plan.folder.join("log")).unwrap();
    drop(writer);
    reader.let_go();
    assert_eq!(held(&home), 0);
    assert_eq!(all(&mut reader), Vec::<usize>::new());
    write(&mut Writer::new(&plan), 5..9);
    assert_eq!(all(&mut reader), Vec::from_iter(5..9));
}
