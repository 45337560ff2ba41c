//! A wire of the test's own, for kernels without `netem`: each machine's device is a TUN, and one thread carries packets
//! between them, late, and not all.
//!
//! Invariant: which packets are lost follows from their order alone. Packets between two machines stay in order. Left out:
//! bandwidth.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::net::Weather;

/// Packets under way at most; more are lost, as on any wire.
const QUEUE: usize = 100_000;

/// Carries packets until it is dropped.
pub struct Wire {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Gives each namespace a device `eth0`; the machine in the n-th has an address that ends with n + 1.
    pub fn new(namespaces: &[String], weather: Weather) -> Result<Wire, String> {
        let ends = Arc::new(AtomicBool::new(false));
        let namespaces = namespaces.to_vec();
        let until = Arc::clone(&ends);
        let (ready, made) = std::sync::mpsc::sync_channel(1);
        // The thread moves into the namespaces; the process does not.
        let thread = std::thread::spawn(move || {
            let devices: Result<Vec<File>, String> =
                namespaces.iter().map(|at| device(at)).collect();
            match devices {
                Ok(devices) => {
                    let _ = ready.send(Ok(()));
                    carry(&devices, weather, &until);
                }
                Err(why) => drop(ready.send(Err(why))),
            }
        });
        made.recv().map_err(|_| "the wire's thread ended")??;
        Ok(Wire {
            ends,
            thread: Some(thread),
        })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What TUNSETIFF takes: a name and flags, padded.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
const IFF_TUN: u16 = 0x0001;
const IFF_NO_PI: u16 = 0x1000;

fn device(namespace: &str) -> Result<File, String> {
    let path = format!("/var/run/netns/{namespace}");
    let at = File::open(&path).map_err(|e| format!("{path}: {e}"))?;
    move_into_link_name_space(at.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|e| format!("entering {path}: {e}"))?;
    let tun = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|e| format!("/dev/net/tun: {e}"))?;
    let mut request = Request {
        name: [0; 16],
        flags: IFF_TUN | IFF_NO_PI,
        rest: [0; 22],
    };
    request.name[..4].copy_from_slice(b"eth0");
    // SAFETY: TUNSETIFF reads a `struct ifreq`, which has the 40 bytes of `Request`, name first and then flags.
    let made = unsafe {
        rustix::ioctl::ioctl(
            &tun,
            rustix::ioctl::Setter::<TUNSETIFF, Request>::new(request),
        )
    };
    made.map_err(|e| format!("making a TUN device: {e}"))?;
    rustix::io::ioctl_fionbio(&tun, true).map_err(|e| format!("a TUN device: {e}"))?;
    Ok(tun)
}

fn carry(devices: &[File], weather: Weather, ends: &AtomicBool) {
    let delay = Duration::from_millis(weather.delay_ms);
    // All take the same time, so the queue is in the order of arrival.
    let mut queue: VecDeque<(Instant, usize, Vec<u8>)> = VecDeque::new();
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut packet = vec![0; 1 << 16];
    while !ends.load(Ordering::Acquire) {
        let now = Instant::now();
        while queue.front().is_some_and(|(due, ..)| *due <= now) {
            if let Some((_, to, bytes)) = queue.pop_front() {
                let _ = (&devices[to]).write(&bytes);
            }
        }
        let next = queue
            .front()
            .map_or(Duration::from_millis(20), |(due, ..)| {
                due.saturating_duration_since(now)
            });
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: next.min(Duration::from_millis(20)).subsec_nanos().into(),
        };
        let mut fds: Vec<PollFd<'_>> = devices
            .iter()
            .map(|device| PollFd::new(device, PollFlags::IN))
            .collect();
        if poll(&mut fds, Some(&timeout)).is_err() {
            continue;
        }
        for mut device in devices {
            // A bounded number, so that what is due is not held up.
            for _ in 0..256 {
                let Ok(len) = device.read(&mut packet) else {
                    break;
                };
                // An IPv4 packet says at 16..20 where to.
                if len < 20 || packet[0] >> 4 != 4 {
                    continue;
                }
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                let to = usize::from(packet[19]).wrapping_sub(1);
                let lost = chance % 1000 < u64::from(weather.loss);
                if to < devices.len() && !lost && queue.len() < QUEUE {
                    queue.push_back((Instant::now() + delay, to, packet[..len].to_vec()));
                }
            }
        }
    }
}
