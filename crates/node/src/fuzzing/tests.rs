#[path = "../../../../fuzz/mutated.rs"]
mod mutated;

fn request(opcode: u32, node: u64, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let length = u32::try_from(40 + body.len()).unwrap();
    let head = [&length.to_ne_bytes()[..], &opcode.to_ne_bytes(), &7_u64.to_ne_bytes(), &node.to_ne_bytes()]
        .concat();
    [head, vec![0; 16], body].concat()
}

#[test]
fn requests_of_a_guest_s_kernel_stand_any_change() {
    let init = request(26, 0, &[&7_u32.to_ne_bytes(), &33_u32.to_ne_bytes(), &[0; 8]]);
    let look_up = request(1, 1, &[b"a\0"]);
    let open = request(14, 2, &[&2_u32.to_ne_bytes(), &[0; 4]]);
    let read = request(15, 2, &[&1_u64.to_ne_bytes(), &[0; 8], &100_u32.to_ne_bytes(), &[0; 20]]);
    let write = request(16, 2, &[&1_u64.to_ne_bytes(), &[0; 8], &3_u32.to_ne_bytes(), &[0; 20], b"abc"]);
    let link = request(6, 1, &[b"l\0../../etc\0"]);
    let rename = request(12, 1, &[&1_u64.to_ne_bytes(), b"a\0b\0"]);
    let make = request(9, 1, &[&0o755_u32.to_ne_bytes(), &[0; 4], b"d\0"]);
    let create = request(35, 1, &[&2_u32.to_ne_bytes(), &0o644_u32.to_ne_bytes(), &[0; 8], b"n\0"]);
    let list = [
        request(27, 1, &[&[0; 8]]),
        request(28, 1, &[&2_u64.to_ne_bytes(), &[0; 8], &4096_u32.to_ne_bytes(), &[0; 20]]),
    ]
    .concat();
    let seeds = [
        [init.clone(), look_up.clone(), open, read, write].concat(),
        [init.clone(), look_up, rename, link, make, create].concat(),
        [init, list].concat(),
    ];
    mutated::stands(env!("CARGO_MANIFEST_DIR"), "folder", &seeds, super::folder);
}
