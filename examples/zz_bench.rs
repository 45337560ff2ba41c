//! temp
use mobula::store::*;
use std::time::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    if a.len() > 1 && a[1] == "server" {
        let s = Server::options().capacity(3 << 30).start(&a[2]).unwrap();
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
        s.shutdown();
        return;
    }
    let sock = format!("/tmp/zz-{}", std::process::id());
    let mut ch = std::process::Command::new(std::env::current_exe().unwrap()).args(["server", &sock]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let c = loop { if let Ok(c) = Client::connect(&sock) { break c } };
    let id = ObjectId::from_name("x");
    c.put_bytes(id, &[1; 1000]).unwrap();
    let time = |name: &str, n: u32, f: &mut dyn FnMut()| {
        let mut ts: Vec<Duration> = (0..n).map(|_| { let t = Instant::now(); f(); t.elapsed() }).collect();
        ts.sort();
        println!("{name}: p50 {:?} p99 {:?} max {:?}", ts[n as usize / 2], ts[n as usize * 99 / 100], ts[n as usize-1]);
    };
    for _ in 0..0 {
        time("state", 20000, &mut || { c.state(id).unwrap(); });
        time("get+release", 20000, &mut || { c.get(id, None).unwrap(); });
        for len in [100usize, 1000, 10_000, 16_000, 20_000, 40_000, 65_000, 100_000, 1 << 20] {
            let b = vec![1u8; len];
            let n = ObjectId::from_name("y");
            time(&format!("put {len}"), if len > 500000 { 300 } else { 3000 }, &mut || { c.put_bytes(n, &b).unwrap(); c.delete(n).unwrap(); });
        }
        time("state after 1ms sleep", 500, &mut || { std::thread::sleep(Duration::from_millis(1)); let t = Instant::now(); c.state(id).unwrap(); let e = t.elapsed(); let _ = e; });
        let mut ts: Vec<Duration> = (0..500).map(|_| { std::thread::sleep(Duration::from_millis(1)); let t = Instant::now(); c.state(id).unwrap(); t.elapsed() }).collect(); ts.sort();
        println!("state when server sleeps p50 {:?} p99 {:?}", ts[250], ts[495]);
    }
    let big: Vec<f32> = vec![1.0; 1 << 28];
    for i in 0..6 {
        let n = ObjectId::from_name("big");
        let t = Instant::now();
        c.put(n, &big).unwrap();
        let e = t.elapsed();
        println!("put 1 GiB #{i}: {e:?} {:.1} GB/s", 1.0737 / e.as_secs_f64());
        c.delete(n).unwrap();
    }
    let bytes: Vec<u8> = vec![1; 1 << 30];
    for i in 0..8 {
        let n = ObjectId::from_name("big");
        let t = Instant::now();
        let mut w = c.create(n, 1 << 30).unwrap();
        let t1 = t.elapsed();
        if i % 2 == 0 { w.populate(); }
        let t2 = t.elapsed();
        w.write_at(0, &bytes);
        let t3 = t.elapsed();
        w.seal().unwrap();
        let t4 = t.elapsed();
        c.delete(n).unwrap();
        println!("{i}: create {:?} populate {:?} copy {:?} seal {:?}", t1, t2 - t1, t3 - t2, t4 - t3);
    }
    let mut dst = vec![0u8; 1 << 30];
    for _ in 0..3 { let t = Instant::now(); dst.copy_from_slice(std::hint::black_box(&bytes)); std::hint::black_box(&dst); println!("memcpy 1t {:?}", t.elapsed()); }
    drop(ch.stdin.take());
    ch.wait().unwrap();
}
