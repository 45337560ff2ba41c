//! The command `mobula`, run against programs: what it shows, in which form, with which exit code, and how it fails.
//!
//! The program that is looked at is this test itself, started again in a role. Each test has a folder for sockets of its
//! own, so that tests see only their programs.

#[path = "../src/base/skip.rs"]
mod skip;
#[path = "../src/base/wait.rs"]
mod wait;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use mobula::prelude::*;
use serde_json::Value;

#[path = "cli/outputs.rs"]
mod outputs;

const ROLE: &str = "MOBULA_TEST_CLI_ROLE";
const PATIENCE: Duration = Duration::from_secs(60);

static ENDS: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

#[remote]
fn hold(started: u64) -> u64 {
    let (ends, told) = &ENDS;
    drop(told.wait_while(ends.lock().unwrap(), |ends| !*ends));
    started
}

#[remote]
fn quick(x: u64) -> u64 {
    x + 1
}

#[remote]
fn broken() -> u64 {
    panic!("the \x1b[2Jbroken one")
}

#[remote]
fn outer() -> mobula::Result<u64> {
    mobula::get(hold::options().num_cpus(0).remote(7))
}

#[remote]
fn sum(a: u64, b: u64) -> u64 {
    a + b
}

#[remote(isolate)]
fn talk(until_gone: String) -> u64 {
    println!("said by a worker");
    let more = format!("{until_gone}.say");
    while Path::new(&until_gone).exists() {
        if let Ok(text) = std::fs::read_to_string(&more)
            && std::fs::remove_file(&more).is_ok()
        {
            println!("{text}");
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    1
}

#[remote]
struct Counter {
    total: u64,
}

#[remote]
impl Counter {
    pub fn new() -> Self {
        Counter { total: 0 }
    }
    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

/// The program that is looked at: two CPUs, one of them held, a call blocked on a call, calls that wait for a resource,
/// a named actor, an object, and failures. Ends when its input does.
#[test]
fn the_program() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let mobula = Config::new()
        .num_cpus(2)
        .resource("slot", 1)
        .on_unobserved_failure(|_| {})
        .init()
        .unwrap();
    let sums: Vec<u64> = mobula::get(&(0..100).map(quick::remote).collect::<Vec<_>>()).unwrap();
    assert_eq!(sums[99], 100);
    let held: Vec<_> = (0..3)
        .map(|i| hold::options().num_cpus(0).resource("slot", 1).remote(i))
        .collect();
    let blocked = outer::remote();
    let waiting = sum::remote(&held[2], 1);
    let folder = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").unwrap());
    let marker = folder.join(format!("{}.held", std::process::id()));
    std::fs::write(&marker, "").unwrap();
    let talking = talk::options()
        .num_cpus(0)
        .remote(marker.display().to_string());
    let counter = Counter::options().name("hits").max_restarts(3).remote();
    assert_eq!(mobula::get(counter.add(5)).unwrap(), 5);
    let object = mobula::put(&vec![1u8; 300_000]).unwrap();
    for _ in 0..3 {
        assert!(mobula::get(broken::remote()).is_err());
    }
    // All of it is there once it can be seen.
    wait::until("all of it can be seen", PATIENCE, || {
        let look = mobula::inspect::snapshot(&mobula::inspect::Query::all().lines(5)).unwrap();
        let is = |name: &str, state: &str| {
            let mut all = look.tasks.items.iter();
            all.any(|t| t.function.ends_with(name) && t.state.name() == state)
        };
        let calls = is("hold", "running")
            && is("hold", "waiting-resources")
            && is("outer", "blocked")
            && is("talk", "running");
        calls && look.workers.items.iter().any(|w| !w.lines.is_empty())
    });
    println!("\nready {}", mobula.attached_at().unwrap().display());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    *ENDS.0.lock().unwrap() = true;
    ENDS.1.notify_all();
    std::fs::remove_file(&marker).unwrap();
    assert_eq!(mobula::get(talking).unwrap(), 1);
    assert_eq!(mobula::get(waiting).unwrap(), 3);
    assert_eq!(mobula::get(blocked).unwrap(), 7);
    mobula::get(&held).unwrap();
    drop((counter, object));
}

/// A folder of this test's alone.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("mobula-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn start(&self) -> Program {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_program", "--nocapture"])
            .env(ROLE, "1")
            .env("XDG_RUNTIME_DIR", &self.0)
            .env("MOBULA_ATTACH_DIR", self.0.join("mobula"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let socket = loop {
            let line = lines.next().expect("it gets ready").unwrap();
            if let Some(path) = line.strip_prefix("ready ") {
                break PathBuf::from(path);
            }
        };
        // What it prints later must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        Program { child, socket }
    }

    fn mobula(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mobula"));
        // Only what this test started: other programs of this user may run.
        command
            .args(args)
            .env("MOBULA_ATTACH_DIR", self.0.join("mobula"));
        command
    }

    fn says(&self, args: &[&str]) -> String {
        let out = self.mobula(args);
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{args:?}: {} {error}", out.status);
        String::from_utf8(out.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.says(&[args, &["--json"]].concat());
        assert_eq!(text.lines().count(), 1, "one line: {text}");
        serde_json::from_str(&text).unwrap()
    }

    fn fails(&self, args: &[&str], code: i32) -> String {
        let out = self.mobula(args);
        let error = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(code), "{args:?}: {error}");
        assert!(out.stdout.is_empty());
        error
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Program {
    child: Child,
    socket: PathBuf,
}

impl Program {
    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Ends it in good order.
    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn items<'a>(list: &'a Value, field: &str, wanted: &str) -> Vec<&'a Value> {
    let items = list["items"].as_array().expect("a list has items");
    items
        .iter()
        .filter(|i| i[field].as_str().is_some_and(|text| text.ends_with(wanted)))
        .collect()
}

#[test]
fn a_program_shows_what_it_does() {
    let folder = Folder::new("shows");
    let program = folder.start();

    let text = folder.says(&["status"]);
    assert!(
        text.contains(&format!("(process {})", program.pid())),
        "{text}"
    );
    for part in [
        "calls ",
        "now ",
        "cpu free",
        "of 1 slot free",
        "quick",
        "broken",
        "panicked",
    ] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    assert!(!text.contains('\x1b'), "what the program says is cleaned");

    let status = folder.json(&["status"]);
    assert_eq!(
        status["program"]["pid"].as_u64(),
        Some(program.child.id().into())
    );
    // The blocked one, the one that it waits for, the one with the slot, and the one in the worker.
    assert_eq!(status["counts"]["running"], 4, "{status}");
    assert_eq!(status["counts"]["waiting_arguments"], 1);
    assert_eq!(status["counts"]["waiting_resources"], 2);
    let quick = items(&status["functions"], "name", "::quick");
    assert_eq!(quick[0]["calls"], 100, "{status}");
    assert!(quick[0]["samples"].as_u64().unwrap() >= 1);
    let failed = items(&status["errors"], "kind", "panicked");
    assert_eq!(
        failed[0]["count"], 3,
        "equal failures are counted: {status}"
    );

    let tasks = folder.json(&["list", "tasks"]);
    let outer = items(&tasks, "function", "::outer")[0];
    assert_eq!(outer["state"], "blocked");
    let awaited = outer["waits_for"][0].as_str().expect("what it waits for");
    let one = folder.json(&["list", "tasks", "--id", awaited]);
    assert_eq!(items(&one, "function", "::hold").len(), 1, "{one}");
    let waiting = folder.json(&[
        "list",
        "tasks",
        "--state",
        "waiting-resources",
        "--function",
        "hold",
    ]);
    assert_eq!(waiting["items"].as_array().unwrap().len(), 2);
    let why = waiting["items"][0]["why"].as_str().unwrap();
    assert!(why.contains("1 slot: 0 of 1 free"), "{why}");
    let late = folder.json(&["list", "tasks", "--state", "waiting-arguments"]);
    let why = late["items"][0]["why"].as_str().unwrap();
    assert!(
        why.contains("waits for the results of cli::hold (0x"),
        "{why}"
    );
    let there = folder.json(&["list", "tasks", "--function", "talk"]);
    let place = there["items"][0]["runs_on"].as_str().unwrap();
    let limited = folder.json(&["list", "tasks", "--limit", "1"]);
    assert_eq!(limited["items"].as_array().unwrap().len(), 1);
    assert!(limited["left_out"].as_u64().unwrap() >= 4, "{limited}");
    let text = folder.says(&["list", "tasks"]);
    assert!(
        text.contains("waiting-resources") && text.contains("blocked"),
        "{text}"
    );

    let actors = folder.json(&["list", "actors", "--name", "hits"]);
    let hits = &actors["items"][0];
    assert_eq!(
        (&hits["state"], &hits["max_restarts"]),
        (&"idle".into(), &3.into()),
        "{actors}"
    );
    assert!(
        folder
            .says(&["list", "actors", "--state", "idle"])
            .contains("hits")
    );
    assert!(
        folder
            .says(&["list", "actors", "--name", "nobody"])
            .contains("no actors")
    );

    let memory = folder.json(&["memory"]);
    let origin = &memory["origins"]["items"][0];
    assert!(origin["bytes"].as_u64().unwrap() >= 300_000, "{memory}");
    assert!(
        origin["origin"].as_str().unwrap().contains("tests/cli.rs"),
        "{memory}"
    );
    assert!(folder.says(&["memory"]).contains("put at tests/cli.rs"));

    let objects = folder.json(&["list", "objects", "--function", "tests/cli.rs"]);
    let object = &objects["items"][0];
    assert!(object["bytes"].as_u64().unwrap() >= 300_000, "{objects}");
    assert_eq!(object["place"], "store");

    let workers = folder.json(&["list", "workers", "--function", "talk"]);
    let worker = &workers["items"][0];
    assert_eq!(place, format!("process {}", worker["pid"]), "{workers}");
    assert!(worker["resident_bytes"].as_u64().unwrap() > 0);
    assert!(folder.says(&["list", "workers"]).contains("talk"));
    let logs = folder.says(&["logs", "--worker", &worker["pid"].to_string()]);
    assert!(logs.contains("said by a worker"), "{logs}");
    assert!(
        folder
            .says(&["logs", "--worker", "1"])
            .contains("no worker")
    );

    let nodes = folder.json(&["list", "nodes"]);
    assert_eq!(nodes["items"][0]["resources"][0]["total"], 2.0);
    assert!(folder.says(&["list", "functions"]).contains("::quick"));
    let errors = folder.says(&["list", "errors"]);
    assert!(
        errors.contains("panicked") && !errors.contains('\x1b'),
        "{errors}"
    );

    let metrics = folder.says(&["metrics"]);
    assert!(
        metrics.contains("\nmobula_calls{state=\"running\"} 4\n"),
        "{metrics}"
    );

    let socket = program.socket.clone();
    program.end();
    assert!(!socket.exists(), "a program that ends removes its socket");
    assert!(folder.fails(&["status"], 3).contains("no running program"));
}

#[test]
fn the_newest_program_is_taken_and_others_are_told_of() {
    let folder = Folder::new("newest");
    let first = folder.start();
    let second = folder.start();
    let out = folder.mobula(&["status", "--json"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(
        said.contains("2 programs run") && said.contains(&second.pid()),
        "{said}"
    );
    let status: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        status["program"]["pid"].as_u64(),
        Some(second.child.id().into())
    );
    let chosen = folder.json(&["status", "--pid", &first.pid()]);
    assert_eq!(
        chosen["program"]["pid"].as_u64(),
        Some(first.child.id().into())
    );
    let why = folder.fails(&["status", "--pid", "1"], 3);
    assert!(
        why.contains(&first.pid()) && why.contains(&second.pid()),
        "{why}"
    );
}

#[test]
fn a_killed_program_is_found_dead_and_swept() {
    let folder = Folder::new("killed");
    let mut program = folder.start();
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    assert!(program.socket.exists(), "nobody was left to remove it");
    assert!(folder.fails(&["status"], 3).contains("no running program"));
    assert!(!program.socket.exists(), "it was swept");
}

#[test]
fn watching_goes_on_until_the_program_ends() {
    let folder = Folder::new("watch");
    let program = folder.start();
    let mut watching = folder
        .command(&["status", "--json", "--watch", "0.1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line = lines.next().unwrap().unwrap();
        let status: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(status["counts"]["running"], 4);
    }
    program.end();
    for line in lines {
        drop(line);
    }
    assert_eq!(
        watching.wait().unwrap().code(),
        Some(3),
        "the program has ended"
    );
}

/// The other end of a terminal that a command has, and what was read there.
struct Terminal {
    end: std::fs::File,
    seen: String,
}

impl Terminal {
    fn give(command: &mut Command) -> Terminal {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&end).unwrap();
        unlockpt(&end).unwrap();
        let name = ptsname(&end, Vec::new()).unwrap();
        let its = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        command.stdout(its.try_clone().unwrap()).stderr(its);
        Terminal {
            end: end.into(),
            seen: String::new(),
        }
    }

    /// Reads until it has seen this, or to the end: whether it has.
    fn sees(&mut self, part: &str) -> bool {
        let mut buffer = [0; 4096];
        while !self.seen.contains(part) {
            match self.end.read(&mut buffer) {
                Ok(n) if n > 0 => self.seen += &String::from_utf8_lossy(&buffer[..n]),
                _ => return false, // nobody has the terminal any more
            }
        }
        true
    }
}

#[test]
fn an_interrupted_watch_gives_the_terminal_back() {
    let folder = Folder::new("terminal");
    let mut program = Some(folder.start());
    const ENTER: &str = "\x1b[?1049h";
    const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
    for interrupted in [true, false] {
        let mut command = folder.command(&["status", "--watch", "0.1"]);
        let mut terminal = Terminal::give(&mut command);
        let mut watching = command.spawn().unwrap();
        drop(command);
        assert!(terminal.sees("slot free"), "{:?}", terminal.seen);
        assert!(terminal.seen.contains(ENTER), "{:?}", terminal.seen);
        if interrupted {
            let pid = rustix::process::Pid::from_child(&watching);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            assert_eq!(watching.wait().unwrap().code(), Some(130));
        } else {
            program.take().unwrap().end();
            assert_eq!(watching.wait().unwrap().code(), Some(3));
        }
        terminal.sees("the very end");
        let (_, after) = terminal.seen.rsplit_once(ENTER).unwrap();
        let (_, after) = after.split_once(LEAVE).expect("the terminal is given back");
        assert!(
            !after.contains("\x1b["),
            "nothing is drawn after that: {after:?}"
        );
    }
}

#[test]
fn followed_logs_come_line_by_line() {
    let folder = Folder::new("follow");
    let program = folder.start();
    let follow = |more: &[&str]| {
        let mut following = folder
            .command(&[&["logs", "--follow"], more].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(following.stdout.take().unwrap()).lines();
        (following, lines)
    };
    let (mut following, mut lines) = follow(&["--task", "talk"]);
    let first = lines.next().unwrap().unwrap();
    assert!(
        first.starts_with('[') && first.ends_with("] said by a worker"),
        "{first}"
    );
    let (mut machine, mut as_json) = follow(&["--json", "--lines", "0"]);
    let (mut nobody, others) = follow(&["--actor", "talk"]);
    let say = folder.0.join(format!("{}.held.say", program.pid()));
    let say = |text: &str| {
        // Whole at once, and only when the last one was taken.
        let deadline = Instant::now() + PATIENCE;
        while say.exists() {
            assert!(Instant::now() < deadline, "nobody says it");
            std::thread::yield_now();
        }
        let part = say.with_extension("part");
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, &say).unwrap();
    };
    // The one that wants no old lines begins with some line.
    let (hears, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || as_json.next().map(|line| hears.send(line.unwrap())));
    let mut said = 0;
    while said < 100 {
        say(&format!("line {said}"));
        said += 1;
    }
    let line = loop {
        match heard.try_recv() {
            Ok(line) => break line,
            Err(_) => say(&format!("line {said}")),
        }
        said += 1;
    };
    let line: Value = serde_json::from_str(&line).unwrap();
    assert!(
        line["line"].as_str().unwrap().starts_with("line "),
        "{line}"
    );
    say("the last");
    // Every line, in order, once; or how many of them went by.
    let mut next: usize = 0;
    loop {
        let line = lines.next().unwrap().unwrap();
        let text = line.split_once("] ").unwrap().1;
        if text == "the last" {
            break;
        }
        if let Some(i) = text.strip_prefix("line ") {
            assert_eq!(i.parse(), Ok(next));
            next += 1;
        } else {
            let n = text.trim_start_matches("... ").split(' ').next().unwrap();
            next += n.replace(',', "").parse::<usize>().unwrap();
        }
    }
    assert_eq!(next, said);
    program.end();
    // Nobody read on what this one said.
    assert!(matches!(machine.wait().unwrap().code(), Some(0 | 3)));
    for child in [&mut following, &mut nobody] {
        assert_eq!(
            child.wait().unwrap().code(),
            Some(3),
            "the program has ended"
        );
    }
    assert_eq!(others.count(), 0, "no actor talks");
}

#[test]
fn an_output_that_nobody_reads_is_no_failure() {
    let folder = Folder::new("unread");
    let _program = folder.start();
    let mut watching = folder
        .command(&["list", "tasks", "--watch", "0.1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(watching.stdout.take());
    assert_eq!(watching.wait().unwrap().code(), Some(0));
}

#[test]
fn errors_that_cannot_be_written_keep_their_exit_code() {
    let folder = Folder::new("full");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let mut command = folder.command(&["status"]);
    let status = command.stderr(full.unwrap()).status().unwrap();
    assert_eq!(status.code(), Some(3));
}

#[test]
fn a_wrong_command_line_is_said_to_be() {
    let folder = Folder::new("usage");
    for args in [
        &["list"][..],
        &["list", "nothing"],
        &["list", "tasks", "--state", "asleep"],
        &["list", "tasks", "--limit", "0"],
        &["list", "tasks", "--id", "x"],
        &["status", "--watch", "0"],
        &["status", "--pid", "me"],
        &["completions", "tcsh-but-not-really"],
    ] {
        folder.fails(args, 2);
    }
}

#[test]
fn every_command_explains_itself_with_examples() {
    let folder = Folder::new("help");
    for command in [
        "status",
        "list",
        "memory",
        "logs",
        "metrics",
        "timeline",
        #[cfg(feature = "dashboard")]
        "dashboard",
        "completions",
    ] {
        let help = folder.says(&[command, "--help"]);
        assert!(help.contains("Examples:\n  mobula "), "{command}: {help}");
    }
    for what in [
        "tasks",
        "actors",
        "objects",
        "workers",
        "nodes",
        "functions",
        "errors",
    ] {
        let help = folder.says(&["list", what, "--help"]);
        assert!(help.contains("Examples:\n  mobula list"), "{what}: {help}");
    }
    let help = folder.says(&["--help"]);
    assert!(commands(&help).len() >= 8, "{help}");
    let words: Vec<&str> = help.split_whitespace().collect();
    for code in [
        "0 all went well",
        "1 something went wrong",
        "2 the command line is wrong",
        "3 nothing is running",
        "130 it was interrupted",
    ] {
        assert!(words.join(" ").contains(code), "{code}: {help}");
    }
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1);
    listed
        .take_while(|l| !l.is_empty())
        .filter_map(|l| l.strip_prefix("  ")?.split(' ').next())
        .filter(|c| !c.is_empty() && *c != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn shells_get_their_completions() {
    let folder = Folder::new("shells");
    for (shell, sign) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef mobula"),
        ("fish", "complete -c mobula"),
    ] {
        let script = folder.says(&["completions", shell]);
        assert!(script.contains(sign), "{shell}");
        for command in commands(&folder.says(&["--help"])) {
            assert!(script.contains(&command), "{shell}: {command} is missing");
            for inner in commands(&folder.says(&[&command, "--help"])) {
                assert!(script.contains(&inner), "{shell}: {command} {inner}");
            }
        }
        for option in ["--follow", "--last", "--limit", "--state", "--watch"] {
            let found = match shell {
                "fish" => script.contains(&format!("-l {}", &option[2..])),
                _ => script.contains(option),
            };
            assert!(found, "{shell}: {option} is missing");
        }
        // The shell itself reads it without complaint, if there is one.
        if let Ok(mut checking) = Command::new(shell)
            .arg("-n")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
        {
            let mut to = checking.stdin.take().unwrap();
            to.write_all(script.as_bytes()).unwrap();
            drop(to);
            let out = checking.wait_with_output().unwrap();
            assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        }
    }
}

/// One question over a connection of its own; the answer, or nothing if the program closed it.
fn ask(socket: &Path, question: &[u8]) -> Option<String> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A program that refuses may close before everything is written.
    let _ = stream.write_all(question);
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).ok()?;
    (!answer.is_empty()).then_some(answer)
}

#[test]
fn hostile_clients_do_no_harm() {
    let folder = Folder::new("hostile");
    let program = folder.start();
    let socket = program.socket.as_path();
    for garbage in [
        &b"\n"[..],
        b"hello\n",
        b"{}\n",
        b"[[[[[[[[[[[[[[[[[[[[\n",
        b"{\"snapshot\":{\"parts\":[\"everything\"]}}\n",
        b"{\"snapshot\":{\"limit\":-1}}\n",
        b"{\"snapshot\":{\"no-such-field\":1}}\n",
        b"{\"recording\":{}}\n",
        b"\"recordings\"\n",
        b"\xff\xfe\0\0\n",
    ] {
        let answer = ask(socket, garbage).expect("an answer");
        assert!(answer.starts_with("{\"error\":"), "{answer}");
    }
    let nested = [&b"{\"snapshot\":"[..], &b"[".repeat(60_000), b"\n"].concat();
    assert!(ask(socket, &nested).unwrap().contains("error"));
    let endless = vec![b'x'; 10 << 20];
    if let Some(answer) = ask(socket, &endless) {
        assert!(answer.contains("64 KiB"), "{answer}");
    }
    // A limit beyond all bounds is no more than the greatest there is.
    let answer = ask(
        socket,
        b"{\"snapshot\":{\"parts\":[\"tasks\"],\"limit\":18446744073709551615}}\n",
    );
    assert!(answer.unwrap().contains("\"snapshot\""));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wanted = limit.maximum.map_or(4096, |most| most.min(4096));
    let raised = rustix::process::Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    // More connections than are taken, silent ones, and one that does not read its answers.
    let silent: Vec<UnixStream> = (0..1000)
        .filter_map(|_| UnixStream::connect(socket).ok())
        .collect();
    let mut deaf = UnixStream::connect(socket).unwrap();
    deaf.set_nonblocking(true).unwrap();
    for _ in 0..10_000 {
        if deaf
            .write(b"{\"snapshot\":{\"parts\":[\"tasks\",\"functions\"]}}\n")
            .is_err()
        {
            break;
        }
    }
    // Those who ask for the recording and never take the file.
    let greedy: Vec<UnixStream> = (0..100)
        .filter_map(|_| UnixStream::connect(socket).ok())
        .map(|mut stream| {
            let _ = stream.write_all(&b"\"recording\"\n".repeat(1000));
            stream
        })
        .collect();
    assert_eq!(folder.json(&["status"])["counts"]["running"], 4);
    drop((silent, deaf, greedy));
    program.end();
}

/// Answers to questions asked by another user, if this one may become another.
fn asked_by_a_stranger(socket: &Path) -> Option<Vec<Option<String>>> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let socket = socket.to_owned();
    let ask_all = move || {
        // Of this thread alone, and for good.
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let questions: [&[u8]; 3] = [b"\"hello\"\n", b"{\"snapshot\":{}}\n", b"\"recording\"\n"];
        questions.map(|question| ask(&socket, question)).to_vec()
    };
    Some(std::thread::spawn(ask_all).join().unwrap())
}

#[test]
fn another_user_gets_no_answer() {
    let folder = Folder::new("stranger");
    let program = folder.start();
    // Even if somebody opened all that keeps others out.
    for (path, mode) in [
        (folder.0.as_path(), 0o755),
        (program.socket.parent().unwrap(), 0o755),
        (&program.socket, 0o666),
    ] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    match asked_by_a_stranger(&program.socket) {
        Some(answers) => assert_eq!(answers, [None, None, None]),
        None => skip::skipped("only root can become another user"),
    }
    assert!(
        ask(&program.socket, b"\"hello\"\n")
            .unwrap()
            .contains("\"hello\"")
    );
    program.end();
}

#[test]
fn a_folder_that_others_can_enter_is_not_used() {
    let folder = Folder::new("open");
    let place = folder.0.join("mobula");
    std::fs::create_dir(&place).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
    let _trap = UnixListener::bind(place.join("1.sock")).unwrap();
    let why = folder.fails(&["status", "--pid", "1"], 3);
    assert!(why.contains("process 1 is not a program"), "{why}");
    let why = folder.fails(&["status"], 1);
    assert!(
        why.contains("mobula: ") && why.contains("chmod 700"),
        "{why}"
    );
}
