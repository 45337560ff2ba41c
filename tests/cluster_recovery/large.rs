//! States of many megabytes: they go to the backups in parts, and go on elsewhere byte by byte as they were.
//!
//! Left out: states that are too large for that (`docs/recovery.md`).

use super::*;

/// Some bytes, and how often they were changed.
#[remote(max_restarts = 5, checkpoint_every = 5)]
struct Large {
    bytes: Vec<u8>,
    changes: u64,
}

#[remote]
impl Large {
    pub fn new(len: u64) -> Self {
        Large {
            bytes: (0..len).map(byte).collect(),
            changes: 0,
        }
    }

    /// Puts one byte; how often that was done.
    pub fn put(&mut self, at: u64, byte: u8) -> u64 {
        self.bytes[at as usize] = byte;
        self.changes += 1;
        self.changes
    }

    /// A digest of all of it.
    pub fn digest(&self) -> u64 {
        digest(&self.bytes)
    }

    pub fn process(&self) -> u32 {
        std::process::id()
    }
}

fn byte(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn digest(bytes: &[u8]) -> u64 {
    let mix = |all: u64, byte: &u8| (all ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

#[test]
fn states_of_many_megabytes_go_on_elsewhere() {
    with(3, |cluster| {
        for len in [8 << 20, 24 << 20] {
            let on = cluster.head.nodes()[1].id;
            let large = Large::options().on_node(on).remote(len);
            let mut bytes: Vec<u8> = (0..len).map(byte).collect();
            for n in 0..12 {
                let at = n * 1_000_003 % len;
                bytes[at as usize] = n as u8;
                assert_eq!(get(&large.put(at, n as u8)), n + 1);
            }
            let host = get(&large.process());
            let host = cluster.nodes.iter_mut().find(|n| n.process.id() == host);
            let began = Instant::now();
            host.expect("it is not here").kill();
            assert_eq!(get(&large.put(0, 7)), 13, "after {len} bytes");
            println!(
                "{len} bytes: from the kill to the answer {:?}",
                began.elapsed()
            );
            bytes[0] = 7;
            assert_eq!(get(&large.digest()), digest(&bytes));
        }
    });
}
