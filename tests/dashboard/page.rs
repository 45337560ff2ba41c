//! The page in a real browser.

use serde_json::Value;

use crate::browser::{Browser, installed};
use crate::{fixture, serve};

/// A browser, or a word why there is none.
fn browser() -> Option<Browser> {
    let program = installed();
    if program.is_none() {
        println!("skipped: no chromium is installed (Debian: apt-get install chromium)");
    }
    program.map(|program| Browser::start(&program, 1440, 900))
}

fn number(stats: &Value, name: &str) -> f64 {
    stats[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name} in {stats}"))
}

#[test]
fn the_demo_shows_its_boxes_and_arrows() {
    let Some(mut b) = browser() else { return };
    let server = serve(fixture::demo());
    b.prefer("light");
    b.open(&format!("{}#timeline", server.url()));
    b.until("mobula.stats().boxes === 27");
    b.until("mobula.stats().edges === 27 + 8 + 16 + 24");
    assert!(
        number(&b.stats(), "phases") > 0.0,
        "phases show in boxes that are wide enough"
    );
    b.picture("demo-light");
    // The last g: its arrows, and the chain of calls that led to it.
    b.eval("document.getElementById('timeline').focus()");
    b.press("/");
    b.type_text("timeline::g");
    b.until("mobula.stats().found >= 3 && !document.getElementById('results').hidden");
    b.press("ArrowDown");
    b.press("Enter");
    b.until("mobula.stats().path === 6");
    b.until("mobula.stats().taskEdges === 9");
    b.until("document.getElementById('detail').textContent.includes('Critical path')");
    b.press("0");
    b.until("mobula.stats().to - mobula.stats().from > 7e6");
    b.picture("demo-path-light");
    b.prefer("dark");
    b.until("document.documentElement.dataset.scheme === 'dark'");
    b.picture("demo-path-dark");
    assert!(b.complaints.is_empty(), "{:?}", b.complaints);
}

#[test]
fn the_whole_page_can_be_used_by_keys() {
    let Some(mut b) = browser() else { return };
    let server = serve(fixture::large(20_000));
    b.prefer("light");
    b.open(&server.url());
    b.until("mobula.stats().view === 'overview' && mobula.stats().ticks >= 5 && document.querySelectorAll('#origins .meter').length > 0");
    b.picture("overview-light");
    for (key, view) in [
        ("3", "functions"),
        ("4", "tasks"),
        ("5", "actors"),
        ("6", "objects"),
        ("7", "workers"),
        ("8", "errors"),
    ] {
        b.press(key);
        b.until(&format!("mobula.stats().view === '{view}' && (mobula.stats().rows > 0 || mobula.stats().functions > 0)"));
        b.until(&format!(
            "document.getElementById('view-{view}').querySelectorAll('canvas, td').length > 0"
        ));
        b.picture(&format!("{view}-light"));
    }
    // Errors appear, with their causes, as text and nothing else.
    b.until("document.getElementById('view-errors').textContent.includes('the index is 131')");
    assert_eq!(
        b.eval("document.querySelectorAll('#view-errors b, #view-workers script').length"),
        0
    );
    assert_eq!(b.eval("window.pwned === undefined"), true);
    b.press("4");
    b.until("document.getElementById('view-tasks').textContent.includes('0.5 of 12 are free')");
    // Why is this waiting?
    b.eval("document.querySelectorAll('#view-tasks td .link')[1].click()");
    b.until("mobula.stats().selected === '0x300000002'");
    b.until("document.querySelector('#detail .why').textContent.includes('report::merge')");
    b.picture("waiting-light");
    b.press("Escape");
    b.until("mobula.stats().selected === null && document.getElementById('detail').hidden");
    b.press("?");
    b.until("document.getElementById('help').open");
    b.picture("help-light");
    b.press("Escape");
    b.until("!document.getElementById('help').open");
    // Dark by the switch: from the system's light to light to dark.
    b.press("t");
    b.press("t");
    b.until("document.documentElement.dataset.scheme === 'dark'");
    for (key, view) in [
        ("1", "overview"),
        ("3", "functions"),
        ("4", "tasks"),
        ("2", "timeline"),
    ] {
        b.press(key);
        b.until(&format!("mobula.stats().view === '{view}'"));
        b.press("0");
        b.until("mobula.stats().view !== 'timeline' || mobula.stats().dense > 0");
        b.picture(&format!("{view}-dark"));
    }
    // What has a role that needs a name has one.
    let nameless = b.eval(
        "[...document.querySelectorAll('button, input, canvas, [role=tab], dialog, aside')].filter((e) => \
         !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim() || e.title || e.labels?.length)).map((e) => e.outerHTML)",
    );
    assert_eq!(nameless.as_array().map(Vec::len), Some(0), "{nameless}");
    b.size(820, 900);
    b.picture("timeline-narrow-dark");
    assert!(b.complaints.is_empty(), "{:?}", b.complaints);
}

#[test]
fn a_million_calls_stay_smooth() {
    let Some(mut b) = browser() else { return };
    let server = serve(fixture::large(1_000_000));
    b.prefer("light");
    b.open(&format!("{}#timeline", server.url()));
    b.until("mobula.stats().recorded > 1_000_000 && mobula.stats().dense > 100");
    let whole = b.stats();
    assert!(
        number(&whole, "loaded") + number(&whole, "loadedDense") <= 6_000.0,
        "{whole}"
    );
    b.picture("million-light");
    // In with the wheel until single calls show, then with keys.
    let long = number(&whole, "to") - number(&whole, "from");
    b.eval("window.slow = []; new PerformanceObserver((l) => l.getEntries().forEach((e) => slow.push(e.duration))).observe({ entryTypes: ['longtask'] })");
    for _ in 0..18 {
        b.wheel(700.0, 400.0, -240.0);
    }
    b.until(&format!(
        "mobula.stats().to - mobula.stats().from < {}",
        long / 1_000.0
    ));
    b.until("mobula.stats().boxes > 20 && mobula.stats().loadedDense === 0");
    b.until("mobula.stats().loadedEdges > 0");
    b.picture("million-near-light");
    b.eval("document.getElementById('timeline').focus()");
    let before = number(&b.stats(), "from");
    b.press("ArrowRight");
    b.until(&format!("mobula.stats().from > {before}"));
    let before = number(&b.stats(), "to") - number(&b.stats(), "from");
    b.press("+");
    b.until(&format!(
        "mobula.stats().to - mobula.stats().from < {before}"
    ));
    b.press("n");
    b.until("mobula.stats().selected !== null && mobula.stats().taskEdges > 0");
    b.until("!document.getElementById('detail').hidden");
    b.press("Enter");
    b.until("mobula.stats().phases > 0 && mobula.stats().labels > 0");
    b.picture("million-chosen-light");
    b.prefer("dark");
    b.until("document.documentElement.dataset.scheme === 'dark'");
    b.picture("million-chosen-dark");
    // A call is found among all of them, by a part of its id.
    b.press("/");
    b.type_text("0x2000f4241");
    b.until("mobula.stats().found > 0");
    b.press("Enter");
    b.until("mobula.stats().selected === '0x2000f4241'");
    // The visible window, as a file.
    b.eval("document.getElementById('download').click()");
    let start = std::time::Instant::now();
    let file = b.downloads.join("trace.json");
    while !file.exists() {
        assert!(
            start.elapsed() < std::time::Duration::from_secs(60),
            "nothing was downloaded"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let trace: Value =
        serde_json::from_slice(&std::fs::read(&file).expect("the file")).expect("it is JSON");
    let events = trace["traceEvents"].as_array().map_or(0, Vec::len);
    assert!(
        (1..100_000).contains(&events),
        "{events} events of the visible window"
    );
    let stats = b.stats();
    let slow = b.eval("Math.max(0, ...slow)");
    println!(
        "slowest frame {:.1} ms, longest task {} ms, {} frames",
        number(&stats, "slowestFrame"),
        slow,
        number(&stats, "frames")
    );
    assert!(number(&stats, "slowestFrame") < 1_000.0, "{stats}");
    assert_eq!(number(&stats, "failures"), 0.0);
    assert!(b.complaints.is_empty(), "{:?}", b.complaints);
}
