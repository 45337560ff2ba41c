//! What was called and what came of it, in the order in which it was seen, and whether one object without machines could have done so.
//!
//! A history is linearizable if its calls have an order in which the object alone would have given the same answers, and in which
//! a call that had returned comes before one that was made later. The search is the algorithm of Wing, Gong and Lowe, of the crate
//! `todc-utils`: it remembers what it has tried, and needs nothing else. (`stateright`'s tester tries again what it has tried, copies
//! what is left at each step, and brings a web server.)
//!
//! Invariant: a call whose outcome is unknown may have run at any time since it was made, or never: it stays open to the end. A history
//! that cannot be judged in time fails the test. Left out: who calls (`clients`).

use std::collections::BTreeSet;
use std::fmt::Write;
use std::marker::PhantomData;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use crate::models::Model;

/// A judgement takes no longer than this.
const PATIENCE: Duration = Duration::from_secs(20);

/// A call.
#[derive(Clone, Debug)]
pub struct Call<M: Model> {
    pub client: usize,
    pub deed: M::Deed,
    /// Since the log began.
    pub made: Duration,
    /// When, and what it gave; nothing if that is not known.
    pub gave: Option<(Duration, M::Gave)>,
    /// Why it is not.
    pub error: Option<String>,
}

/// Calls, and in which order they were made and returned.
#[derive(Clone, Debug)]
pub struct Calls<M: Model> {
    pub calls: Vec<Call<M>>,
    /// A call's number, and whether this is its return.
    pub order: Vec<(usize, bool)>,
}

/// Where clients write down what they do.
pub struct Log<M: Model> {
    began: Instant,
    calls: Mutex<Calls<M>>,
}

impl<M: Model> Log<M> {
    pub fn new() -> Log<M> {
        Log {
            began: Instant::now(),
            calls: Mutex::new(Calls {
                calls: Vec::new(),
                order: Vec::new(),
            }),
        }
    }

    /// A call is about to be made; its number.
    pub fn makes(&self, client: usize, deed: &M::Deed) -> usize {
        let mut all = self.calls.lock().expect("nobody panics here");
        let number = all.calls.len();
        all.calls.push(Call {
            client,
            deed: deed.clone(),
            made: self.began.elapsed(),
            gave: None,
            error: None,
        });
        all.order.push((number, false));
        number
    }

    /// It has returned.
    pub fn returned(&self, number: usize, gave: M::Gave) {
        let mut all = self.calls.lock().expect("nobody panics here");
        all.calls[number].gave = Some((self.began.elapsed(), gave));
        all.order.push((number, true));
    }

    /// It failed, which says nothing of whether it ran.
    pub fn failed(&self, number: usize, why: String) {
        let mut all = self.calls.lock().expect("nobody panics here");
        all.calls[number].error = Some(why);
    }

    /// Whether the call that was made last of those that have ended had an answer.
    pub fn is_answered(&self) -> bool {
        let all = self.calls.lock().expect("nobody panics here");
        let ended = |call: &&Call<M>| call.gave.is_some() || call.error.is_some();
        let last = all.calls.iter().rev().find(ended);
        last.is_none_or(|call| call.gave.is_some())
    }

    /// All of it.
    pub fn calls(&self) -> Calls<M> {
        self.calls.lock().expect("nobody panics here").clone()
    }
}

/// A call as the search sees it.
#[derive(Clone, Debug)]
struct Step<M: Model> {
    deed: M::Deed,
    gave: Option<M::Gave>,
}

struct Alone<M>(PhantomData<M>);

impl<M: Model> Specification for Alone<M> {
    type State = M;
    type Operation = Step<M>;

    fn init() -> M {
        M::new()
    }

    fn apply(step: &Step<M>, state: &M) -> (bool, M) {
        let mut after = state.clone();
        let gives = after.run(&step.deed);
        if step.gave.as_ref().is_none_or(|gave| *gave == gives) {
            (true, after)
        } else {
            (false, state.clone())
        }
    }
}

impl<M: Model> Calls<M> {
    /// Calls whose outcome is not known.
    pub fn unknown(&self) -> usize {
        self.calls.iter().filter(|call| call.gave.is_none()).count()
    }

    /// Whether one object alone could have done so.
    ///
    /// # Panics
    /// If that is not found in time.
    pub fn is_linearizable(&self) -> bool {
        if self.order.is_empty() {
            return true;
        }
        let step = |number: usize| {
            let call = &self.calls[number];
            Step {
                deed: call.deed.clone(),
                gave: call.gave.as_ref().map(|(_, gave)| gave.clone()),
            }
        };
        let mut open: BTreeSet<usize> = BTreeSet::new();
        let mut actions = Vec::with_capacity(2 * self.calls.len());
        for &(number, returns) in &self.order {
            if returns {
                open.remove(&number);
                actions.push((number, Action::Response(step(number))));
            } else {
                open.insert(number);
                actions.push((number, Action::Call(step(number))));
            }
        }
        // It ends after all others.
        let open = open.into_iter();
        actions.extend(open.map(|number| (number, Action::Response(step(number)))));
        let history = History::from_actions(actions);
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let _ = tell.send(WGLChecker::<Alone<M>>::is_linearizable(history));
        });
        match told.recv_timeout(PATIENCE) {
            Ok(verdict) => verdict,
            Err(RecvTimeoutError::Timeout) => panic!(
                "{}: {} calls, {} of them with unknown outcomes, were not judged within {PATIENCE:?}:\n{}",
                M::NAME,
                self.calls.len(),
                self.unknown(),
                self.table(&self.order)
            ),
            Err(RecvTimeoutError::Disconnected) => panic!("{}: the search failed", M::NAME),
        }
    }

    /// The shortest beginning that no object could have done, as a table.
    pub fn explain(&self) -> String {
        let (mut good, mut bad) = (0, self.order.len());
        while good + 1 < bad {
            let middle = good.midpoint(bad);
            let mut part = self.clone();
            part.order.truncate(middle);
            // What has not returned by then is open.
            let returned: BTreeSet<usize> =
                part.order.iter().filter(|o| o.1).map(|o| o.0).collect();
            for (number, call) in part.calls.iter_mut().enumerate() {
                if !returned.contains(&number) {
                    call.gave = None;
                }
            }
            if part.is_linearizable() {
                good = middle;
            } else {
                bad = middle;
            }
        }
        let text = format!(
            "{}: {} calls; nothing explains the last of these:\n",
            M::NAME,
            self.calls.len()
        );
        text + &self.table(&self.order[bad.saturating_sub(60)..bad])
    }

    /// Calls and returns, a line each.
    fn table(&self, order: &[(usize, bool)]) -> String {
        let mut text = String::new();
        for &(number, returns) in order {
            let call = &self.calls[number];
            let _ = match (&call.gave, returns) {
                (Some((at, gave)), true) => {
                    writeln!(text, "{at:>12.3?}  call {number} gave {gave:?}")
                }
                _ => writeln!(
                    text,
                    "{:>12.3?}  call {number} of client {}: {:?}{}",
                    call.made,
                    call.client,
                    call.deed,
                    call.error
                        .as_ref()
                        .map_or_else(String::new, |e| format!(" (never known: {e})"))
                ),
            };
        }
        text
    }

    /// The same without one call, as if it had never been made.
    pub fn without(&self, number: usize) -> Calls<M> {
        let mut fewer = self.clone();
        fewer.order.retain(|(n, _)| *n != number);
        fewer
    }

    /// The same with one call made and returned once more, right after it returned, with the same answer.
    pub fn twice(&self, number: usize) -> Calls<M> {
        let mut more = self.clone();
        let again = more.calls.len();
        more.calls.push(more.calls[number].clone());
        let returned = more.order.iter().position(|o| *o == (number, true));
        let at = returned.expect("it returned") + 1;
        more.order.splice(at..at, [(again, false), (again, true)]);
        more
    }
}
