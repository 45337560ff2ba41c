//! Launchers and the programs that they bring to machines: real processes, on the loopback.
//!
//! The program that is brought is this very test binary: as an ordinary process it runs the test `app`, which does what the
//! variable `LAUNCH_APP` says; as a node it never reaches its `main`.
//!
//! Invariant: all processes end with the test, failed ones too. Left out: machines that differ, of which the unit tests of
//! `node::launch::platform` tell; deployment without launchers, see `tests/deploy.rs`.

#![cfg(all(feature = "cli", feature = "cluster"))]

#[path = "../src/base/skip.rs"]
mod skip;

#[path = "launch/bench.rs"]
mod bench;
#[cfg(feature = "etcd")]
use bench::wait;
#[cfg(feature = "etcd")]
#[path = "launch/etcd.rs"]
mod etcd;
#[cfg(feature = "rl")]
#[path = "launch/training.rs"]
mod training;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bench::{App, Bench, alive, until};
use mobula::prelude::*;

#[remote]
fn pid() -> u32 {
    std::process::id()
}

#[remote]
fn says(what: String) -> u32 {
    println!("{what}");
    eprintln!("{what} to standard error");
    std::process::id()
}

/// That of the node, which it had from whoever started it.
#[remote]
fn pace() -> String {
    std::env::var("MOBULA_CLUSTER_PACE").unwrap_or_default()
}

#[remote]
struct Counter {
    count: u64,
}

#[remote]
impl Counter {
    pub fn new() -> Self {
        Counter { count: 0 }
    }

    pub fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }
}

/// What the program does that the tests bring to machines.
#[test]
fn app() {
    let Ok(what) = std::env::var("LAUNCH_APP") else {
        return;
    };
    let config = mobula::Config::new().object_store_memory(64 << 20);
    let mobula = match config.cluster_pace(2).init() {
        Ok(mobula) => mobula,
        Err(e) => {
            println!("init failed: {e}");
            return;
        }
    };
    let mut names: Vec<String> = mobula
        .nodes()
        .iter()
        .map(|n| format!("{}:{}", n.name, n.capacity.cpu))
        .collect();
    names.sort();
    println!("nodes {}", names.join(" "));
    match what.as_str() {
        "pids" => {
            let pids: Vec<_> = mobula
                .nodes()
                .iter()
                .map(|n| {
                    says::options()
                        .on_node(n.id)
                        .remote(format!("hello {}", n.name))
                })
                .collect();
            let pids: BTreeSet<u32> = mobula::get(&pids).unwrap().into_iter().collect();
            println!("pids {}", pids.len());
            for n in mobula.nodes().iter().filter(|n| !n.this) {
                let pace = mobula::get(pace::options().on_node(n.id).remote()).unwrap();
                println!("pace {pace}");
            }
        }
        "hold" => {
            let others: Vec<_> = mobula
                .nodes()
                .iter()
                .filter(|n| !n.this)
                .map(|n| pid::options().on_node(n.id).remote())
                .collect();
            let others: Vec<String> = mobula::get(&others)
                .unwrap()
                .iter()
                .map(u32::to_string)
                .collect();
            println!("holds {}", others.join(" "));
            // Until whoever started it closes its input, or kills it.
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        "goes on" => {
            let other = mobula.nodes().into_iter().find(|n| !n.this).unwrap().id;
            let counter = Counter::options().name("kept").on_node(other).remote();
            assert_eq!(mobula::get(counter.next()).unwrap(), 1);
            let pid = mobula::get(pid::options().on_node(other).remote());
            println!("holds {}", pid.unwrap());
            let _ = std::io::stdin().read_line(&mut String::new());
            let found = Counter::named("kept").unwrap();
            println!("counted {}", mobula::get(found.next()).unwrap());
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        _ => {}
    }
    drop(mobula);
    println!("done");
}

/// The one file in which a machine keeps the executable, by its number; one that came again is another.
fn kept(bench: &Bench, dir: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(bench.dir(dir).join("executables")).unwrap();
    let files: Vec<u64> = files
        .map(|f| f.unwrap().metadata().unwrap().ino())
        .collect();
    assert_eq!(files.len(), 1, "{dir} keeps one executable");
    files[0]
}

#[test]
fn a_program_runs_on_three_machines_and_its_output_comes_back() {
    let bench = Bench::new("three");
    let head = bench.head("one", &["--num-cpus", "1"]);
    bench.join(&head, "two", &["--num-cpus", "2", "--label", "zone=b"]);
    bench.join(&head, "three", &["--num-cpus", "1"]);
    bench.machines(&head, 3);
    let app = bench.run(&head, "pids", &[]).finished();
    assert!(app.ok, "{app}");
    assert!(app.out.contains("nodes one:1 three:1 two:2"), "{app}");
    assert!(
        app.out.contains("pids 3") && app.out.contains("done"),
        "{app}"
    );
    assert!(app.err.contains("3 of 3 nodes are there"), "{app}");
    assert_eq!(app.out.matches("pace 2").count(), 2, "{app}");
    for (name, stream) in [("two", &app.out), ("three", &app.out), ("two", &app.err)] {
        let line = stream
            .lines()
            .find(|l| l.starts_with(&format!("(node {name} pid=")))
            .unwrap_or_else(|| panic!("{app}"));
        assert!(line.contains(&format!("hello {name}")), "{line}");
    }
    // The second time the executable is there and is not sent again, and what was held was given back.
    let kept = || ["two", "three"].map(|dir| kept(&bench, dir));
    let before = kept();
    let again = bench.run(&head, "pids", &["--num-nodes", "2"]).finished();
    assert!(again.out.contains("nodes one:1 two:2"), "{again}");
    assert_eq!(kept(), before);
    // What ran is on record.
    let status = bench.status(&head);
    assert_eq!(status["jobs"].as_array().unwrap().len(), 2, "{status}");
    assert!(status["jobs"].to_string().contains("ended"), "{status}");
}

#[test]
fn jobs_share_a_machine_and_who_finds_no_room_is_told_who_has_it() {
    let bench = Bench::new("share");
    let head = bench.head("one", &["--num-cpus", "2"]);
    bench.join(&head, "two", &["--num-cpus", "3"]);
    bench.machines(&head, 2);
    let mut first = bench.run(&head, "hold", &["--num-cpus", "1"]);
    first.line("holds ");
    let mut second = bench.run(&head, "hold", &[]);
    let nodes = second.line("nodes ");
    assert_eq!(nodes, "nodes one:1 two:2");
    second.line("holds ");
    let third = bench.run(&head, "pids", &["--wait", "0.2"]).finished();
    assert!(
        third
            .out
            .contains("machine one: no room: the job asks for what is left"),
        "{third}"
    );
    assert!(third.out.contains("holds 1 cpu"), "{third}");
    let never = bench.run(&head, "pids", &["--num-cpus", "9"]).finished();
    assert!(
        never
            .out
            .contains("asks for 9 of `cpu`, of which the machine has 2 in all"),
        "{never}"
    );
    // One that waits gets its share when the first ends.
    let mut waits = bench.run(&head, "hold", &["--num-cpus", "1", "--wait", "60"]);
    first.close();
    assert_eq!(waits.line("nodes "), "nodes one:1 two:1");
    waits.close();
    second.close();
}

#[test]
fn a_killed_program_takes_its_nodes_with_it_and_frees_the_machines() {
    let bench = Bench::new("killed");
    let head = bench.head("one", &["--num-cpus", "1"]);
    bench.join(&head, "two", &["--num-cpus", "1", "--label", "zone=b"]);
    bench.machines(&head, 2);
    let mut app = bench.run(&head, "hold", &[]);
    let holds = app.line("holds ");
    let node: u32 = holds.trim_start_matches("holds ").parse().unwrap();
    assert!(alive(node));
    let listed = bench.mobula(&["list", "nodes", "--json", "--pid", &app.pid().to_string()]);
    let listed: serde_json::Value =
        serde_json::from_str(&listed.out).unwrap_or_else(|e| panic!("{e}: {listed}"));
    let nodes = listed["items"].as_array().unwrap();
    assert_eq!(nodes.len(), 2, "{listed}");
    assert_eq!(
        (&nodes[0]["name"], &nodes[0]["away"]),
        (&"one".into(), &false.into()),
        "{listed}"
    );
    assert_eq!(
        (&nodes[1]["name"], &nodes[1]["away"]),
        (&"two".into(), &true.into()),
        "{listed}"
    );
    assert_eq!(nodes[1]["labels"]["zone"], "b", "{listed}");
    let shown = bench.mobula(&["list", "nodes", "--pid", &app.pid().to_string()]);
    assert!(
        shown.out.matches(" of 1 cpu").count() == 2 && shown.out.contains("zone=b"),
        "{shown}"
    );
    app.kill();
    let killed = Instant::now();
    until("its node ends", || !alive(node));
    // A second is promised; the machine that tests run on may be busy.
    assert!(
        killed.elapsed() < Duration::from_secs(3),
        "{:?}",
        killed.elapsed()
    );
    until("what it held is free", || {
        let status = bench.status(&head);
        status["machines"]
            .as_array()
            .unwrap()
            .iter()
            .all(|m| m["left"]["cpu"] == m["whole"]["cpu"])
    });
    let status = bench.status(&head);
    assert!(
        status["jobs"].to_string().contains("its driver was lost"),
        "{status}"
    );
}

#[test]
fn a_head_that_is_started_again_is_the_same() {
    let bench = Bench::new("again");
    let head = bench.head("one", &["--num-cpus", "1"]);
    bench.join(&head, "two", &["--num-cpus", "1"]);
    bench.machines(&head, 2);
    assert!(bench.run(&head, "pids", &[]).finished().ok);
    // As in a crash: nothing is said, nothing is written down.
    bench.kill(&head);
    let again = bench.head("one", &["--num-cpus", "1"]);
    assert_eq!((&again.address, &again.token), (&head.address, &head.token));
    // The other comes back by itself, and what ran is still on record.
    bench.machines(&again, 2);
    let status = bench.status(&again);
    assert_eq!(status["jobs"].as_array().unwrap().len(), 1, "{status}");
    let app = bench.run(&head, "pids", &[]).finished();
    assert!(app.out.contains("nodes one:1 two:1"), "{app}");
}

#[test]
fn a_job_outlives_its_head() {
    let bench = Bench::new("outlives");
    let head = bench.head("one", &["--num-cpus", "2"]);
    bench.join(&head, "two", &["--num-cpus", "1"]);
    bench.machines(&head, 2);
    let mut app = bench.run(&head, "goes on", &[]);
    let node: u32 = app
        .line("holds ")
        .trim_start_matches("holds ")
        .parse()
        .unwrap();
    let left = |head: &bench::Head| {
        let status = bench.status(head);
        let machines = status["machines"].as_array().unwrap().clone();
        machines
            .iter()
            .map(|m| m["left"]["cpu"].to_string())
            .collect::<Vec<_>>()
    };
    let held = left(&head);
    bench.kill(&head);
    let again = bench.head("one", &["--num-cpus", "2"]);
    // It calls the new head, says what it is, and has what it had.
    until("the job is known again", || {
        let status = bench.status(&again);
        status["jobs"].to_string().contains("running") && left(&again) == held
    });
    assert_eq!(bench.status(&again)["jobs"].as_array().unwrap().len(), 1);
    assert!(alive(node), "its node on another machine was not touched");
    app.say("go on");
    // The actor with a name is where it was, with what it had.
    assert_eq!(app.line("counted "), "counted 2");
    app.close();
    until("it is recorded as ended", || {
        bench.status(&again)["jobs"].to_string().contains("ended")
    });
}

#[test]
fn a_machine_that_is_started_again_joins_by_itself() {
    let bench = Bench::new("rejoins");
    let head = bench.head("one", &["--num-cpus", "1"]);
    let two = bench.join(&head, "two", &["--num-cpus", "1"]);
    bench.machines(&head, 2);
    bench.kill(&two);
    // Neither an address nor a token.
    bench.again("two", &["--num-cpus", "1"]);
    bench.machines(&head, 2);
    let app = bench.run(&head, "pids", &[]).finished();
    assert!(app.out.contains("nodes one:1 two:1"), "{app}");
    // All of them at once, the first one last.
    let said = bench.mobula(&["stop", "--all"]);
    assert!(said.ok, "{said}");
    let log = bench.dir("two").join("launcher.log");
    std::fs::remove_file(&log).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| bench.again("two", &["--num-cpus", "1"]));
        until("the other one tries", || log.exists());
        bench.again("one", &["--num-cpus", "1"]);
    });
    bench.machines(&head, 2);
    let said = bench.mobula(&["start", "--dir", &bench.path("three")]);
    assert!(!said.ok && said.err.contains("--join"), "{said}");
}

#[test]
fn refusals_say_what_is_wrong() {
    let bench = Bench::new("refused");
    let head = bench.head("one", &["--num-cpus", "1"]);
    let other = bench.other_token();
    let said = bench.mobula(&[
        "start",
        "--join",
        &head.address,
        "--token",
        &other,
        "--dir",
        &bench.path("two"),
    ]);
    assert!(!said.ok && said.err.contains("another cluster"), "{said}");
    let said = bench.mobula(&[
        "start",
        "--join",
        &head.address,
        "--token",
        "mobula1-abc",
        "--dir",
        &bench.path("two"),
    ]);
    assert!(!said.ok && said.err.contains("bad join token"), "{said}");
    let wrong = bench::Head {
        token: other,
        ..head.clone()
    };
    let app = bench.run(&wrong, "pids", &[]).finished();
    assert!(
        app.out.contains("init failed") && app.out.contains("another cluster"),
        "{app}"
    );
    let nobody = bench::Head {
        address: bench.free_address(),
        ..head.clone()
    };
    let app = bench.run(&nobody, "pids", &[]).finished();
    assert!(
        app.out.contains(&format!("at {}", nobody.address))
            && app.out.contains("mobula start --head"),
        "{app}"
    );
    let said = bench.mobula(&[
        "run",
        "--address",
        &head.address,
        "--token",
        &head.token,
        "--",
        "/no/such/program",
    ]);
    assert!(
        !said.ok && said.err.contains("/no/such/program cannot be run"),
        "{said}"
    );
    let said = bench.mobula(&[
        "start",
        "--head",
        "--listen",
        "127.0.0.1:0",
        "--dir",
        &bench.path("one"),
    ]);
    assert!(!said.ok && said.err.contains("runs already"), "{said}");
}

#[test]
fn stop_ends_the_launcher_and_the_nodes_that_it_started() {
    let bench = Bench::new("stop");
    let head = bench.head("one", &["--num-cpus", "1"]);
    bench.join(&head, "two", &["--num-cpus", "1"]);
    bench.machines(&head, 2);
    let mut app = bench.run(&head, "hold", &[]);
    let node: u32 = app
        .line("holds ")
        .trim_start_matches("holds ")
        .parse()
        .unwrap();
    let said = bench.mobula(&["stop"]);
    assert!(!said.ok && said.err.contains("2 launchers run"), "{said}");
    let said = bench.mobula(&["stop", "--dir", &bench.path("two")]);
    assert!(said.ok && said.out.contains("and 1 nodes"), "{said}");
    assert!(!alive(node));
    let said = bench.mobula(&["stop", "--all"]);
    assert!(said.ok && said.out.contains("ended the launcher"), "{said}");
    let said = bench.mobula(&["stop"]);
    assert_eq!(said.code, Some(3), "{said}");
    let said = bench.mobula(&["status", "--machines"]);
    assert_eq!(said.code, Some(3), "{said}");
    assert!(bench.launchers().iter().all(|pid| !alive(*pid)));
    app.close();
}

#[test]
fn nodes_of_a_program_are_listed_by_the_program_itself() {
    let bench = Bench::new("variables");
    let token = bench.mobula(&["token", "--dir", &bench.path("ca")]);
    let again = bench.mobula(&["token", "--dir", &bench.path("ca")]);
    assert!(
        token.ok && token.out.starts_with("mobula1-") && token.out == again.out,
        "{token}"
    );
    // A head without launchers and without a change of its code.
    let address = bench.free_address();
    let listens = [
        ("MOBULA_LISTEN", address.as_str()),
        ("MOBULA_CLUSTER_DIR", &bench.path("ca")),
        ("MOBULA_NODE_NAME", "first"),
    ];
    let mut first = App::start("hold", &listens);
    let nodes = first.line("nodes ");
    assert!(nodes.starts_with("nodes first:"), "{nodes}");
    first.line("holds");
    let node = [
        ("MOBULA_JOIN", address.as_str()),
        ("MOBULA_TOKEN", token.out.trim()),
        ("MOBULA_NUM_CPUS", "1"),
    ];
    let mut joined = App::start("hold", &node);
    assert!(
        joined.stays(Duration::from_millis(1500)),
        "a node stays as long as its head"
    );
    first.close();
    assert!(joined.finished().ok, "and ends with it");
}

#[test]
fn what_start_prints_is_what_others_need() {
    let bench = Bench::new("prints");
    let dir = bench.path("one");
    let said = bench.mobula(&[
        "start",
        "--head",
        "--listen",
        "127.0.0.1:0",
        "--dir",
        &dir,
        "--name",
        "one",
    ]);
    assert!(said.ok, "{said}");
    let line = said
        .out
        .lines()
        .find(|l| l.contains("mobula start --join"))
        .unwrap_or_else(|| panic!("{said}"));
    let two = bench.path("two");
    let words: Vec<&str> = line
        .split_whitespace()
        .skip(1)
        .chain(["--dir", &two, "--name", "two"])
        .collect();
    let joined = bench.mobula(&words);
    assert!(
        joined.ok && joined.out.starts_with("joined 127.0.0.1:"),
        "{joined}"
    );
    // Of this machine's launcher, without an address.
    let said = bench.mobula(&["status", "--machines"]);
    assert!(
        said.ok && said.out.contains("one (first)") && said.out.contains("no jobs"),
        "{said}"
    );
    let mut app = App::start_by(
        bench
            .command()
            .args(["run", "--num-nodes", "1", "--"])
            .arg(std::env::current_exe().unwrap()),
        "hold",
    );
    assert!(app.line("nodes ").starts_with("nodes one:"));
    let said = bench.mobula(&["status", "--machines"]);
    assert!(
        said.out.contains("launch-") && !said.out.contains("no jobs"),
        "{said}"
    );
    app.close();
}

#[test]
fn the_examples_run_unchanged_on_three_machines() {
    let bench = Bench::apart("examples");
    let head = bench.head("one", &["--num-cpus", "1"]);
    bench.join(&head, "two", &["--num-cpus", "1"]);
    bench.join(&head, "three", &["--num-cpus", "1"]);
    bench.machines(&head, 3);
    let here = std::env::current_exe().unwrap();
    let folder = here.ancestors().nth(2).unwrap().join("examples");
    let examples = [
        ("quickstart", "counter: 16"),
        ("map_reduce", " different, in "),
        ("parameter_server", "weights: 256 of them"),
    ];
    for (name, says) in examples {
        let path = folder.join(name);
        if !path.exists() {
            skip::skipped(format!(
                "{name} is not built; `cargo test` without --test builds it"
            ));
            continue;
        }
        let path = path.display().to_string();
        let mut args = vec!["run", "--address", &head.address, "--token", &head.token];
        args.extend(["--", &path]);
        if name == "map_reduce" {
            args.push(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
        }
        let said = bench.mobula(&args);
        assert!(
            said.ok && said.err.contains("3 of 3 nodes are there"),
            "{name}: {said}"
        );
        assert!(said.out.contains(says), "{name} says no {says:?}: {said}");
    }
}
