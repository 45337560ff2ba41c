//! Two programs that share only a socket: one writes a large vector and a struct with strings and
//! maps, the other reads both in place.
//!
//! `cargo run --release --example shared_store` runs all roles as processes of their own. By hand:
//!
//! ```text
//! shared_store server /tmp/objects 3G    # or: mobula store --socket /tmp/objects --capacity 3G
//! shared_store write  /tmp/objects 1G
//! shared_store read   /tmp/objects
//! ```

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mobula::store::{Client, ObjectId, Server};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// What the second object is.
#[mobula::value]
#[derive(Debug, PartialEq)]
struct Report {
    title: String,
    tags: Vec<String>,
    counts: HashMap<String, u64>,
}

impl Report {
    fn example() -> Report {
        let counts = [("read in place", 2), ("copied", 0)];
        Report {
            title: "what two programs share".into(),
            tags: vec!["a socket".into(), "nothing else".into()],
            counts: counts.map(|(name, n)| (name.to_owned(), n)).into(),
        }
    }
}

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [] => all("1G"),
        ["all", size] => all(size),
        ["server", socket, capacity] => server(socket.as_ref(), bytes(capacity)?),
        ["write", socket, size] => write(socket.as_ref(), bytes(size)?),
        ["read", socket] => read(socket.as_ref()),
        _ => {
            Err("roles: all SIZE | server SOCKET CAPACITY | write SOCKET SIZE | read SOCKET".into())
        }
    }
}

/// Serves until its standard input ends.
fn server(socket: &Path, capacity: usize) -> Outcome {
    let server = Server::options().capacity(capacity as u64).start(socket)?;
    println!(
        "server: {} MiB at {}",
        server.capacity() >> 20,
        socket.display()
    );
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    server.shutdown();
    Ok(())
}

fn write(socket: &Path, size: usize) -> Outcome {
    let numbers: Vec<f32> = (0..size / 4).map(number).collect();
    let client = Client::connect(socket)?;
    let began = Instant::now();
    client.put(ObjectId::from_name("numbers"), &numbers)?;
    let took = began.elapsed();
    let speed = size as f64 / took.as_secs_f64() / 1e9;
    println!(
        "writer: put {} MiB in {took:.2?} ({speed:.1} GB/s)",
        size >> 20
    );
    client.put(ObjectId::from_name("report"), &Report::example())?;
    Ok(())
}

fn read(socket: &Path) -> Outcome {
    let client = Client::connect(socket)?;
    let (private, patience) = (private_memory()?, Some(Duration::from_secs(60)));

    let numbers = client.view::<Vec<f32>>(ObjectId::from_name("numbers"), patience)?;
    let report = client.view::<Report>(ObjectId::from_name("report"), patience)?;
    let began = Instant::now();
    drop(client.get(ObjectId::from_name("numbers"), patience)?);
    println!(
        "reader: holding an object again took {:.2?}",
        began.elapsed()
    );

    let began = Instant::now();
    let slice = numbers.as_slice();
    assert!(slice.iter().enumerate().all(|(i, x)| *x == number(i)));
    let (n, took) = (slice.len(), began.elapsed());
    println!("reader: all {n} numbers are right, looked at in {took:.2?}");
    assert_eq!(report.title, "what two programs share");
    assert_eq!(report.tags.len(), 2);
    assert_eq!(
        report.counts.get("read in place").map(|n| n.to_native()),
        Some(2)
    );
    println!("reader: so is the report: {:?}", report.title);

    let address = slice.as_ptr().addr();
    let mapping = mapping_of(address)?;
    println!("reader: the numbers lie at {address:#x}, inside {mapping}");
    assert!(mapping.contains("memfd:"), "read in the store's memory");
    let grown = private_memory()?.saturating_sub(private);
    println!(
        "reader: its own memory grew by {} KiB: nothing was copied",
        grown >> 10
    );
    assert!(grown < 8 << 20);
    Ok(())
}

/// Runs each role as a process.
fn all(size: &str) -> Outcome {
    let socket = std::env::temp_dir().join(format!("mobula-shared-{}", std::process::id()));
    let role = |role: &str| {
        let mut command = Command::new(std::env::current_exe().expect("an executable"));
        command.arg(role).arg(&socket);
        command
    };
    let capacity = (bytes(size)? + (64 << 20)).to_string();
    let mut server = role("server")
        .arg(capacity)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ready = String::new();
    BufReader::new(server.stdout.take().ok_or("no output")?).read_line(&mut ready)?;
    print!("{ready}");
    // The reader starts first, and waits for what the writer seals.
    let mut reader = role("read").spawn()?;
    let wrote = role("write").arg(size).status()?;
    let read = reader.wait()?;
    drop(server.stdin.take());
    let served = server.wait()?;
    let good = wrote.success() && read.success() && served.success();
    good.then_some(()).ok_or_else(|| "a role failed".into())
}

/// What number stands at this place.
fn number(i: usize) -> f32 {
    (i % 65_536) as f32 * 0.25
}

/// Memory of this process alone, in bytes.
fn private_memory() -> Result<usize, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line
        .and_then(|l| l.trim().strip_suffix("kB"))
        .ok_or("no RssAnon")?;
    Ok(kib.trim().parse::<usize>()? << 10)
}

/// The line of this process's memory map that an address is in.
fn mapping_of(address: usize) -> Result<String, Box<dyn std::error::Error>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let holds = |line: &&str| {
        let ends = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        let ends = ends.map(|(a, b)| (usize::from_str_radix(a, 16), usize::from_str_radix(b, 16)));
        matches!(ends, Some((Ok(begin), Ok(end))) if (begin..end).contains(&address))
    };
    Ok(maps
        .lines()
        .find(holds)
        .ok_or("no such address")?
        .to_owned())
}

/// Bytes from a text like `512M` or `1G`.
fn bytes(text: &str) -> Result<usize, Box<dyn std::error::Error>> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'G') => (&text[..text.len() - 1], 1 << 30),
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    Ok(digits.parse::<usize>()? * unit)
}
