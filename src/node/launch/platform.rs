//! Whether a machine can run an executable: its kind of processor, its libc, its loader.
//!
//! The executable's own headers say what it needs: the loader it names, and the newest version of glibc of which it uses
//! something. The machine's glibc says what it has in the names of its versions.
//!
//! Invariant: reading is total, whatever the bytes. Left out: other shared libraries, whose lack the loader itself reports.

use std::path::Path;

use super::message::Needs;

/// The newest version named so in these bytes, as `GLIBC_2.36`.
fn newest(bytes: &[u8]) -> Option<(u32, u32)> {
    const NAME: &[u8] = b"GLIBC_";
    let mut best = None;
    let mut at = 0;
    while let Some(found) = bytes
        .get(at..)
        .and_then(|rest| rest.windows(NAME.len()).position(|w| w == NAME))
    {
        at += found + NAME.len();
        let rest = &bytes[at..bytes.len().min(at + 12)];
        let end = rest
            .iter()
            .position(|b| !b.is_ascii_digit() && *b != b'.')
            .unwrap_or(rest.len());
        let version = std::str::from_utf8(&rest[..end]).ok().and_then(|text| {
            let (major, minor) = text.split_once('.')?;
            // GLIBC_2.3.4 is not newer than GLIBC_2.3 in a way that matters.
            let minor = minor.split('.').next()?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        best = best.max(version);
    }
    best
}

fn number<const N: usize>(bytes: &[u8], at: u64) -> Option<[u8; N]> {
    let at = usize::try_from(at).ok()?;
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: u64) -> Option<u16> {
    number(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: u64) -> Option<u32> {
    number(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: u64) -> Option<u64> {
    number(bytes, at).map(u64::from_le_bytes)
}

fn slice(bytes: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(at).ok()?..usize::try_from(at.checked_add(len)?).ok()?)
}

/// A part of a file, as its headers tell.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    len: u64,
}

fn segments(elf: &[u8]) -> Option<Vec<Segment>> {
    let (at, size, count) = (u64_at(elf, 32)?, u16_at(elf, 54)?, u16_at(elf, 56)?);
    // Smaller ones would overlap, and be many in a short file.
    if size < 56 {
        return None;
    }
    let read = |i: u64| {
        let at = at.checked_add(i * u64::from(size))?;
        Some(Segment {
            kind: u32_at(elf, at)?,
            offset: u64_at(elf, at.checked_add(8)?)?,
            address: u64_at(elf, at.checked_add(16)?)?,
            len: u64_at(elf, at.checked_add(32)?)?,
        })
    };
    (0..u64::from(count)).map(read).collect()
}

/// The versions that an executable asks of its libraries: the strings of its dynamic section.
fn asked_glibc(elf: &[u8], segments: &[Segment]) -> Option<(u32, u32)> {
    const LOAD: u32 = 1;
    const DYNAMIC: u32 = 2;
    let (mut names, mut len, mut needs) = (None, 0, None);
    let dynamic = segments.iter().find(|s| s.kind == DYNAMIC)?;
    for entry in slice(elf, dynamic.offset, dynamic.len)?.chunks_exact(16) {
        match (u64_at(entry, 0)?, u64_at(entry, 8)?) {
            (0, _) => break,
            (5, address) => names = Some(address),
            (10, bytes) => len = bytes,
            (0x6fff_fffe, address) => needs = Some(address),
            _ => {}
        }
    }
    needs?;
    let address = names?;
    let holder = segments.iter().find(|s| {
        s.kind == LOAD && (s.address..s.address.saturating_add(s.len)).contains(&address)
    })?;
    newest(slice(
        elf,
        holder.offset.checked_add(address - holder.address)?,
        len,
    )?)
}

/// What this executable needs; `None` if it is none that Linux runs on a little-endian machine of 64 bits.
pub fn needs(elf: &[u8]) -> Option<Needs> {
    const MAGIC: &[u8] = b"\x7fELF\x02\x01";
    const INTERP: u32 = 3;
    if elf.get(..MAGIC.len())? != MAGIC {
        return None;
    }
    let segments = segments(elf)?;
    let loader = segments.iter().find(|s| s.kind == INTERP).and_then(|s| {
        let text = slice(elf, s.offset, s.len.min(4096))?;
        let text = text.split(|b| *b == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned())
    });
    Some(Needs {
        machine: u16_at(elf, 18)?,
        glibc: asked_glibc(elf, &segments),
        loader,
    })
}

/// What a machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Has {
    /// The kind of processor, as ELF numbers it.
    pub machine: u16,
    /// Its glibc.
    pub glibc: Option<(u32, u32)>,
}

impl Has {
    /// This machine's.
    pub fn here() -> Has {
        let machine = std::fs::File::open("/proc/self/exe").ok().and_then(|file| {
            let mut head = [0; 20];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut head, 0).ok()?;
            u16_at(&head, 18)
        });
        Has {
            machine: machine.unwrap_or(0),
            glibc: glibc(),
        }
    }

    /// Its libc in words.
    pub fn libc(&self) -> String {
        self.glibc.map_or_else(
            || "no glibc".to_owned(),
            |(major, minor)| format!("glibc {major}.{minor}"),
        )
    }

    /// Why it cannot run a program that needs this. `there`: whether a file is on the machine.
    pub fn lacks(&self, needs: &Needs, there: impl Fn(&str) -> bool) -> Option<String> {
        if needs.machine != self.machine {
            let (theirs, ours) = (processor(needs.machine), processor(self.machine));
            return Some(format!(
                "the executable is for {theirs}, this machine is {ours}: build it for {ours}"
            ));
        }
        if let Some((major, minor)) = needs.glibc {
            let remedy =
                "build it on a machine as old as this one, or for the target *-unknown-linux-musl";
            match self.glibc {
                Some(has) if has >= (major, minor) => {}
                Some((m, n)) => {
                    return Some(format!(
                        "the executable needs glibc {major}.{minor}, this machine has {m}.{n}: {remedy}"
                    ));
                }
                None => {
                    return Some(format!(
                        "the executable needs glibc {major}.{minor}, this machine has none: {remedy}"
                    ));
                }
            }
        }
        match &needs.loader {
            Some(loader) if !there(loader) => Some(format!(
                "the executable is loaded by {loader}, which this machine does not have: it has another libc"
            )),
            _ => None,
        }
    }
}

fn processor(machine: u16) -> String {
    match machine {
        62 => "x86_64".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv64".to_owned(),
        n => format!("processor {n}"),
    }
}

/// This machine's glibc: of the one that is loaded here, or that lies where distributions put it.
fn glibc() -> Option<(u32, u32)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let loaded = maps
        .lines()
        .filter_map(|l| l.split_whitespace().nth(5))
        .find(|path| path.ends_with("/libc.so.6"));
    let arch = std::env::consts::ARCH;
    let usual = [
        format!("/lib/{arch}-linux-gnu/libc.so.6"),
        "/lib64/libc.so.6".to_owned(),
        "/usr/lib/libc.so.6".to_owned(),
    ];
    let path = loaded.or_else(|| {
        usual
            .iter()
            .map(String::as_str)
            .find(|path| Path::new(path).exists())
    })?;
    newest(&std::fs::read(path).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_can_run_here() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let needs = needs(&own).expect("an executable");
        let has = Has::here();
        assert_eq!(
            has.lacks(&needs, |path| Path::new(path).exists()),
            None,
            "{needs:?} {has:?}"
        );
        if cfg!(target_env = "gnu") {
            assert!(needs.glibc.is_some() && needs.loader.is_some(), "{needs:?}");
            assert!(has.glibc >= needs.glibc, "{has:?} {needs:?}");
        }
    }

    #[test]
    fn another_machine_is_refused_by_name() {
        let has = Has {
            machine: 62,
            glibc: Some((2, 31)),
        };
        let needs = |machine, glibc| Needs {
            machine,
            glibc,
            loader: Some("/lib64/ld-linux-x86-64.so.2".into()),
        };
        let why =
            |has: &Has, needs: Needs, there: bool| has.lacks(&needs, |_| there).unwrap_or_default();
        assert!(
            why(&has, needs(183, None), true)
                .starts_with("the executable is for aarch64, this machine is x86_64")
        );
        assert!(
            why(&has, needs(62, Some((2, 36))), true)
                .contains("needs glibc 2.36, this machine has 2.31")
        );
        assert_eq!(why(&has, needs(62, Some((2, 31))), true), "");
        assert!(why(&has, needs(62, None), false).contains("does not have"));
        let none = Has { glibc: None, ..has };
        assert!(why(&none, needs(62, Some((2, 17))), true).contains("has none"));
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let head = own[..4096.min(own.len())].to_vec();
        for at in 0..head.len() {
            let mut damaged = head.clone();
            damaged[at] = damaged[at].wrapping_add(0x81);
            let _ = needs(&damaged);
            let _ = needs(&head[..at]);
        }
        assert_eq!(needs(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn the_newest_version_counts() {
        assert_eq!(
            newest(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0"),
            Some((2, 34))
        );
        assert_eq!(newest(b"nothing"), None);
    }
}
