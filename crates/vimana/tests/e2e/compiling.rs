//! Compiling a stranger's Wasm program takes a bounded share of the machine, and no neighbour with it.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::support::{Home, Killed, code, text};

fn unsigned(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

fn section(number: u8, body: &[u8]) -> Vec<u8> {
    [&[number][..], &unsigned(u32::try_from(body.len()).unwrap()), body].concat()
}

/// A program of one function whose loops each change every one of its variables: a compiler has to think of each of them at
/// each loop.
fn bomb(locals: u32, loops: u32) -> Vec<u8> {
    let mut code = [&[1][..], &unsigned(locals), &[0x7f]].concat();
    for round in 0..loops {
        code.extend_from_slice(&[0x03, 0x40]);
        for local in 0..locals {
            // local = local + the next one.
            let next = (local + round + 1) % locals;
            code.extend(
                [&[0x20][..], &unsigned(local), &[0x20], &unsigned(next), &[0x6a, 0x21], &unsigned(local)]
                    .concat(),
            );
        }
    }
    for round in 0..loops {
        code.extend([&[0x20][..], &unsigned(round % locals), &[0x0d, 0, 0x0b]].concat());
    }
    code.push(0x0b);
    let body = [&unsigned(u32::try_from(code.len()).unwrap())[..], &code].concat();
    [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &[1, 0x60, 0, 0]),
        section(3, &[1, 0]),
        section(5, &[1, 0, 1]),
        section(7, b"\x02\x06memory\x02\x00\x06_start\x00\x00"),
        section(10, &[&[1][..], &body].concat()),
    ]
    .concat()
}

#[test]
fn a_program_that_no_compiler_can_bear_is_refused_and_its_neighbour_goes_on() {
    let test = "a_program_that_no_compiler_can_bear_is_refused_and_its_neighbour_goes_on";
    let Some(home) = Home::new(test) else { return };
    let file = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        format!("wasm:{}", path.display())
    };
    // It reads a line, and writes it: a neighbour in the same keeper.
    let neighbour = file("cat.wasm", &cat());
    let mut child = Killed(
        home.vimana(&["run", "-i", "--isolation", "Wasm", "--network", "none", &neighbour])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut input = child.0.stdin.take().unwrap();
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let mut answers = |word: &str| {
        writeln!(input, "{word}").unwrap();
        lines.next().unwrap().unwrap() == word
    };
    assert!(answers("before"));
    let bomb = file("bomb.wasm", &bomb(2500, 300));
    let output = home.vimana(&["run", "--isolation", "Wasm", "--network", "none", &bomb]).output().unwrap();
    let words = text(&output.stderr);
    assert_eq!(code(output.status), 126, "{words}");
    assert!(words.contains("compiling it takes more than 1024 MiB of memory or 120 s"), "{words}");
    assert!(answers("after"));
    drop(child);
    home.assert_nothing_is_left();
}

/// Copies its standard input to its output, a kilobyte at a time: `fd_read` and `fd_write` of WASI preview 1.
pub fn cat() -> Vec<u8> {
    let import = |name: &str| {
        [&[22][..], b"wasi_snapshot_preview1", &[name.len() as u8], name.as_bytes(), &[0, 0]].concat()
    };
    // The buffer at 64; its description at 0; the count at 16, which becomes the length of what is written, at 12.
    let call = |stream: u8, function: u8, list: u8| {
        [0x41, stream, 0x41, list, 0x41, 1, 0x41, 16, 0x10, function, 0x1a]
    };
    let store = |at: u8, value: &[u8]| [&[0x41, at, 0x41][..], value, &[0x36, 2, 0]].concat();
    let mut code = vec![0];
    code.extend(store(0, &[0xc0, 0]));
    code.extend(store(4, &[0x80, 8]));
    code.extend(store(8, &[0xc0, 0]));
    code.extend([0x03, 0x40]);
    code.extend(call(0, 0, 0));
    // What was read is what is written.
    code.extend([0x41, 12, 0x41, 16, 0x28, 2, 0, 0x36, 2, 0]);
    code.extend([0x41, 12, 0x28, 2, 0, 0x45, 0x04, 0x40, 0x0f, 0x0b]);
    code.extend(call(1, 1, 8));
    code.extend([0x0c, 0, 0x0b, 0x0b]);
    let body = [&unsigned(u32::try_from(code.len()).unwrap())[..], &code].concat();
    let imports = [&[2][..], &import("fd_read"), &import("fd_write")].concat();
    [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &[2, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 0]),
        section(2, &imports),
        section(3, &[1, 1]),
        section(5, &[1, 0, 1]),
        section(7, b"\x02\x06memory\x02\x00\x06_start\x00\x02"),
        section(10, &[&[1][..], &body].concat()),
    ]
    .concat()
}
