//! `mobula start`: a launcher on this machine, in the background.
//!
//! The command starts itself again as a process of its own session, waits until that says it is ready, and ends.
//!
//! Invariant: when the command ends well, a launcher runs, and is written down for `mobula stop`. Left out: what a launcher does
//! (the library's).

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mobula::launch::{self, Capacity, Settings, Units};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::Failure;
use crate::attached::print;

/// Starts a launcher, which lets programs have nodes on this machine: the first with --head, others with --join, and either
/// again with neither: its folder remembers whom it joined, or that it was the first, at which address, and a --control on etcd. What
/// else was said then (resources, labels) is to be said again.
///
/// The launcher shares this machine's CPUs, GPUs and other resources between the programs that `mobula run` brings here, starts
/// their nodes, and ends them with their program. It goes on in the background until `mobula stop`.
#[derive(Clone, clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula start --head\n  \
    mobula start --head --listen 10.0.0.1:7677 --num-cpus 8 --label zone=a\n  \
    mobula start --join 10.0.0.1:7677 --token mobula1-...\n  \
    mobula start --head --control etcd://10.0.0.9:2379\n  \
    mobula start    # again, after it was stopped or the machine was\n  \
    mobula start --join 10.0.0.1 --token \"$(cat token)\" --num-gpus 2 --resource disk=4")]
pub struct Args {
    /// Be the first, which lets others in
    #[arg(long, conflicts_with = "join")]
    head: bool,

    /// Join the machines whose first launcher is at this address
    #[arg(long, value_name = "ADDR")]
    join: Option<String>,

    /// What the first launcher printed, to be let in; the variable MOBULA_TOKEN keeps it out of the list of processes
    #[arg(long, value_name = "TOKEN", conflicts_with = "head")]
    token: Option<String>,

    /// The UDP address to listen at [default: port 7677 of all addresses for the first, any port for others]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,

    /// CPUs that programs may have here [default: those that this process may use]
    #[arg(long, value_name = "N")]
    num_cpus: Option<f64>,

    /// GPUs that programs may have here
    #[arg(long, value_name = "N", default_value_t = 0)]
    num_gpus: u32,

    /// An amount of a resource of your own, which calls ask for by name
    #[arg(long, value_name = "NAME=AMOUNT")]
    resource: Vec<String>,

    /// A label of the nodes here, by which calls may choose
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,

    /// What this machine is called in listings [default: the system's name]
    #[arg(long)]
    name: Option<String>,

    /// The folder for what must be kept: the authority and token of the first, records, executables
    /// [default: ~/.local/state/mobula, and ~/.local/state/mobula-worker with --join]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Where the first keeps its records, as etcd://host:2379 [default: in the folder]. Said on every machine, any of them may be
    /// lost: another takes over as the first. Who reads what is there can start programs: let only these machines reach it
    #[arg(long, value_name = "URL")]
    control: Option<String>,

    /// Stay in the foreground
    #[arg(long)]
    block: bool,

    /// One line of JSON instead of text for people
    #[arg(long)]
    json: bool,
}

/// What a launcher in the background says first.
const READY: &str = "ready";

/// The folder that is kept between starts.
pub fn folder(dir: Option<&Path>, worker: bool) -> Result<PathBuf, Failure> {
    if let Some(dir) = dir {
        return Ok(dir.to_owned());
    }
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute());
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
    let state = state.ok_or("there is no home folder: say --dir".to_owned())?;
    Ok(state.join(if worker { "mobula-worker" } else { "mobula" }))
}

fn pair(text: &str) -> Result<(String, String), Failure> {
    let parts = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !text.contains(',') && !value.is_empty());
    let (name, value) =
        parts.ok_or_else(|| format!("\"{text}\" is no NAME=VALUE without commas"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// For how long a launcher that is started again tries to reach the first one, which may be starting, too.
const REMEMBERED: Duration = Duration::from_secs(60);

impl Args {
    /// The folder, and whom it remembers to have joined if that is what is wanted.
    fn role(&self) -> Result<(PathBuf, Option<(SocketAddr, String)>), Failure> {
        if self.head || self.join.is_some() {
            return Ok((folder(self.dir.as_deref(), self.join.is_some())?, None));
        }
        let worker = folder(self.dir.as_deref(), true)?;
        if let Some(kept) = launch::kept(&worker) {
            return Ok((worker, Some(kept)));
        }
        let first = folder(self.dir.as_deref(), false)?;
        if launch::is_first(&first) {
            return Ok((first, None));
        }
        let why = format!(
            "no launcher was started before with the folder {}: say --head, or --join ADDR --token TOKEN",
            worker.display()
        );
        Err(Failure::Error(why))
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let (dir, kept) = self.role()?;
        let join = match (&self.join, &kept) {
            (Some(addr), _) => {
                let token = self
                    .token
                    .clone()
                    .or_else(|| std::env::var("MOBULA_TOKEN").ok());
                let token = token.ok_or("a machine joins with the token that `mobula start --head` printed: say --token".to_owned())?;
                Some((launch::resolve(addr)?, token))
            }
            (None, kept) => kept.clone(),
        };
        let units =
            |what: &str, amount: f64| Units::from_f64(amount).map_err(|e| format!("{what}: {e}"));
        let cpus = match self.num_cpus {
            Some(n) => units("--num-cpus", n)?,
            None => {
                Units::whole(std::thread::available_parallelism().map_or(1, usize::from) as u64)
            }
        };
        let mut capacity = Capacity::new(cpus, self.num_gpus);
        for resource in &self.resource {
            let (name, amount) = pair(resource)?;
            let amount = amount
                .parse()
                .map_err(|e| format!("--resource {resource}: {e}"))?;
            if matches!(name.as_str(), "cpu" | "gpu") {
                return Err(Failure::Error(format!(
                    "--resource {resource}: say --num-cpus or --num-gpus"
                )));
            }
            capacity = capacity.with_custom(&name, units("--resource", amount)?);
        }
        let name = self.name.clone().unwrap_or_else(|| {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        });
        Ok(Settings {
            dir,
            place: launch::place()?,
            listen: self.listen,
            patience: if kept.is_some() {
                REMEMBERED
            } else {
                Duration::ZERO
            },
            join,
            control: self.control.clone(),
            name,
            labels: self
                .label
                .iter()
                .map(|l| pair(l))
                .collect::<Result<_, _>>()?,
            capacity,
        })
    }
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let settings = args.settings()?;
    match (args.block, std::env::var_os("MOBULA_LAUNCHER_READY")) {
        (true, said) => serve(args, settings, said.is_some()),
        (false, _) => detach(args, &settings.dir),
    }
}

/// What people and programs want to know of a launcher.
fn text(args: &Args, recorded: &launch::Recorded) -> Result<String, Failure> {
    let reach = reach(recorded.address);
    let (pid, dir) = (recorded.launcher.pid, recorded.dir.display());
    let first = recorded.head == recorded.address;
    if args.json {
        let said = json!({
            "pid": pid, "address": reach.to_string(), "listen": recorded.address.to_string(), "head": first,
            "token": recorded.token, "dir": recorded.dir.display().to_string(),
        });
        return Ok(format!("{said}\n"));
    }
    if !first {
        return Ok(format!(
            "joined {} (launcher is process {pid}, at {}, folder {dir})\n",
            recorded.head, recorded.address
        ));
    }
    let token = &recorded.token;
    let also = match &args.control {
        Some(control) if control.starts_with("etcd:") => format!(" --control {control}"),
        _ => String::new(),
    };
    Ok(format!(
        "the first launcher runs (process {pid}, at {}, folder {dir})\n\n\
         On other machines:\n  mobula start --join {reach} --token {token}{also}\n\n\
         To run a program on them:\n  mobula run --address {reach} --token {token} -- ./app\n  \
         MOBULA_ADDRESS='{reach}?{token}' cargo run\n\n\
         To see them, and to end them:\n  mobula status --machines\n  mobula stop\n",
        recorded.address
    ))
}

/// Where others reach what listens there: for all addresses, that from which packets leave this machine.
fn reach(listens: SocketAddr) -> SocketAddr {
    if !listens.ip().is_unspecified() {
        return listens;
    }
    // No packet is sent; the address is of a block for documentation.
    let outside = SocketAddr::from(([192, 0, 2, 1], 9));
    let ip = launch::route_to(outside).unwrap_or([127, 0, 0, 1].into());
    SocketAddr::new(ip, listens.port())
}

/// Is the launcher, until a signal comes.
fn serve(args: &Args, settings: Settings, told: bool) -> Result<(), Failure> {
    if told {
        // Not ended with the terminal. It fails for who leads a group already, and then there is no need.
        let _ = rustix::process::setsid();
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| format!("cannot wait for signals: {e}"))?;
    let mut launcher = launch::start(settings)?;
    let text = text(args, &launcher.recorded)?;
    match told {
        false => print(&text)?,
        true => {
            let mut out = std::io::stdout().lock();
            // Whoever started this may be gone, which is no reason to end.
            let _ = write!(out, "{READY}\n{text}").and_then(|()| out.flush());
        }
    }
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let asked = signals.pending().any(|signal| !(told && signal == SIGHUP));
        if asked || launcher.has_ended() {
            break;
        }
    }
    launcher.stop();
    Ok(())
}

/// Starts it in the background.
fn detach(args: &Args, dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(|e| format!("the folder {}: {e}", dir.display()))?;
    let path = dir.join("launcher.log");
    let log = std::fs::File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("mobula")
        .args(std::env::args_os().skip(1))
        .arg("--block")
        .env("MOBULA_LAUNCHER_READY", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|e| format!("the launcher cannot be started: {e}"))?;
    let out = child.stdout.take().ok_or("no pipe".to_owned())?;
    let mut lines = BufReader::new(out).lines();
    if lines.next().and_then(Result::ok).as_deref() != Some(READY) {
        let _ = child.wait();
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        let why = log.lines().last().unwrap_or("it ended without a word");
        return Err(Failure::Error(
            why.strip_prefix("mobula: ").unwrap_or(why).to_owned(),
        ));
    }
    let count = if args.json { 1 } else { usize::MAX };
    let last = "  mobula stop";
    for line in lines.take(count) {
        let line = line.map_err(|e| e.to_string())?;
        print(&line)?;
        if line == last || line.starts_with("joined ") {
            break;
        }
    }
    Ok(())
}
