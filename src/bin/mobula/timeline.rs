//! `mobula timeline`: what a running program recorded, as a file that Perfetto opens.
//!
//! Invariant: the file is written by this command, with the rights of whoever runs it, beside its final name, and gets that
//! name only when it is whole; what was interrupted or failed leaves nothing behind. Left out: what is in it (the library).

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mobula::Timeline;
use mobula::inspect::Recorded;
use serde_json::json;

use crate::Failure;
use crate::attached::{Attached, failure, print};
use crate::progress::Bar;
use crate::show::{bytes, number};

/// Writes what a running program recorded as a timeline: open it at https://ui.perfetto.dev
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula timeline\n  \
    mobula timeline --pid 4242 -o slow.json --last 10s\n  \
    mobula timeline -o - | gzip > trace.json.gz")]
pub struct Args {
    /// The program with this process id; by default the newest of yours that uses Mobula
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,

    /// Where to; - for standard output
    #[arg(short, long, value_name = "FILE", default_value = "trace.json")]
    output: PathBuf,

    /// Only the last so much: 500ms, 10s, 5m, 1h, or seconds
    #[arg(long, value_name = "TIME", value_parser = length)]
    last: Option<Duration>,

    /// Say what was written as one line of JSON
    #[arg(long)]
    json: bool,
}

/// A length of time.
fn length(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => Some(1.0),
        "ms" => Some(1e-3),
        "us" => Some(1e-6),
        "m" | "min" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    let amount: Option<f64> = digits.parse().ok();
    let seconds = unit.zip(amount).map(|(unit, amount)| unit * amount);
    seconds
        .filter(|s| *s > 0.0)
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| format!("\"{text}\" is no length of time: write 500ms, 10s, 5m or 1h"))
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let attached = Attached {
        pid: args.pid,
        json: args.json,
        watch: None,
    };
    let recorded = attached.client()?.recorded().map_err(failure)?;
    if args.output == Path::new("-") {
        let written = write(&recorded, args.last, io::stdout().lock(), None);
        return match written {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Unread),
            Err(e) => Err(Failure::Error(format!("writing the output: {e}"))),
        };
    }
    let place = Place::new(&args.output)?;
    let written = place.fill(|file, stop| write(&recorded, args.last, file, Some(stop)))?;
    print(&said(&recorded, &written, args))
}

fn said(recorded: &Recorded, w: &Timeline, args: &Args) -> String {
    let name = args.output.display().to_string();
    if args.json {
        let program = recorded.program();
        return json!({
            "file": name, "pid": program.pid, "program": program.name, "bytes": w.bytes, "events": w.events,
            "boxes": w.boxes, "submissions": w.submissions, "inputs": w.inputs, "not_recorded": w.passed,
            "overwritten": w.overwritten, "unreadable": w.unreadable,
        })
        .to_string();
    }
    let mut text = format!(
        "{name}: {}, {} calls, {} arrows",
        bytes(w.bytes),
        number(w.boxes),
        number(w.submissions + w.inputs)
    );
    if w.passed > 0 {
        text += &format!("; {} calls came too fast to be recorded", number(w.passed));
    }
    if w.overwritten > 0 {
        text += &format!("; {} older events were overwritten", number(w.overwritten));
    }
    text + "\nopen it at https://ui.perfetto.dev or in chrome://tracing"
}

fn write(
    recorded: &Recorded,
    last: Option<Duration>,
    to: impl Write,
    stop: Option<&AtomicBool>,
) -> io::Result<Timeline> {
    let bar = Bar::new("timeline");
    let mut to = Stoppable { to, stop };
    let written = recorded.write(last, &mut to, |done, all| bar.at(done, all));
    bar.end();
    let written = written?;
    to.flush()?;
    Ok(written)
}

/// A writer that fails when it is told to stop.
struct Stoppable<'a, W> {
    to: W,
    stop: Option<&'a AtomicBool>,
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(io::Error::other("interrupted"));
        }
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Where the file is to be, and where it is while it is written.
struct Place {
    target: PathBuf,
    /// `None` for what is no ordinary file, which is written as it is.
    beside: Option<PathBuf>,
}

impl Place {
    fn new(path: &Path) -> Result<Place, Failure> {
        let known = fs::metadata(path);
        if known.as_ref().is_ok_and(fs::Metadata::is_dir) {
            return Err(Failure::Error(format!(
                "{}: is a folder; name a file in it",
                path.display()
            )));
        }
        if known.is_ok_and(|m| !m.is_file()) {
            return Ok(Place {
                target: path.to_owned(),
                beside: None,
            });
        }
        // A link goes on to lead to where it led.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = target
            .file_name()
            .ok_or_else(|| Failure::Error(format!("{}: is no name of a file", path.display())))?;
        let beside = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        Ok(Place {
            beside: Some(target.with_file_name(beside)),
            target,
        })
    }

    fn fill<T>(
        &self,
        write: impl FnOnce(BufWriter<&File>, &AtomicBool) -> io::Result<T>,
    ) -> Result<T, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ] {
            // The second one ends the command at once, as usual.
            let first = signal_hook::flag::register_conditional_default(signal, stop.clone());
            let told = first.and_then(|_| signal_hook::flag::register(signal, stop.clone()));
            told.map_err(|e| format!("cannot wait for signals: {e}"))?;
        }
        let path = self.beside.as_ref().unwrap_or(&self.target);
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |e: io::Error| Failure::Error(format!("{path}: {e}"))
        };
        let mut options = OpenOptions::new();
        options.write(true);
        if self.beside.is_some() {
            options.create_new(true);
        }
        let file = options.open(path).map_err(failed(path))?;
        let done = write(BufWriter::with_capacity(1 << 20, &file), &stop).and_then(|done| {
            match &self.beside {
                Some(beside) => fs::rename(beside, &self.target).map(|()| done),
                None => Ok(done),
            }
        });
        if let (Err(_), Some(beside)) = (&done, &self.beside) {
            let _ = fs::remove_file(beside);
        }
        if stop.load(Ordering::Relaxed) && done.is_err() {
            return Err(Failure::Interrupted);
        }
        done.map_err(failed(&self.target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read() {
        for (text, seconds) in [
            ("10s", 10.0),
            ("10", 10.0),
            ("0.5", 0.5),
            ("500ms", 0.5),
            ("2m", 120.0),
            ("1h", 3600.0),
        ] {
            assert_eq!(length(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in [
            "", "s", "-1s", "0", "1d", "10 s", "1e99h", "NaN", "infs", "é",
        ] {
            assert!(length(text).is_err(), "{text}");
        }
    }
}
