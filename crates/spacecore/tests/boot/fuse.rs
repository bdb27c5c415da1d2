//! Just enough of a FUSE server for the tests: a folder with one file, or one file. Source: `linux/fuse.h`.

/// What is served.
pub(crate) struct Served {
    pub(crate) file: bool,
    pub(crate) content: Vec<u8>,
}

const ROOT: u64 = 1;
const FILE: u64 = 2;

impl Served {
    /// The answer to a request, `None` where none is wanted.
    pub(crate) fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let u32_at = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().unwrap());
        let (opcode, unique, node) = (u32_at(4), u64_at(8), u64_at(16));
        let body = &request[40..];
        let result = match opcode {
            1 if body == b"hello\0" => Ok(self.entry()),
            1 => Err(libc::ENOENT),
            2 | 42 => return None,
            3 => Ok([&[0; 16][..], &self.attributes(node)].concat()),
            14 | 27 => Ok(vec![0; 16]),
            15 => {
                let (offset, size) = (u64_at(48) as usize, u32_at(56) as usize);
                let start = offset.min(self.content.len());
                Ok(self.content[start..self.content.len().min(start + size)].to_vec())
            }
            28 if u64_at(48) == 0 => Ok([
                &FILE.to_le_bytes()[..],
                &1u64.to_le_bytes(),
                &5u32.to_le_bytes(),
                &8u32.to_le_bytes(),
                b"hello\0\0\0",
            ]
            .concat()),
            28 => Ok(Vec::new()),
            17 => Ok(vec![0; 80]),
            18 | 25 | 29 | 34 => Ok(Vec::new()),
            26 => {
                let mut out = vec![0; 64];
                out[0..4].copy_from_slice(&7u32.to_le_bytes());
                out[4..8].copy_from_slice(&31u32.to_le_bytes());
                out[8..12].copy_from_slice(&(128u32 << 10).to_le_bytes());
                out[20..24].copy_from_slice(&(1u32 << 20).to_le_bytes());
                Ok(out)
            }
            38 => return None,
            _ => Err(libc::ENOSYS),
        };
        let (error, payload) = match result {
            Ok(payload) => (0, payload),
            Err(error) => (-error, Vec::new()),
        };
        let length = 16 + payload.len() as u32;
        Some([&length.to_le_bytes()[..], &error.to_le_bytes(), &unique.to_le_bytes(), &payload].concat())
    }

    fn attributes(&self, node: u64) -> Vec<u8> {
        let is_file = self.file || node != ROOT;
        let (mode, size) = match is_file {
            true => (0o100644u32, self.content.len() as u64),
            false => (0o040755, 0),
        };
        let mut out = vec![0; 88];
        out[0..8].copy_from_slice(&node.to_le_bytes());
        out[8..16].copy_from_slice(&size.to_le_bytes());
        out[60..64].copy_from_slice(&mode.to_le_bytes());
        out[64..68].copy_from_slice(&1u32.to_le_bytes());
        out
    }

    fn entry(&self) -> Vec<u8> {
        let mut out = vec![0; 40];
        out[0..8].copy_from_slice(&FILE.to_le_bytes());
        [out, self.attributes(FILE)].concat()
    }
}
