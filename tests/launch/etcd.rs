//! Launchers whose records are on a real etcd. Skipped, with a message, where there is none.

use super::*;
use crate::bench::Head;
use crate::skip;

#[path = "../../src/base/etcd.rs"]
mod server;

#[test]
fn what_ran_is_on_record_in_etcd() {
    let bench = Bench::new("etcd");
    let Some(server) = server::Server::start() else {
        skip::skipped("no `etcd` here (apt-get install etcd-server)");
        return;
    };
    let records = server.address("launch");
    let control = ["--num-cpus", "1", "--control", &records];
    let head = bench.head("one", &control);
    assert!(bench.run(&head, "pids", &[]).finished().ok);
    assert!(
        !bench.dir("one").join("control").exists(),
        "nothing in the folder"
    );
    // Another machine as the first finds the authority there, and what ran.
    bench.kill(&head);
    let other = bench.head("two", &control);
    assert_eq!(other.token, head.token);
    let status = bench.status(&other);
    assert_eq!(status["jobs"].as_array().unwrap().len(), 1, "{status}");
    assert!(status["jobs"].to_string().contains("ended"), "{status}");
    assert!(bench.run(&other, "pids", &[]).finished().ok);
    assert_eq!(bench.status(&other)["jobs"].as_array().unwrap().len(), 2);
}

/// Waits until one of these lets others in.
fn leads(bench: &Bench, launchers: &[&Head]) -> Head {
    let mut found = None;
    until("another launcher lets others in", || {
        let is = |head: &&&Head| {
            let args = ["status", "--address", &head.address, "--token", &head.token];
            bench.mobula(&args).ok
        };
        found = launchers.iter().find(is).map(|head| (*head).clone());
        found.is_some()
    });
    found.expect("it was found")
}

#[test]
fn the_first_machine_may_be_lost() {
    let bench = Bench::new("lost");
    let Some(server) = server::Server::start() else {
        skip::skipped("no `etcd` here (apt-get install etcd-server)");
        return;
    };
    let records = server.address("launch");
    let control = ["--num-cpus", "2", "--control", &records];
    let one = bench.head("one", &control);
    let two = bench.join(&one, "two", &control);
    let three = bench.join(&one, "three", &control);
    bench.machines(&one, 3);
    let mut app = bench.run(&one, "goes on", &["--num-cpus", "1"]);
    app.line("holds ");
    bench.kill(&one);
    let lost = Instant::now();
    let new = leads(&bench, &[&two, &three]);
    println!(
        "another let others in {:?} after the first was killed",
        lost.elapsed()
    );
    bench.machines(&new, 2);
    // The job runs, and says so to the new one before it is taken for lost with the first.
    assert!(app.stays(Duration::from_secs(16)), "it runs");
    let status = bench.status(&new);
    assert!(status["jobs"].to_string().contains("running"), "{status}");
    assert!(!status["jobs"].to_string().contains("failed"), "{status}");
    app.say("");
    app.line("counted 2");
    // Newcomers join, at the new one's address or, knowing where the records are, at the old one's.
    let four = bench.join(&new, "four", &control);
    let stale = Head {
        address: one.address.clone(),
        ..new.clone()
    };
    let five = bench.join(&stale, "five", &control);
    bench.machines(&new, 4);
    let second = bench.run(&new, "pids", &["--num-cpus", "1"]).finished();
    assert!(second.out.contains("pids 4"), "{second}");
    app.say("");
    let app = app.finished();
    assert!(app.ok, "{app}");
    let status = bench.status(&new);
    assert_eq!(status["jobs"].as_array().unwrap().len(), 2, "{status}");
    assert!(!status["jobs"].to_string().contains("running"), "{status}");
    // The lost one comes back as one of the others, and may lead again.
    bench.again("one", &["--num-cpus", "2"]);
    bench.machines(&new, 5);
    bench.kill(&new);
    let others: Vec<&Head> = [&one, &two, &three, &four, &five]
        .into_iter()
        .filter(|h| h.pid != new.pid)
        .collect();
    let newest = leads(&bench, &others);
    bench.machines(&newest, 4);
    // All were off, and only some are on again, not the one that led: they know where the records are.
    bench.kill_all();
    let again = |name| bench.again(name, &["--num-cpus", "1"]);
    let (two, three) = (again("two"), again("three"));
    let first = leads(&bench, &[&two, &three]);
    bench.machines(&first, 2);
}

#[test]
fn who_joins_keeps_no_records_in_a_folder() {
    let bench = Bench::new("folder");
    let head = bench.head("one", &[]);
    let dir = bench.path("two");
    let (address, token) = (head.address.as_str(), head.token.as_str());
    let args = [
        "start",
        "--join",
        address,
        "--token",
        token,
        "--dir",
        &dir,
        "--control",
        "/tmp",
    ];
    let said = bench.mobula(&args);
    assert!(
        !said.ok && said.err.contains("only if they are on etcd"),
        "{said}"
    );
}
