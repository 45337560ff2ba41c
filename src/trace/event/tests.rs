//! What is written is read, and anything else does no harm.

use super::*;
use proptest::prelude::*;

#[test]
fn what_is_written_is_read() {
    let all = [
        Event::Submit(Submitted {
            name: 7,
            begin: 100,
            end: 160,
            call: 1 << 41 | 3,
            caller: 1 << 40,
            actor: 9,
            bytes: 12,
            inputs: 4,
            first: [5, 6],
        }),
        Event::Inputs {
            call: 3,
            count: 5,
            inputs: [1, 2, 3, 4, 5],
        },
        Event::Ready {
            call: 3,
            at: 4,
            resources: true,
        },
        Event::Run(Ran {
            name: u32::MAX,
            outcome: Outcome::Again,
            turn: u16::MAX,
            begin: 1,
            end: 2,
            call: 3,
            actor: 4,
            reading: 5,
            storing: 6,
            bytes: 7,
        }),
        Event::Block {
            name: 1,
            begin: 2,
            end: 3,
            awaited: 4,
            count: 5,
        },
        Event::Object {
            deed: Deed::Seal,
            name: 1,
            line: 2,
            begin: 3,
            end: 4,
            object: 5,
            bytes: u64::MAX,
        },
        Event::Actor {
            turn: Turn::Died,
            name: 1,
            at: 2,
            actor: 3,
            restarts: 4,
        },
        Event::Span {
            name: 1,
            begin: 2,
            end: 3,
            call: 4,
        },
        Event::Counter {
            name: 1,
            at: 2,
            value: -0.5,
        },
        Event::Text {
            about: 1,
            len: 40,
            bytes: *b"forty bytes of what there is to be said.",
        },
        Event::Fail {
            name: 1,
            at: 2,
            call: 3,
            cancelled: true,
        },
        Event::Gap {
            begin: 1,
            end: 2,
            calls: 3,
        },
    ];
    for event in all {
        assert_eq!(Event::read(&event.words()), Some(event));
    }
}

proptest! {
    #[test]
    fn any_words_are_read_without_a_panic_and_mean_what_they_say(
        kind in 0u8..16,
        rest in any::<[u64; WORDS]>(),
    ) {
        let mut words = rest;
        words[0] = words[0] & !0xff | u64::from(kind);
        if let Some(event) = Event::read(&words)
            && !matches!(event, Event::Counter { value, .. } if value.is_nan())
            && !matches!(event, Event::Submit(s) if s.end == u64::MAX)
        {
            prop_assert_eq!(Event::read(&event.words()), Some(event));
        }
    }
}
