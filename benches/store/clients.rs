//! The served store from other processes: puts of two and of eight at once, gets and views.
//!
//! The server is a thread of this process, the clients are this program again in a role. Each gets ready, waits for the
//! word, and says what it measured.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mobula::store::{Client, ObjectId, Server};

use crate::memory::Plain;
use crate::raw::{Answers, Echo};
use crate::report::{Beside, ROLE, Report, Row, median, time};

const SOCKET: &str = "MOBULA_BENCH_SOCKET";

/// Bytes of each put, and how many a client makes in a sample.
const PUTS: [(&str, usize, usize); 3] = [
    ("1kb", 1 << 10, 2_000),
    ("1mb", 1 << 20, 200),
    ("10mb", 10 << 20, 20),
];

/// What a client process does: `put SIZE COUNT` or `get NAME COUNT`, once for every line it is sent.
pub fn child(role: &str) {
    let words: Vec<&str> = role.split(' ').collect();
    let [what, of, count] = words[..] else {
        panic!("no such role: {role}")
    };
    let count: usize = count.parse().expect("a count");
    let socket = std::env::var(SOCKET).expect("the socket's path");
    let client = Client::connect(socket).expect("a served store");
    let mut f: Box<dyn FnMut()> = match what {
        "put" => {
            let bytes = vec![7u8; of.parse().expect("a size")];
            let client = client.clone();
            let id = ObjectId::random();
            Box::new(move || {
                client.put_bytes(id, black_box(&bytes)).expect("room");
                client.delete(id).expect("it is there");
            })
        }
        "get" => {
            let id = ObjectId::from_name(of);
            Box::new(move || {
                let object = client.get(id, None).expect("it is there");
                black_box(object[object.len() - 1]);
            })
        }
        "view" => {
            let view = client.view::<Vec<f32>>(ObjectId::from_name(of), None);
            let view = view.expect("it is there");
            Box::new(move || {
                black_box(black_box(&view).as_slice()[0]);
            })
        }
        other => panic!("no such role: {other}"),
    };
    f();
    println!("ready");
    for line in std::io::stdin().lines() {
        line.expect("text");
        let took = time(|| (0..count).for_each(|_| f()));
        println!("{}", took.as_secs_f64());
    }
}

/// A client process.
struct Running {
    child: Child,
    says: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(role: &str, socket: &Path) -> Running {
        let me = std::env::current_exe().expect("the benchmark knows its own path");
        let child = Command::new(me)
            .env(ROLE, role)
            .env(SOCKET, socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.expect("a child process runs");
        let says = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut running = Running { child, says };
        assert_eq!(running.line(), "ready");
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("text");
        line.trim().to_owned()
    }

    fn go(&mut self) {
        let input = self.child.stdin.as_mut().expect("it is piped");
        input.write_all(b"go\n").expect("it listens");
    }

    fn seconds(&mut self) -> f64 {
        self.line().parse().expect("seconds")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The socket, for as long as this lives.
struct Served {
    socket: PathBuf,
    _server: Server,
}

fn serve() -> Served {
    let name = format!("mobula-bench-{}", std::process::id());
    let socket = std::env::temp_dir().join(name);
    let server = Server::options().capacity(512 << 20).start(&socket);
    Served {
        _server: server.expect("a served store"),
        socket,
    }
}

pub fn rows(report: &mut Report) {
    gets(report);
    for (name, size, count) in PUTS {
        for clients in [1, 2, 8] {
            let bench: &'static str = format!("put_{name}_{clients}clients").leak();
            if report.wants(bench) {
                puts(report, bench, size, count, clients);
            }
        }
    }
}

/// Together, by the time of the slowest.
fn puts(report: &mut Report, bench: &'static str, size: usize, count: usize, clients: usize) {
    let served = serve();
    let role = format!("put {size} {count}");
    let start = |_| Running::start(&role, &served.socket);
    let mut all: Vec<Running> = (0..clients).map(start).collect();
    let mut plain = Plain::small(size);
    plain.bytes().fill(1);
    let from = vec![7u8; size];
    // Of the smallest the number counts, not the bytes.
    let (unit, worth) = match size {
        1024 => ("1/s", 1.0),
        _ => ("GB/s", size as f64 / 1e9),
    };
    let (mut values, mut one, mut two) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..=report.samples(11) {
        one.push(plain.copy(&from, 1) / size as f64 * 1e9 * worth);
        two.push(plain.copy(&from, 2) / size as f64 * 1e9 * worth);
        all.iter_mut().for_each(Running::go);
        let seconds = all.iter_mut().map(Running::seconds).fold(0.0, f64::max);
        values.push((count * clients) as f64 * worth / seconds);
    }
    values.remove(0);
    let row = Row {
        bench,
        unit,
        values,
        limit: None,
        every: false,
    };
    let beside = Beside {
        limits: vec![("limit_1thread", one), ("limit_2threads", two)],
        bound: None,
    };
    report.row_beside(row, beside);
}

/// Microseconds each: getting hold of an object, small or large, and reading one that is held.
fn gets(report: &mut Report) {
    let rows = [
        ("get_1kb_other_process", "get small", 500),
        ("get_100mb_other_process", "get large", 500),
        ("view_100mb_other_process", "view numbers", 1_000_000),
    ];
    if !rows.iter().any(|row| report.wants(row.0)) {
        return;
    }
    let mut echo = Echo::start(Answers::Socket);
    let served = serve();
    let client = Client::connect(&served.socket).expect("a served store");
    let put = |name: &str, bytes: &[u8]| {
        client
            .put_bytes(ObjectId::from_name(name), bytes)
            .expect("room");
    };
    put("small", &[7; 1 << 10]);
    put("large", &vec![7; 100 << 20]);
    let numbers = vec![1.5f32; 25 << 20];
    client
        .put(ObjectId::from_name("numbers"), &numbers)
        .expect("room");
    for (bench, role, count) in rows {
        if !report.wants(bench) {
            continue;
        }
        let mut reader = Running::start(&format!("{role} {count}"), &served.socket);
        let (mut values, mut limit) = (Vec::new(), Vec::new());
        for _ in 0..=report.samples(11) {
            limit.push(median(&echo.sleeping(100, Duration::ZERO)));
            reader.go();
            values.push(reader.seconds() * 1e6 / count as f64);
        }
        values.remove(0);
        // Only who asks the server pays a round trip.
        let limit = (!role.starts_with("view")).then(|| median(&limit));
        let row = Row {
            bench,
            unit: "us",
            values,
            limit,
            every: false,
        };
        report.row(row);
    }
}
