//! Finding calls, functions and objects by what a person types.
//!
//! **Invariant:** at most [`MAX_FOUND`] results, the latest calls first; the text is data and never a pattern.
//! **Left out:** actors and workers, which the page finds in its tables.

use serde::Serialize;

use super::index::Index;
use crate::base::snapshot::Id;

/// Results of one search.
pub const MAX_FOUND: usize = 60;

/// Functions among them.
const MAX_FUNCTIONS: usize = 12;

/// Letters of a search that count.
pub const MAX_TEXT: usize = 200;

/// One result.
#[derive(Debug, Serialize)]
pub struct Found {
    /// `task`, `object` or `function`.
    pub what: &'static str,
    pub id: Option<Id>,
    pub name: String,
    pub outcome: &'static str,
    pub start: Option<u64>,
    pub end: Option<u64>,
    pub lane: Option<u32>,
    /// For a function: how many calls were recorded.
    pub count: u64,
}

/// Looks for a text among ids and names.
pub fn find(index: &Index, text: &str) -> Vec<Found> {
    let text: String = text
        .trim()
        .chars()
        .take(MAX_TEXT)
        .collect::<String>()
        .to_lowercase();
    let mut found = Vec::new();
    if text.is_empty() {
        return found;
    }
    if let Ok(Id(id)) = text.parse() {
        found.extend(index.call(id).map(|call| task(index, call)));
        found.extend(index.object(id).map(|o| object(index, o)));
    }
    let fits: Vec<bool> = index
        .names
        .iter()
        .map(|n| n.to_lowercase().contains(&text))
        .collect();
    let fits = |name: u32| fits.get(name as usize).copied().unwrap_or(false);
    let mut counts = vec![0u64; index.names.len()];
    for call in index.calls.iter().filter(|call| fits(call.function)) {
        counts[call.function as usize] += 1;
    }
    let mut functions: Vec<usize> = (0..counts.len()).filter(|&i| counts[i] > 0).collect();
    functions.sort_unstable_by_key(|&i| std::cmp::Reverse(counts[i]));
    found.extend(functions.into_iter().take(MAX_FUNCTIONS).map(|i| Found {
        what: "function",
        id: None,
        name: index.names[i].clone(),
        outcome: "",
        start: None,
        end: None,
        lane: None,
        count: counts[i],
    }));
    // Part of an id is looked for only if it can be one.
    let part = text.strip_prefix("0x").unwrap_or(&text);
    let part = (part.len() >= 3 && part.bytes().all(|b| b.is_ascii_hexdigit())).then_some(part);
    let has = |id: u64| part.is_some_and(|part| format!("{id:x}").contains(part));
    let said = |call: u32| {
        index
            .error(call)
            .is_some_and(|e| e.to_lowercase().contains(&text))
    };
    let known = found.first().and_then(|f| f.id);
    for at in (0..index.calls.len() as u32).rev() {
        if found.len() >= MAX_FOUND {
            return found;
        }
        let call = &index.calls[at as usize];
        if Some(Id(call.id)) != known && (fits(call.function) || has(call.id) || said(at)) {
            found.push(task(index, at));
        }
    }
    for o in index.objects.iter().rev() {
        if found.len() >= MAX_FOUND {
            break;
        }
        if Some(Id(o.id)) != known && (fits(o.origin) || has(o.id)) {
            found.push(object(index, o));
        }
    }
    found
}

fn task(index: &Index, at: u32) -> Found {
    let call = &index.calls[at as usize];
    let run = index.first_run(at).map(|run| &index.runs[run as usize]);
    Found {
        what: "task",
        id: Some(Id(call.id)),
        name: index.name(call.function).into(),
        outcome: call.outcome.word(),
        start: run.map(|run| run.start),
        end: index.last_run(at).map(|run| index.runs[run as usize].end),
        lane: run.map(|run| run.lane),
        count: 1,
    }
}

fn object(index: &Index, object: &crate::trace::recording::Object) -> Found {
    Found {
        what: "object",
        id: Some(Id(object.id)),
        name: index.name(object.origin).into(),
        outcome: "done",
        start: Some(object.at),
        end: Some(object.at),
        lane: Some(object.lane),
        count: 1,
    }
}
