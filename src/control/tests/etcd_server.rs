//! A real etcd on a port of its own, for the suite and for what is etcd's alone. Skipped where there is none.

#[cfg(not(feature = "etcd"))]
pub fn run() {
    crate::base::skip::skipped("etcd: built without that feature");
}

#[cfg(feature = "etcd")]
pub use with::run;

#[cfg(feature = "etcd")]
mod with {
    use std::cell::Cell;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::super::{SOON, suite};
    use crate::base::etcd::Server;
    use crate::control::*;

    pub fn run() {
        let Some(server) = Server::start() else {
            crate::base::skip::skipped("no `etcd` here (apt-get install etcd-server)");
            return;
        };
        let count = Cell::new(0);
        suite::all(&|| {
            count.set(count.get() + 1);
            open(&server.address(&format!("suite{}", count.get()))).unwrap()
        });
        clusters_do_not_see_each_other(&server);
        a_history_that_was_compacted_is_said_to_be(&server);
        a_restart_of_etcd_loses_nothing_and_watches_go_on(server);
        what_does_not_answer_is_named();
    }

    fn clusters_do_not_see_each_other(server: &Server) {
        let (one, two) = (
            open(&server.address("one")).unwrap(),
            open(&server.address("two")).unwrap(),
        );
        one.put("k", b"1", Expect::Absent, None, SOON).unwrap();
        two.put("k", b"2", Expect::Absent, None, SOON).unwrap();
        let listed = one.list("", SOON).unwrap().records;
        assert_eq!(
            listed
                .iter()
                .map(|r| (&*r.key, &*r.value))
                .collect::<Vec<_>>(),
            [("k", &b"1"[..])]
        );
        // A second process of the same cluster does.
        let again = open(&server.address("one")).unwrap();
        assert_eq!(again.get("k", SOON).unwrap().unwrap().value, b"1");
    }

    fn a_history_that_was_compacted_is_said_to_be(server: &Server) {
        let control = open(&server.address("compact")).unwrap();
        let from = control.put("k", b"1", Expect::Any, None, SOON).unwrap();
        let put = |_| control.put("k", b"2", Expect::Any, None, SOON).unwrap();
        let last = (0..5).map(put).fold(0, |_, revision| revision);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut client =
                etcd_client::Client::connect([format!("127.0.0.1:{}", server.port)], None)
                    .await
                    .unwrap();
            client.compact(last as i64, None).await.unwrap();
        });
        let behind = control
            .watch("", from, SOON)
            .and_then(|watch| watch.next(SOON))
            .unwrap_err();
        assert!(
            matches!(behind, ControlError::FellBehind { .. }),
            "{behind}"
        );
        let ahead = control.watch("", last + 1000, SOON).unwrap_err();
        assert!(matches!(ahead, ControlError::FellBehind { .. }), "{ahead}");
    }

    fn a_restart_of_etcd_loses_nothing_and_watches_go_on(mut server: Server) {
        let control = open(&server.address("restart")).unwrap();
        let from = control.put("k", b"1", Expect::Any, None, SOON).unwrap();
        let watch = control.watch("", from, SOON).unwrap();
        control.put("k", b"2", Expect::Any, None, SOON).unwrap();
        assert!(watch.next(SOON).unwrap().is_some());
        server.kill();
        let within = Duration::from_millis(300);
        let gone = control
            .put("k", b"lost", Expect::Absent, None, within)
            .unwrap_err();
        assert!(
            matches!(
                gone,
                ControlError::Timeout { .. } | ControlError::Etcd { .. }
            ),
            "{gone}"
        );
        server.revive();
        let until = Instant::now() + Duration::from_secs(30);
        let third = loop {
            match control.put("k", b"3", Expect::Any, None, Duration::from_secs(1)) {
                Ok(third) => break third,
                Err(e) => assert!(Instant::now() < until, "{e}"),
            }
        };
        let mut told = from;
        while told < third {
            told = watch
                .next(Duration::from_secs(30))
                .unwrap()
                .expect("the watch goes on")
                .revision;
        }
        // Closing ends it.
        let control: Arc<dyn Control> = control;
        drop(control);
        // A write that was given up may have been done as well, and is told too.
        let last = loop {
            match watch.next(SOON) {
                Ok(Some(change)) => assert_eq!(change.now.map(|(v, _)| v), Some(b"3".to_vec())),
                last => break last,
            }
        };
        assert_eq!(last, Err(ControlError::Closed));
    }

    fn what_does_not_answer_is_named() {
        // Nothing listens there: it is no port of programs.
        let address = "etcd://127.0.0.1:1";
        let refused = open(address).err().unwrap();
        assert!(
            matches!(&refused, ControlError::Etcd { address: said, .. } if *said == address),
            "{refused}"
        );
        for bad in ["etcd://", "etcd://host", "etcd://h:1,,h:2"] {
            assert!(
                matches!(open(bad).err(), Some(ControlError::BadAddress { .. })),
                "{bad}"
            );
        }
    }
}
