//! Tests of reading workers' pipes, with pipes that no process is behind.

use super::*;
use std::fs::File;
use std::io::Write;

type Seen = Arc<Mutex<Vec<(WorkerStream, String)>>>;

fn collecting() -> (Output, Seen) {
    let seen = Seen::default();
    let to = Arc::clone(&seen);
    let sink = WorkerOutput::sink(move |l| {
        assert_eq!((l.pid, &*l.name), (9, "square"));
        to.lock().push((l.stream, l.text));
    });
    (Output::start(sink).unwrap(), seen)
}

fn worker(output: &Output) -> (Captured, File, File) {
    let (out_read, out) = rustix::pipe::pipe().unwrap();
    let (err_read, err) = rustix::pipe::pipe().unwrap();
    let captured = output
        .capture(9, || "square".into(), out_read, err_read)
        .unwrap();
    (captured, out.into(), err.into())
}

fn until(so: impl FnMut() -> bool) {
    crate::base::wait::until("the output comes", Duration::from_secs(30), so);
}

#[test]
fn lines_are_forwarded_while_the_worker_lives() {
    let (output, seen) = collecting();
    let (_captured, mut out, mut err) = worker(&output);
    out.write_all(b"one\ntw").unwrap();
    until(|| seen.lock().len() == 1);
    out.write_all(b"o\n").unwrap();
    until(|| seen.lock().len() == 2);
    err.write_all(b"three\n").unwrap();
    until(|| seen.lock().len() == 3);
    let lines: Vec<_> = seen.lock().clone();
    assert_eq!(
        lines,
        [
            (WorkerStream::Stdout, "one".to_owned()),
            (WorkerStream::Stdout, "two".to_owned()),
            (WorkerStream::Stderr, "three".to_owned()),
        ]
    );
}

#[test]
fn a_death_report_has_what_was_in_the_pipe_and_the_half_line_at_its_end() {
    for alive_behind in [false, true] {
        let (output, seen) = collecting();
        let (captured, mut out, mut err) = worker(&output);
        let text: String = (0..3000).map(|n| format!("line {n}\n")).collect();
        out.write_all(text.as_bytes()).unwrap();
        err.write_all(b"panicked at half a li").unwrap();
        // A grandchild may hold the pipe open: the end does not wait for it.
        let held = alive_behind.then(|| (out.try_clone(), err.try_clone()));
        drop((out, err));
        let tail = captured.finish().into_lines();
        assert_eq!(tail.len(), super::super::lines::TAIL_LINES);
        assert_eq!(tail[18], "line 2999");
        assert_eq!(tail[19], "panicked at half a li");
        output.close(Duration::from_secs(30));
        let outs: Vec<_> = seen.lock().clone();
        assert_eq!(outs.len(), 3001, "each once");
        let stdout = outs.iter().filter(|(s, _)| *s == WorkerStream::Stdout);
        assert!(
            stdout
                .enumerate()
                .all(|(n, (_, l))| *l == format!("line {n}"))
        );
        drop(held);
    }
}

#[test]
fn a_process_left_behind_that_prints_on_does_not_hold_up_the_report() {
    let output = Output::start(WorkerOutput::Silent).unwrap();
    let (captured, out, _err) = worker(&output);
    let mut left = out.try_clone().unwrap();
    let printing = std::thread::spawn(move || {
        // Ends when its reader is gone.
        while left.write_all(b"on and on\n").is_ok() {}
    });
    let tail = captured.finish().into_lines();
    assert!(
        tail.iter().all(|l| l.ends_with("and on") || l.len() < 10),
        "{tail:?}"
    );
    printing.join().unwrap();
}

#[test]
fn without_room_workers_wait_and_nothing_is_lost() {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock();
    let count = Arc::new(Mutex::new(0u64));
    let (pass, counts) = (Arc::clone(&gate), Arc::clone(&count));
    let sink = WorkerOutput::sink(move |l| {
        drop(pass.lock());
        let mut n = counts.lock();
        assert_eq!(l.text.parse(), Ok(*n), "in order");
        *n += 1;
    });
    let output = Output::start(sink).unwrap();
    let (captured, mut out, _err) = worker(&output);
    let wrote = Arc::new(Mutex::new(0u64));
    let writes = Arc::clone(&wrote);
    const LINES: u64 = 200_000;
    let printing = std::thread::spawn(move || {
        for n in 0..LINES {
            writeln!(out, "{n}").unwrap();
            *writes.lock() = n;
        }
    });
    // It stands still while the sink does.
    let mut last = u64::MAX;
    until(|| {
        let now = *wrote.lock();
        let stands = now == std::mem::replace(&mut last, now) && now > 0;
        std::thread::sleep(Duration::from_millis(20));
        stands
    });
    assert!(last < LINES - 1, "the worker waits: {last}");
    drop(closed);
    printing.join().unwrap();
    until(|| *count.lock() == LINES);
    drop(captured);
}
