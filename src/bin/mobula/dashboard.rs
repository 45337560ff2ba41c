//! `mobula dashboard`: a page that shows a running program, served by this command.
//!
//! Invariant: the same rules about addresses and tokens as for a page that the program itself serves; no other machine is let
//! in without a token. Left out: the page and its server (the library's).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use mobula::dashboard::Settings;
use mobula::inspect::{AttachError, Client, Running};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::attached::{Attached, failure, print};
use crate::{Failure, say};

/// How often a program is asked whether it still runs.
const BEAT: Duration = Duration::from_secs(1);

/// Serves a page that shows a running program, until it is interrupted.
///
/// When the program ends, what it recorded is still shown. The page is for this machine only, unless --address and
/// --token say otherwise.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula dashboard --open\n  \
    mobula dashboard --pid 4242 --port 9000\n  \
    MOBULA_DASHBOARD_TOKEN=$(cat token) mobula dashboard --address 0.0.0.0:8265")]
pub struct Args {
    /// The program with this process id; by default the newest of yours that uses Mobula
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,

    /// The port on this machine; 0 takes a free one [default: 8265, or a free one if that is taken]
    #[arg(long, value_name = "PORT", conflicts_with = "address")]
    port: Option<u16>,

    /// The address, if not this machine's own; what other machines can reach needs a token
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<SocketAddr>,

    /// Let only those see it who know this, 16 to 256 letters long; the variable MOBULA_DASHBOARD_TOKEN keeps it out of
    /// the list of processes
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// Open it in a browser
    #[arg(long)]
    open: bool,

    /// Say where it is as one line of JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let here = |port| SocketAddr::from((IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    let mut settings = Settings::new();
    if let Some(address) = args.address.or(args.port.map(here)) {
        settings = settings.address(address);
    }
    if let Some(token) = token(args.token)? {
        settings = settings.token(token);
    }
    let attached = Attached {
        pid: args.pid,
        json: args.json,
        watch: None,
    };
    let client = attached.client()?;
    let program = client.running().clone();
    let server = client.dashboard(settings).map_err(|e| match e {
        AttachError::Dashboard(e) => Failure::Error(e.to_string()),
        e => failure(e),
    })?;
    // Only now: before, while a program is waited for that does not answer, an interrupt ends the command as usual.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| format!("cannot wait for signals: {e}"))?;
    let (url, pid) = (server.url(), program.pid);
    match args.json {
        true => print(&json!({ "url": url, "pid": pid }).to_string())?,
        false => print(&format!("{url} shows process {pid}; Ctrl-C ends it"))?,
    }
    if args.open {
        open(&url);
    }
    std::thread::Builder::new()
        .name("watch".into())
        .spawn(move || watch(&program))
        .map_err(|e| format!("starting a thread: {e}"))?;
    signals.forever().next();
    drop(server);
    Ok(())
}

/// The token that was given, here or in the environment. One that cannot be read must not mean that there is none.
fn token(given: Option<String>) -> Result<Option<String>, Failure> {
    const VARIABLE: &str = "MOBULA_DASHBOARD_TOKEN";
    if given.is_some() {
        return Ok(given);
    }
    match std::env::var_os(VARIABLE).map(std::ffi::OsString::into_string) {
        Some(Ok(token)) if token.is_empty() => Err(Failure::Error(format!(
            "{VARIABLE} is set to nothing: give it a token, or unset it"
        ))),
        Some(Ok(token)) => Ok(Some(token)),
        Some(Err(_)) => Err(Failure::Error(format!("{VARIABLE} is not UTF-8"))),
        None => Ok(None),
    }
}

/// Says when the program has ended.
fn watch(program: &Running) {
    let mut client = None;
    loop {
        let connected = client.take().map_or_else(|| Client::connect(program), Ok);
        let asked = connected.and_then(|mut c| c.program().map(|_| c));
        match asked {
            Ok(connected) => client = Some(connected),
            Err(e) if e.has_ended() => {
                say(&format!(
                    "process {} has ended; what it recorded is still shown",
                    program.pid
                ));
                return;
            }
            Err(_) => {}
        }
        std::thread::sleep(BEAT);
    }
}

/// Asks whatever opens pages here to open one; if nothing does, the address stands above.
fn open(url: &str) {
    let started = Command::new("xdg-open")
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match started {
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(e) => say(&format!(
            "cannot open a browser (xdg-open: {e}): go to {url}"
        )),
    }
}
