//! What the command makes of a program's recording: a file, and a page.
//!
//! Invariant: what was interrupted leaves nothing behind. Left out: what is in a timeline and on the page, which have tests
//! of their own.

use super::*;

/// What a folder holds that a timeline could have left.
fn files(folder: &Path) -> Vec<String> {
    let all = std::fs::read_dir(folder).unwrap().flatten();
    let mut all: Vec<String> = all
        .filter(|e| e.file_type().unwrap().is_file())
        .map(|e| e.file_name().into_string().unwrap())
        .filter(|name| !name.contains(".held"))
        .collect();
    all.sort();
    all
}

#[test]
fn a_timeline_is_written_by_the_command() {
    let folder = Folder::new("timeline");
    let program = folder.start();
    let path = folder.0.join("trace.json");
    let path = path.to_str().unwrap();
    let said = folder.json(&["timeline", "-o", path]);
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(said["bytes"].as_u64(), Some(text.len() as u64), "{said}");
    let trace: Value = serde_json::from_str(&text).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let boxes = |name: &str| {
        let tasks = events.iter().filter(|e| e["cat"] == "task");
        tasks.filter(|e| e["name"] == name).count()
    };
    assert_eq!(boxes("quick"), 100, "{said}");
    assert_eq!(boxes("hold"), 2, "they still run");
    let process = events.iter().find(|e| e["name"] == "process_name").unwrap();
    let name = process["args"]["name"].as_str().unwrap();
    assert!(
        name.starts_with("node: cli"),
        "the program's name and not the command's: {name}"
    );
    assert_eq!(process["pid"].as_u64(), Some(program.child.id().into()));

    // It can be had again, over what is there, through a link, as text, and as a stream.
    let link = folder.0.join("link.json");
    std::os::unix::fs::symlink(path, &link).unwrap();
    std::fs::write(path, "old").unwrap();
    let said = folder.says(&["timeline", "-o", link.to_str().unwrap()]);
    assert!(
        said.contains("calls") && said.contains("perfetto"),
        "{said}"
    );
    assert!(link.is_symlink() && std::fs::metadata(path).unwrap().len() > 1000);
    let stream: Value = serde_json::from_str(&folder.says(&["timeline", "-o", "-"])).unwrap();
    assert!(stream["traceEvents"].as_array().unwrap().len() >= events.len());

    // A window so short that nothing ended in it still has what runs.
    let folder_of = |last: &str| {
        let text = folder.says(&["timeline", "--last", last, "-o", "-"]);
        let trace: Value = serde_json::from_str(&text).unwrap();
        let events = trace["traceEvents"].as_array().unwrap().clone();
        let tasks = events.into_iter().filter(|e| e["cat"] == "task");
        tasks.map(|e| e["name"].clone()).collect::<Vec<_>>()
    };
    let recent = folder_of("1us");
    assert!(recent.contains(&"hold".into()), "{recent:?}");
    assert!(!recent.contains(&"quick".into()), "{recent:?}");
    assert!(folder_of("1h").contains(&"quick".into()));

    assert_eq!(files(&folder.0), ["trace.json"]);
    program.end();
    folder.fails(&["timeline", "-o", path], 3);
}

#[test]
fn a_timeline_that_cannot_be_written_leaves_nothing() {
    let folder = Folder::new("no-timeline");
    let program = folder.start();
    let to = |path: &Path| folder.fails(&["timeline", "-o", path.to_str().unwrap()], 1);
    let nowhere = folder.0.join("no/such/trace.json");
    assert!(to(&nowhere).contains("no/such"));
    assert!(to(&folder.0).contains("is a folder"));
    let full = to(Path::new("/dev/full"));
    assert!(full.contains("/dev/full"), "{full}");
    folder.fails(&["timeline", "--last", "soon"], 2);

    let mut unread = folder
        .command(&["timeline", "-o", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(unread.stdout.take());
    assert_eq!(unread.wait().unwrap().code(), Some(0), "nobody reads it");

    // Told to stop in the middle, it leaves what there was, unless it was quicker.
    let keep = folder.0.join("keep.json");
    for _ in 0..5 {
        std::fs::write(&keep, "old").unwrap();
        let mut writing = folder
            .command(&["timeline", "-o", keep.to_str().unwrap()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut ended = None;
        while files(&folder.0).len() < 2 && ended.is_none() {
            ended = writing.try_wait().unwrap();
        }
        if ended.is_none() {
            let pid = rustix::process::Pid::from_child(&writing);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        }
        let code = writing.wait().unwrap().code();
        let text = std::fs::read_to_string(&keep).unwrap();
        match code {
            Some(0) => drop(serde_json::from_str::<Value>(&text).unwrap()),
            Some(130) => assert_eq!(text, "old"),
            code => panic!("{code:?}"),
        }
        assert_eq!(files(&folder.0), ["keep.json"]);
    }
    program.end();
}

/// A dashboard that a command serves.
#[cfg(feature = "dashboard")]
struct Dashboard {
    child: Child,
    address: String,
}

#[cfg(feature = "dashboard")]
impl Dashboard {
    fn start(folder: &Folder, args: &[&str]) -> Dashboard {
        let mut child = folder
            .command(&[&["dashboard", "--json"], args].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        let url = said["url"].as_str().unwrap();
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        Dashboard {
            address: address.to_owned(),
            child,
        }
    }

    /// Status and text of an answer.
    fn get(&self, path: &str, more: &str) -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let host = &self.address;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

#[cfg(feature = "dashboard")]
#[test]
fn a_dashboard_shows_another_program_and_outlives_it() {
    let folder = Folder::new("dashboard");
    let mut program = folder.start();
    let mut page = Dashboard::start(&folder, &["--port", "0", "--pid", &program.pid()]);
    assert!(page.address.starts_with("127.0.0.1:"), "{}", page.address);
    let has = |path: &str, part: &str| {
        let (status, answer) = page.get(path, "");
        assert_eq!(status, 200, "{path}: {answer}");
        assert!(answer.contains(part), "{path}: no {part:?} in {answer}");
    };
    has("/", "<!doctype html>");
    has("/api/snapshot?parts=tasks", "cli::hold");
    has("/api/snapshot?parts=workers&lines=5", "said by a worker");
    has("/api/timeline", "cli::quick");
    has("/api/functions", "cli::quick");
    has("/metrics", "\nmobula_calls{state=\"running\"} 4\n");
    has("/api/trace.json", "\"process_name\"");
    let tasks = folder.json(&["list", "tasks", "--function", "outer"]);
    let id = tasks["items"][0]["id"].as_str().unwrap();
    has(&format!("/api/task/{id}"), "blocked");

    program.child.kill().unwrap();
    program.child.wait().unwrap();
    let mut said = BufReader::new(page.child.stderr.take().unwrap()).lines();
    let said = said.next().unwrap().unwrap();
    assert!(said.contains("has ended"), "{said}");
    let (status, answer) = page.get("/api/snapshot?parts=tasks", "");
    assert_eq!(status, 503);
    assert!(answer.contains("the program has ended"), "{answer}");
    let (status, answer) = page.get("/api/timeline", "");
    assert_eq!(status, 200, "{answer}");
    assert!(
        answer.contains("cli::quick"),
        "what it recorded is there: {answer}"
    );
    page.stop();
}

/// A program that takes connections and never answers.
#[cfg(feature = "dashboard")]
#[test]
fn a_dashboard_of_a_program_that_does_not_answer_can_be_stopped() {
    use std::os::unix::process::ExitStatusExt;
    let folder = Folder::new("mute");
    let place = folder.0.join("mobula");
    std::fs::create_dir(&place).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mute = UnixListener::bind(place.join(format!("{}.sock", std::process::id()))).unwrap();
    let mut page = folder
        .command(&["dashboard", "--port", "0"])
        .spawn()
        .unwrap();
    mute.set_nonblocking(true).unwrap();
    let mut asked = None;
    wait::until("it asks", PATIENCE, || {
        let ended = page.try_wait().unwrap();
        assert!(ended.is_none(), "before it asked: {ended:?}");
        // Some connections only look whether anybody listens.
        let Ok((stream, _)) = mute.accept() else {
            return false;
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let says = (&stream).read(&mut [0]).is_ok_and(|n| n == 1);
        asked = says.then_some(stream);
        says
    });
    let mut asking = asked.expect("it asked");
    let pid = rustix::process::Pid::from_child(&page);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // It ends before its patience does.
    asking
        .set_read_timeout(Some(Duration::from_secs(15)))
        .unwrap();
    asking.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(page.wait().unwrap().signal(), Some(15));
}

#[cfg(feature = "dashboard")]
#[test]
fn a_dashboard_keeps_strangers_out() {
    let folder = Folder::new("strangers");
    let program = folder.start();
    let refused = |args: &[&str]| folder.fails(&[&["dashboard"], args].concat(), 1);
    assert!(refused(&["--address", "0.0.0.0:0"]).contains("other machines"));
    assert!(refused(&["--token", "short"]).contains("guessed"));
    assert!(refused(&["--token", ""]).contains("guessed"));
    // A token that was meant and is none must not open the page to everybody.
    use std::os::unix::ffi::OsStrExt;
    for none in [&b""[..], b"0123456789abcde\xff"] {
        let mut command = folder.command(&["dashboard", "--port", "0"]);
        let none = std::ffi::OsStr::from_bytes(none);
        let out = command.env("MOBULA_DASHBOARD_TOKEN", none).output();
        let out = out.unwrap();
        let why = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{why}");
        assert!(why.contains("MOBULA_DASHBOARD_TOKEN"), "{why}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert!(refused(&["--port", &port]).contains("another program listens"));
    folder.fails(&["dashboard", "--port", "70000"], 2);
    folder.fails(&["dashboard", "--pid", "1"], 3);

    let token = "0123456789abcdef";
    let page = Dashboard::start(&folder, &["--port", "0", "--token", token]);
    let ask = |more: &str| page.get("/api/snapshot", more).0;
    assert_eq!(ask(""), 401);
    assert_eq!(ask("Authorization: Bearer fedcba9876543210\r\n"), 401);
    assert_eq!(ask(&format!("Authorization: Bearer {token}\r\n")), 200);
    page.stop();
    program.end();
}
