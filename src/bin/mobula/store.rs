//! `mobula store`: serves an object store to the processes of this machine.
//!
//! Invariant: it says that it is ready only when clients can connect, and leaves no socket behind when
//! it is told to stop. Left out: the serving (the library's).

use std::path::PathBuf;
use std::time::Duration;

use mobula::store::{Server, default_capacity};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::size::Size;

/// Serves an object store to the processes of this machine, until it is interrupted.
///
/// Programs connect with mobula::store::Client (or the C header include/mobula_store.h) and create,
/// seal, get and delete objects, which all of them read in place, in shared memory.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula store --socket /run/user/1000/objects --capacity 4G\n  \
    mobula store --socket ./objects --capacity 30% --huge-pages --json\n  \
    mobula store --socket ./objects --capacity 4G --spill /var/tmp/objects")]
pub struct Args {
    /// Where clients connect: the path of a Unix socket, made here and removed at the end
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    /// How much the store may hold: 4G, 512M, or a share of the memory as in 30%
    #[arg(long, value_name = "SIZE", default_value = "30%")]
    capacity: Size,

    /// Ask for pages of 2 MiB: reserved ones, else transparent ones; says which it got
    #[arg(long)]
    huge_pages: bool,

    /// Move the objects used longest ago to this folder when memory is full, or to a URL as in
    /// s3://bucket/folder; they come back when somebody gets them
    #[arg(long, value_name = "DIR")]
    spill: Option<PathBuf>,

    /// How many seconds a creation waits for room while none comes about [default: 2 with --spill,
    /// else 0]
    #[arg(long, value_name = "SECONDS")]
    patience: Option<f64>,

    /// Let processes of this user connect too (may be repeated); by default only your own may
    #[arg(long, value_name = "UID")]
    allow_user: Vec<u32>,

    /// Say that it is ready as a line of JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<(), String> {
    // Before anything is made that would be left behind.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| format!("cannot wait for signals: {e}"))?;
    let capacity = match args.capacity {
        Size::Bytes(bytes) => bytes,
        Size::Percent(share) => {
            default_capacity(share.into()).map_err(|e| format!("reading the memory's size: {e}"))?
        }
    };
    let mut options = Server::options().capacity(capacity).many_clients();
    if args.huge_pages {
        options = options.huge_pages(true);
    }
    if let Some(to) = args.spill {
        options = options.spill(to);
    }
    if let Some(seconds) = args.patience {
        let longest = Duration::try_from_secs_f64(seconds);
        options = options.patience(longest.map_err(|e| format!("--patience {seconds}: {e}"))?);
    }
    for uid in args.allow_user {
        options = options.allow_user(uid);
    }
    let server = options.start(&args.socket).map_err(|e| e.to_string())?;
    let (path, pid) = (server.path().display().to_string(), std::process::id());
    if args.json {
        println!(
            "{{\"ready\":true,\"socket\":{},\"capacity\":{},\"pid\":{pid},\"pages\":{}}}",
            quoted(&path),
            server.capacity(),
            quoted(server.pages())
        );
    } else {
        println!(
            "serving {} bytes at {path} (process {pid}; {})",
            server.capacity(),
            server.pages()
        );
    }
    signals.forever().next();
    server.shutdown();
    Ok(())
}

/// A text as JSON.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
