//! The page in a real browser.

use std::sync::Arc;

use mobula::dashboard::{Outcome, Recording, Server, Settings};
use serde_json::{Value, json};

use crate::browser::{Browser, installed};
use crate::{fixture, serve};

/// A browser, or a word why there is none.
fn browser() -> Option<Browser> {
    let program = installed();
    if program.is_none() {
        crate::skip::skipped("no chromium is installed (Debian: apt-get install chromium)");
    }
    program.map(|program| Browser::start(&program, 1440, 900))
}

/// The keys of the views.
const VIEWS: [(&str, &str); 8] = [
    ("1", "overview"),
    ("2", "timeline"),
    ("3", "functions"),
    ("4", "tasks"),
    ("5", "actors"),
    ("6", "objects"),
    ("7", "workers"),
    ("8", "errors"),
];

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
    for (key, view) in [VIEWS[2], VIEWS[3], VIEWS[4], VIEWS[5], VIEWS[6], VIEWS[7]] {
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
    // From here on, how long nothing else could happen: what the browser calls a long task, and the longest time between two
    // frames while they are asked for one after the other.
    b.eval("window.slow = []; new PerformanceObserver((l) => l.getEntries().forEach((e) => slow.push(e.duration))).observe({ entryTypes: ['longtask'] })");
    b.eval("(() => { window.gaps = []; let last = 0; const frame = (now) => { if (last) gaps.push(now - last); last = now; requestAnimationFrame(frame); }; requestAnimationFrame(frame); })()");
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
    let file = b.downloads.join("trace.json");
    let soon = std::time::Duration::from_secs(60);
    crate::wait::until("the file is downloaded", soon, || file.exists());
    let trace: Value =
        serde_json::from_slice(&std::fs::read(&file).expect("the file")).expect("it is JSON");
    let events = trace["traceEvents"].as_array().map_or(0, Vec::len);
    assert!(
        (1..100_000).contains(&events),
        "{events} events of the visible window"
    );
    let stats = b.stats();
    let measured = b.eval("({ task: Math.max(0, ...slow), gap: Math.max(0, ...gaps), middle: gaps.sort((a, b) => a - b)[gaps.length >> 1] })");
    println!(
        "painting took {:.1} ms at most, the longest task {:.0} ms, between two frames were {:.1} ms (median) and {:.0} ms (at most); {} painted",
        number(&stats, "slowestFrame"),
        number(&measured, "task"),
        number(&measured, "middle"),
        number(&measured, "gap"),
        number(&stats, "frames")
    );
    // On an idle machine some 20, 60 and 100 ms; a busy one makes anything wait.
    assert!(number(&stats, "slowestFrame") < 500.0, "{stats}");
    assert!(number(&measured, "task") < 1_000.0, "{measured}");
    assert!(number(&measured, "gap") < 2_500.0, "{measured}");
    assert_eq!(number(&stats, "failures"), 0.0);
    assert!(b.complaints.is_empty(), "{:?}", b.complaints);
}

#[test]
fn what_a_program_says_stays_text() {
    let Some(mut b) = browser() else { return };
    let mut recording = fixture::demo();
    let evil = "<img src=x onerror=\"window.pwned=1\">";
    recording.names = vec![
        format!("{evil}::f"),
        "</script><script>window.pwned=2</script>::g".into(),
        "put at \"><svg onload=window.pwned=3>.rs:1".into(),
    ];
    recording.lanes[1].name = evil.into();
    recording.lanes[2].node = "<b>another node</b>".into();
    recording.texts = vec![format!("it said {evil} and javascript:window.pwned=4")];
    recording.calls[3].outcome = Outcome::Failed;
    recording.calls[3].error = 1;
    recording.runs[3].outcome = Outcome::Failed;
    let id = format!("{:#x}", recording.calls[3].id);
    let object = format!("{:#x}", recording.objects[0].id);
    let server = serve(recording);
    b.open(&format!("{}#timeline", server.url()));
    b.until("mobula.stats().boxes === 27 && mobula.stats().labels > 0");
    b.eval(&format!("mobula.timeline.select('{id}')"));
    b.until("document.querySelector('#detail .fault').textContent.includes('onerror')");
    b.eval(&format!("mobula.timeline.select('{object}')"));
    b.until("document.querySelector('#detail h2').textContent.includes('<svg')");
    let place = b.eval("mobula.timeline.where(0)");
    b.mouse(
        place[0].as_f64().expect("a place"),
        place[1].as_f64().expect("a place"),
    );
    b.until("document.getElementById('tip').textContent.includes('<img')");
    b.eval("document.getElementById('timeline').focus()");
    b.press("/");
    b.type_text("img");
    b.until("mobula.stats().found > 0 && document.getElementById('results').textContent.includes('<img')");
    b.press("ArrowDown");
    b.press("Enter");
    b.press("3");
    b.until("document.getElementById('view-functions').textContent.includes('<img')");
    b.eval("document.querySelector('#view-functions .link').click()");
    b.until("document.getElementById('clear-filter').textContent.length > 0 && mobula.stats().view === 'timeline'");
    b.press("1");
    b.until("mobula.stats().view === 'overview' && document.getElementById('heat-about').textContent.includes('<b>another')");
    for key in ["4", "5", "6", "7", "8"] {
        b.press(key);
        b.until("mobula.stats().rows > 0");
    }
    assert_eq!(
        b.eval("[document.querySelectorAll('img, body b:not(.tip b):not(.why b), main script, #detail svg').length, window.pwned ?? null]"),
        json!([0, null])
    );
    // Nothing was even tried: the browser would have said what its policy forbade.
    assert!(b.complaints.is_empty(), "{:?}", b.complaints);
}

/// Pairs of what is hard to read: text whose contrast with what is behind it is below what the guidelines ask for.
const PALE: &str = r"(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgba = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1); const d = canvas.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = (c) => { const f = [0, 1, 2].map((i) => { const v = c[i] / 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  const behind = (e) => { const all = []; for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3]) all.push(c); if (c[3] === 1) break; } return all.reverse().reduce((below, c) => over(c, below), [255, 255, 255, 1]); };
  const pale = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility({ visibilityProperty: true }) || e.closest('.visually-hidden, .skip, dialog:not([open])')) continue;
    const style = getComputedStyle(e), back = behind(e), front = over(rgba(style.color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) pale.push(`${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(pale)];
})()";

#[test]
fn everybody_can_read_and_reach_it() {
    let Some(mut b) = browser() else { return };
    let server = serve(fixture::large(4_000));
    b.open(&server.url());
    b.until("mobula.stats().ticks > 1");
    for scheme in ["light", "dark"] {
        b.prefer(scheme);
        b.until(&format!(
            "document.documentElement.dataset.scheme === '{scheme}'"
        ));
        for (key, view) in VIEWS {
            b.press(key);
            b.until(&format!("mobula.stats().view === '{view}'"));
            b.until(&format!("document.getElementById('view-{view}').querySelectorAll('canvas, td, .fn').length > 0"));
            if view == "timeline" {
                b.until("mobula.stats().dense + mobula.stats().boxes > 10");
                b.eval("mobula.timeline.select('0x300000002')");
                b.until("document.querySelector('#detail .why')");
            }
            let pale = b.eval(PALE);
            assert_eq!(pale, json!([]), "{view} in {scheme}");
            let wide = b.eval("document.documentElement.scrollWidth > innerWidth");
            assert_eq!(wide, false, "{view} is wider than the window");
        }
    }
    // Whatever Tab reaches says so: by a ring around it.
    b.press("2");
    b.eval("document.activeElement.blur()");
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..40 {
        b.press("Tab");
        let at = b.eval("(() => { const e = document.activeElement, s = getComputedStyle(e); return [e.id || e.tagName, e === document.body || (s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2)]; })()");
        assert_eq!(at[1], true, "{at} has the focus and does not show it");
        reached.insert(at[0].as_str().unwrap_or_default().to_owned());
    }
    for id in [
        "timeline",
        "search",
        "theme",
        "help-open",
        "zoom-in",
        "show-data",
        "download",
        "tab-timeline",
    ] {
        assert!(
            reached.contains(id),
            "{id} is not reached by Tab: {reached:?}"
        );
    }
    // A table is sorted by its heads, which are buttons, and says how.
    b.press("6");
    b.until("document.querySelectorAll('#view-objects td').length > 0");
    let sizes = "[...document.querySelectorAll('#view-objects tbody tr')].map((tr) => tr.children[1].textContent)";
    b.eval("document.querySelectorAll('#view-objects th button')[1].focus()");
    b.press("Enter");
    b.until("document.querySelectorAll('#view-objects th')[1].ariaSort === 'ascending'");
    let up = b.eval(sizes);
    b.press("Enter");
    b.until("document.querySelectorAll('#view-objects th')[1].ariaSort === 'descending'");
    let down = b.eval(sizes);
    assert_ne!(up[0], down[0]);
    assert_eq!(down[0], "96.0 MiB");
    // Where motion is not wanted, a step is one step.
    b.media(&[("prefers-reduced-motion", "reduce")]);
    b.press("2");
    b.until("mobula.stats().view === 'timeline'");
    let jumped = b.eval("(() => { const t = mobula.timeline, w = (t.bounds.last - t.bounds.begin) / 9; t.go(t.bounds.begin + w, t.bounds.begin + 2 * w); return t.view.from === t.bounds.begin + w; })()");
    assert_eq!(jumped, true);
    // The picture in words, for those who do not see it.
    b.until("document.getElementById('timeline-about').textContent.includes('threads of 1 node')");
    assert_eq!(
        b.eval("document.getElementById('timeline').getAttribute('aria-describedby')"),
        "timeline-about"
    );
    assert!(b.complaints.is_empty(), "{:?}", b.complaints);
}

#[test]
fn nothing_yet_and_nothing_any_more_are_said() {
    let Some(mut b) = browser() else { return };
    let server = serve(Recording::default());
    b.open(&format!("{}#timeline", server.url()));
    b.until("!document.getElementById('timeline-empty').hidden");
    b.press("1");
    b.until("!document.getElementById('heat-empty').hidden");
    b.press("3");
    b.until("document.getElementById('functions').textContent.includes('No call has ended')");
    b.press("2");
    b.until("mobula.stats().view === 'timeline' && document.getElementById('live').dataset.state === 'on'");
    assert!(b.complaints.is_empty(), "{:?}", b.complaints);
    drop(server);
    b.until("document.getElementById('live').dataset.state === 'off'");
    b.until("document.getElementById('notice').textContent.includes('has ended')");
    b.picture("gone");
}

#[test]
fn a_page_that_stays_open_shows_the_next_program() {
    let Some(mut b) = browser() else { return };
    let first = serve(fixture::demo());
    let address = first.address();
    b.open(&format!("{}#timeline", first.url()));
    b.until("mobula.stats().recorded > 0 && mobula.stats().ticks > 0");
    drop(first);
    b.until("document.getElementById('live').dataset.state === 'off'");
    let mut second = fixture::Replay::new(Recording::default());
    second.pid = 4243;
    let settings = Settings::new().address(address);
    let _second = Server::start(settings, Arc::new(second)).unwrap();
    b.until("document.getElementById('pid').textContent.includes('4243')");
    // Nothing of the first is left, and the view is the same.
    b.until("mobula.stats().recorded === 0 && mobula.stats().view === 'timeline'");
}
