//! Launchers whose records are on a real etcd. Skipped, with a message, where there is none.

use super::*;

#[path = "../cluster_common/etcd.rs"]
mod server;

#[test]
fn what_ran_is_on_record_in_etcd() {
    let bench = Bench::new("etcd");
    let Some(server) = server::Server::start() else {
        println!("skipped: no `etcd` here (apt-get install etcd-server)");
        return;
    };
    let control = ["--num-cpus", "1", "--control", server.address.as_str()];
    let head = bench.head("one", &control);
    assert!(bench.run(&head, "pids", &[]).finished().ok);
    assert!(
        !bench.dir("one").join("control").exists(),
        "nothing in the folder"
    );
    // Another machine with the authority, as a copy of the folder, knows what ran.
    bench.kill(&head);
    std::fs::create_dir(bench.dir("two")).unwrap();
    std::fs::copy(
        bench.dir("one").join("ca.pem"),
        bench.dir("two").join("ca.pem"),
    )
    .unwrap();
    let other = bench.head("two", &control);
    assert_eq!(other.token, head.token);
    let status = bench.status(&other);
    assert_eq!(status["jobs"].as_array().unwrap().len(), 1, "{status}");
    assert!(status["jobs"].to_string().contains("ended"), "{status}");
    assert!(bench.run(&other, "pids", &[]).finished().ok);
    assert_eq!(bench.status(&other)["jobs"].as_array().unwrap().len(), 2);
}
