//! A frame of each kind, for tests and fuzz targets.
//!
//! Invariant: everything that a frame may have is in one of them. Left out: judging what is read.

use super::*;
use crate::base::{ActorKey, Demand, GroupId, Infeasible, NodeId, ObjectKey, Units};
use crate::core::groups::{GroupMsg, Refusal};
use crate::core::leases::{Ending, LeaseMsg};
use crate::core::owners::{Message, RefState};
use crate::core::recovery::{CallId, Record, Settled, ToHost};

fn node(n: u64) -> NodeId {
    NodeId::new(n).expect("not 0")
}

fn key(n: u64) -> ObjectKey {
    ObjectKey {
        owner: node(n),
        number: n << 40 | 7,
    }
}

fn actor_key(n: u64) -> ActorKey {
    ActorKey {
        host: node(n),
        number: n << 30 | 5,
    }
}

fn actor_terms() -> ActorTerms {
    ActorTerms {
        demand: Demand::NONE,
        name: Some("hits".to_owned()),
        detached: false,
        max_restarts: 3,
        max_concurrency: 1,
        max_pending: 0,
        restart_on_panic: false,
        isolate: false,
        memory: Some(1),
        checkpoints: crate::core::history::Terms::default(),
        replicas: 1,
        group: None,
    }
}

fn recovering() -> Vec<Frame> {
    let actor = actor_key(1);
    let record = Record {
        actor,
        incarnation: 2,
        version: 5,
        at: actor_key(2),
        backups: vec![node(3), node(4)],
    };
    let kept = KeptCall {
        caller: 4,
        call: call(),
        values: vec![(1, value())],
    };
    let id = CallId {
        node: node(3),
        number: 9,
    };
    let settled = Settled {
        below: 9,
        but: vec![3, 5],
    };
    let entry = EntryBody {
        order: 7,
        call: id,
        settled: settled.clone(),
        bytes: 100,
        load: kept.clone(),
    };
    let checkpoint = CheckpointBody {
        order: 6,
        bytes: 10,
        state: StateBody {
            kind: 1,
            terms: actor_terms(),
            init: kept,
            value: Some(value()),
        },
        floors: vec![(node(1), 4), (node(2), u64::MAX)],
        outcomes: vec![(id, 5, Outcome::Value(value())), (id, 6, Outcome::Returned)],
        before: vec![(id, 4)],
    };
    let incarnation = 2;
    let answer = |answer| Recovering::Answer { actor, answer };
    let save = |checkpoint: Option<CheckpointBody>, entries| Recovering::Save {
        actor,
        incarnation,
        beat: 8,
        checkpoint: checkpoint.map(Box::new),
        entries,
    };
    let said = vec![
        Recovering::Call {
            actor,
            at: actor_key(2),
            number: 1,
            settled: Settled::below(1),
            id: 77,
            caller: 6,
            call: call(),
        },
        Recovering::Settled {
            actor,
            settled: settled.clone(),
        },
        Recovering::Again {
            actor,
            at: actor_key(2),
            number: 5,
            settled,
            id: 77,
        },
        Recovering::Outcome {
            actor,
            number: 1,
            outcome: Outcome::Failed(b"why".to_vec()),
        },
        Recovering::NotHere {
            actor,
            at: actor_key(3),
        },
        Recovering::Moved {
            actor,
            incarnation,
            at: actor_key(3),
        },
        Recovering::Ended {
            actor,
            cause: "it was stopped".to_owned(),
        },
        Recovering::Rouse(actor),
        save(Some(checkpoint), vec![entry.clone(), entry]),
        save(None, Vec::new()),
        Recovering::Look { actor, incarnation },
        Recovering::Forget { actor, incarnation },
        answer(ToHost::Saved {
            incarnation,
            beat: 8,
        }),
        answer(ToHost::Refused { incarnation }),
        answer(ToHost::Declined { incarnation }),
        Recovering::Part {
            last: true,
            bytes: vec![1; 30],
        },
    ];
    let said = said.into_iter().map(|message| Frame::Recover {
        message: Box::new(message),
    });
    let swap = Question::Swap(actor, None, Some(record.clone()));
    let asked = [Question::Record(actor), swap]
        .into_iter()
        .map(|question| Frame::Ask { ask: 1, question });
    let found = [
        Found::Record(Some(record)),
        Found::Record(None),
        Found::Swapped,
    ]
    .into_iter()
    .map(|found| Frame::Answer { ask: 1, found });
    said.chain(asked).chain(found).collect()
}

fn reference(state: RefState, beside: Beside) -> RefBody {
    RefBody {
        key: key(3),
        tag: 99,
        transit: 4,
        state,
        beside,
    }
}

fn call() -> CallBody {
    let ready = RefState::Ready {
        len: 1 << 40,
        at: vec![node(1), node(2)],
    };
    let handle = HandleBody {
        key: key(5),
        kind: 2,
        tag: 8,
        transit: 0,
        name: Some("hits".to_owned()),
        kept: Some((actor_key(4), 2)),
    };
    CallBody {
        function: 12,
        args: vec![
            ArgBody::Inline(128),
            ArgBody::Object(reference(ready, Beside::Nothing)),
            ArgBody::Object(reference(RefState::Failed, Beside::Failed(vec![1, 2]))),
        ],
        inline: vec![9; 100],
        caps: vec![
            CapBody::Object(reference(RefState::Pending, Beside::Refers)),
            CapBody::Object(reference(RefState::Pending, Beside::Replicated)),
            CapBody::Object(reference(
                RefState::Pending,
                Beside::Durable {
                    at: "file:///kept/".into(),
                    len: 7,
                },
            )),
            CapBody::Actor(handle),
        ],
    }
}

fn value() -> ValueBody {
    let small = Beside::Value {
        whole: false,
        bytes: vec![3; 8],
    };
    ValueBody {
        whole: true,
        bytes: (0..=255).collect(),
        caps: vec![CapBody::Object(reference(RefState::Pending, small))],
    }
}

fn group() -> GroupId {
    GroupId {
        node: node(8),
        number: 5,
    }
}

/// Every message about groups.
fn grouping() -> Vec<Frame> {
    let (group, epoch) = (group(), 3);
    let demand = || Demand::ONE_CPU.with_custom("disk", Units::whole(3));
    let why = Refusal::Infeasible(Infeasible {
        resource: "disk".to_owned(),
        requested: Units::whole(4),
        capacity: Units::ONE,
    });
    let refused = |why| GroupMsg::Refused { group, epoch, why };
    let located = |bundles| GroupMsg::Located {
        group,
        version: 9,
        bundles,
    };
    let all = [
        GroupMsg::Prepare {
            group,
            epoch,
            priority: -2,
            bundles: vec![(0, demand()), (7, Demand::NONE)],
        },
        GroupMsg::Commit { group, epoch },
        GroupMsg::Abort { group, epoch },
        GroupMsg::Remove { group },
        GroupMsg::Prepared { group, epoch },
        refused(why),
        refused(Refusal::Full),
        refused(Refusal::Draining),
        GroupMsg::Committed { group, epoch },
        GroupMsg::Locate { group },
        located(None),
        located(Some(vec![(Some(node(4)), demand()), (None, Demand::NONE)])),
    ];
    all.map(|message| Frame::Group { message }).to_vec()
}

/// Every message about leases.
fn leasing() -> Vec<Frame> {
    let lease = 9;
    let ended = |why| LeaseMsg::Ended { lease, why };
    let refused = |calls| LeaseMsg::Refused {
        lease,
        slots: 3,
        calls,
    };
    let why = Infeasible {
        resource: "disk".to_owned(),
        requested: Units::whole(4),
        capacity: Units::ONE,
    };
    let all = [
        LeaseMsg::Want {
            lease,
            demand: Demand::ONE_CPU.with_custom("disk", Units::whole(3)),
            priority: -2,
            slots: u32::MAX,
        },
        LeaseMsg::Slots {
            lease,
            slots: 5,
            blocked: 2,
        },
        refused(vec![]),
        refused(vec![1, u64::MAX]),
        ended(Ending::Infeasible(why)),
        ended(Ending::Full),
        ended(Ending::Draining),
        ended(Ending::Lapsed),
    ];
    all.map(|message| Frame::Lease { message }).to_vec()
}

fn replicas() -> Vec<Frame> {
    use crate::core::replicas::{Message, Why};
    let key = key(9);
    let len = 1 << 35;
    let declined = |why| Message::Declined { key, why };
    let all = [
        Message::Make { key, len },
        Message::Made { key },
        declined(Why::NoRoom),
        declined(Why::Leaves),
        declined(Why::Failed),
        Message::Free { key },
        Message::Seek {
            key,
            durable: false,
        },
        Message::Seek { key, durable: true },
        Message::Found { key, len: None },
        Message::Found {
            key,
            len: Some(len),
        },
        Message::Quit { key },
    ];
    all.map(|message| Frame::Replica { message }).to_vec()
}

/// All of them.
pub fn frames() -> Vec<Frame> {
    let demand = Demand::cpu_only(Units::ONE).with_custom("disk", Units::whole(3));
    let terms = Terms {
        demand: Some(demand.clone()),
        priority: -5,
        panic_retries: 1,
        crash_retries: 2,
        isolate: true,
        memory: Some(1 << 33),
        group: Some((group(), Some(3))),
    };
    let actor_terms = ActorTerms {
        demand,
        name: None,
        detached: true,
        max_restarts: 3,
        max_concurrency: 4,
        max_pending: 5,
        restart_on_panic: true,
        isolate: false,
        memory: None,
        checkpoints: crate::core::history::Terms {
            every: 6,
            interval: Some(std::time::Duration::from_millis(7)),
            bound: 8,
            durable: true,
        },
        replicas: 2,
        group: Some((group(), None)),
    };
    let named = Named {
        key: key(6),
        kind: 1,
        kept: None,
    };
    let number = 17;
    let outcome = |outcome| Frame::Ended {
        number,
        ran: u64::MAX,
        outcome,
    };
    let ask = |question| Frame::Ask { ask: 1, question };
    let about = |message| Frame::Owning {
        message,
        beside: Beside::Nothing,
    };
    vec![
        Frame::Call {
            number,
            lease: Some(7),
            terms: terms.clone(),
            call: call(),
        },
        Frame::Call {
            number,
            lease: None,
            terms,
            call: call(),
        },
        outcome(Outcome::Value(value())),
        outcome(Outcome::Stored(u64::MAX)),
        outcome(Outcome::Failed(b"why".to_vec())),
        outcome(Outcome::Returned),
        Frame::Cancel { number },
        Frame::Create {
            number,
            kind: 3,
            terms: actor_terms,
            call: call(),
        },
        Frame::Method {
            actor: key(1),
            caller: 2,
            number,
            call: call(),
        },
        Frame::Kill {
            actor: key(1),
            restart: true,
        },
        Frame::ActorEnded {
            actor: key(1),
            cause: "it was stopped".to_owned(),
        },
        about(Message::Release {
            key: key(1),
            received: 2,
        }),
        about(Message::Borrow {
            key: key(1),
            from: node(2),
            transit: 3,
        }),
        about(Message::Arrived { transit: 3 }),
        about(Message::Buried { node: node(2) }),
        about(Message::Where {
            key: key(1),
            ask: 2,
            failed: Some(node(3)),
        }),
        about(Message::At {
            key: key(1),
            ask: 2,
            from: None,
        }),
        Frame::Owning {
            message: Message::Settled {
                key: key(1),
                state: RefState::Failed,
            },
            beside: Beside::Failed(vec![0; 3]),
        },
        Frame::Fetch {
            key: key(1),
            transfer: 2,
            near: true,
        },
        Frame::Lies {
            transfer: 2,
            offset: 64,
            len: 1 << 30,
        },
        Frame::Read { transfer: 2 },
        Frame::Fetched {
            transfer: 2,
            value: Some(value()),
        },
        ask(Question::Find("hits".to_owned())),
        ask(Question::Claim("hits".to_owned(), named.clone())),
        ask(Question::Free("hits".to_owned(), key(1))),
        Frame::Answer {
            ask: 1,
            found: Found::Is(named),
        },
        Frame::Answer {
            ask: 2,
            found: Found::Nobody,
        },
        Frame::Answer {
            ask: 3,
            found: Found::Later,
        },
        Frame::Answer {
            ask: 4,
            found: Found::Failed("why".to_owned()),
        },
        Frame::Leave,
        Frame::View { view: vec![1; 40] },
    ]
    .into_iter()
    .chain(grouping())
    .chain(leasing())
    .chain(recovering())
    .chain(replicas())
    .collect()
}
