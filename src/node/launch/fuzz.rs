//! Any bytes as what a launcher is told, as the file that it keeps of itself, and as the executable that it is sent.
//!
//! Invariant: they are refused or read, at little memory. Left out: the hash of an executable, which is compared and not read.

use super::message::*;
use super::platform::needs;
use super::state::Recorded;
use crate::base::hostile::cheaply;
use crate::base::{Demand, NodeId, Units};
use crate::core::jobs::Ask;

/// A message of each kind.
pub fn messages() -> Vec<Message> {
    let demand = Demand::ONE_CPU.with_custom("tpu", Units::whole(3));
    let machine = Machine {
        node: NodeId::new(7).unwrap(),
        name: "one".into(),
        addr: ([127, 0, 0, 1], 7677).into(),
        host: 9,
        head: true,
        labels: vec![("zone".into(), "a".into())],
        arch: "x86_64".into(),
        libc: "glibc 2.36".into(),
        whole: demand.clone(),
        left: Demand::NONE,
        jobs: vec![JobLine {
            job: 4,
            name: "app (process 5)".into(),
            holds: demand.clone(),
            pid: 6,
        }],
        waiting: 2,
    };
    let past = Past {
        job: 4,
        args: vec!["app".into(), "x".into()],
        submitted: 5,
        state: "runs".into(),
    };
    let program = Program {
        hash: [3; 32],
        len: 10,
        needs: Needs {
            machine: 62,
            loader: Some("/lib64/ld.so".into()),
            glibc: Some((2, 34)),
        },
    };
    vec![
        Message::List,
        Message::Machines(vec![machine.clone()], vec![past]),
        Message::State(Box::new(machine)),
        Message::Job {
            args: vec!["app".into()],
            hash: [1; 32],
        },
        Message::Ask {
            name: "app".into(),
            ask: Ask::Rest,
            patience: 3,
            program: None,
        },
        Message::Ask {
            name: "app".into(),
            ask: Ask::Exactly(demand.clone()),
            patience: 3,
            program: Some(program),
        },
        Message::Granted {
            holds: demand,
            gpus: vec![1],
            wants: Some(8),
        },
        Message::Refused("no".into()),
        Message::Ready,
        Message::Start(Start {
            join: ([127, 0, 0, 1], 1).into(),
            token: "t".into(),
            store: Some(1 << 20),
            pace: 5,
        }),
        Message::Started(5),
        Message::Lines {
            pid: 5,
            stderr: true,
            dropped: 1,
            lines: vec!["a".into(), "".into()],
        },
        Message::Ended(5, "exit code 1".into()),
        Message::Leads(
            NodeId::new(6).expect("not 0"),
            ([127, 0, 0, 1], 7677).into(),
        ),
    ]
}

/// True messages.
pub fn samples() -> Vec<Vec<u8>> {
    messages().iter().map(Message::encode).collect()
}

/// Any bytes as a message.
pub fn message(bytes: &[u8]) {
    if let Ok(message) = cheaply(bytes.len(), 64, || Message::decode(bytes)) {
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
}

/// True files: a launcher's own, and an executable's beginning: that of this program, which is long, and a small one.
pub fn files() -> Vec<Vec<u8>> {
    let mut small = vec![0; 512];
    small[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    let mut put = |at: usize, bytes: &[u8]| small[at..at + bytes.len()].copy_from_slice(bytes);
    put(18, &62u16.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &3u16.to_le_bytes());
    // What loads it, where it is loaded, and what it asks for.
    for (i, (kind, offset, len)) in [(3u32, 256u64, 8u64), (1, 0, 512), (2, 272, 64)]
        .into_iter()
        .enumerate()
    {
        put(64 + 56 * i, &kind.to_le_bytes());
        put(72 + 56 * i, &offset.to_le_bytes());
        put(80 + 56 * i, &offset.to_le_bytes());
        put(96 + 56 * i, &len.to_le_bytes());
    }
    put(256, b"/ld.so\0");
    for (i, (tag, value)) in [(5u64, 336u64), (10, 64), (0x6fff_fffe, 400), (0, 0)]
        .into_iter()
        .enumerate()
    {
        put(272 + 16 * i, &tag.to_le_bytes());
        put(280 + 16 * i, &value.to_le_bytes());
    }
    put(336, b"\0libc.so.6\0GLIBC_2.34\0GLIBC_2.2.5\0");
    let mut own = vec![0; 1024];
    if let Ok(file) = std::fs::File::open("/proc/self/exe") {
        let _ = std::os::unix::fs::FileExt::read_exact_at(&file, &mut own, 0);
    }
    vec![small, own, Recorded::sample().into_bytes()]
}

/// Any bytes as such a file.
pub fn file(bytes: &[u8]) {
    let _ = cheaply(bytes.len(), 16, || needs(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = cheaply(bytes.len(), 64, || Recorded::parse(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hostile::spoiled;

    #[test]
    fn spoiled_messages_are_refused_or_read() {
        spoiled(5, 20_000, &samples(), message);
    }

    #[test]
    fn spoiled_files_are_refused_or_read() {
        let small = needs(&files()[0]).expect("it is laid out as an executable");
        assert_eq!(small.loader.as_deref(), Some("/ld.so"));
        assert_eq!(small.glibc, Some((2, 34)));
        spoiled(6, 5_000, &files(), file);
    }
}
