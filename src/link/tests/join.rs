//! Who gets in, and who does not.
//!
//! Invariant: after each refusal the cluster still lets in who belongs to it. Left out: what members do to each other.

use std::time::SystemTime;

use super::raw::*;
use super::*;
use crate::link::ca::NodeKey;

fn head(ca: &Arc<Ca>) -> (Endpoint, Arc<Heard>) {
    let mut head = settings(ca, 1);
    head.ca = Some(ca.clone());
    start(head)
}

/// The node still works: a newcomer gets in and is heard.
fn unharmed(ca: &Ca, head: &Endpoint, heard: &Heard) {
    let identity = join(head.local_addr(), &ca.token(), node(77), PATIENCE).unwrap();
    let (newcomer, _) = start(Settings::new(loopback(), identity, Registry::default()));
    newcomer.connect(head.local_addr(), Some(node(1)));
    heard.connected(node(77));
}

#[test]
fn a_wrong_secret_is_denied() {
    let ca = Arc::new(Ca::new().unwrap());
    let (head, heard) = head(&ca);
    let guess = JoinToken::new(ca.token().fingerprint, [7; 32]);
    let denied = join(head.local_addr(), &guess, node(2), PATIENCE).unwrap_err();
    assert!(
        denied.to_string().contains("secret is not this cluster's"),
        "{denied}"
    );
    assert!(matches!(heard.refused(), LinkError::Denied(_)));
    unharmed(&ca, &head, &heard);
}

#[test]
fn a_token_of_another_cluster_is_noticed_by_the_newcomer() {
    let (ca, other) = (Arc::new(Ca::new().unwrap()), Ca::new().unwrap());
    let (head, heard) = head(&ca);
    let why = join(head.local_addr(), &other.token(), node(2), PATIENCE).unwrap_err();
    assert!(matches!(why, LinkError::OtherCluster { .. }), "{why}");
    unharmed(&ca, &head, &heard);
}

#[test]
fn only_a_holder_of_the_authority_lets_in() {
    let ca = Ca::new().unwrap();
    let (member, _heard) = start(settings(&ca, 1));
    let denied = join(member.local_addr(), &ca.token(), node(2), PATIENCE).unwrap_err();
    assert!(
        denied.to_string().contains("address of the head"),
        "{denied}"
    );
    member.hold_ca(Some(Arc::new(Ca::from_pem(&ca.to_pem()).unwrap())));
    join(member.local_addr(), &ca.token(), node(2), PATIENCE).unwrap();
}

#[test]
fn a_number_is_borne_once() {
    let ca = Arc::new(Ca::new().unwrap());
    let (head, heard) = head(&ca);
    for taken in [1, 77] {
        if taken == 77 {
            unharmed(&ca, &head, &heard);
            head.forget(node(77));
        }
        let denied = join(head.local_addr(), &ca.token(), node(taken), PATIENCE).unwrap_err();
        assert!(denied.to_string().contains("bears this number"), "{denied}");
    }
}

#[test]
fn who_shows_no_certificate_is_no_member() {
    let ca = Arc::new(Ca::new().unwrap());
    let (head, heard) = head(&ca);
    let raw = Raw::new();
    // The newcomers' handshake, without their mark, and the mark with the members' protocol: neither is served.
    let (mut config, _) = tls::joining(&ca.token()).unwrap();
    config.initial_dst_cid_provider(Arc::new(|| quinn::ConnectionId::new(&[9; 20])));
    assert!(raw.connect(config, head.local_addr()).is_err());
    let mut config = member_config(&ca.identity(node(5)).unwrap(), head.local_addr());
    config.initial_dst_cid_provider(Arc::new(|| {
        quinn::ConnectionId::new(b"mobjoin1 and so on..")
    }));
    assert!(raw.connect(config, head.local_addr()).is_err());
    assert!(
        heard
            .events()
            .iter()
            .all(|event| matches!(event, Event::Refused(_)))
    );
    unharmed(&ca, &head, &heard);
}

/// The member refuses it, and says why; so does the one that shows it hear.
fn refused_as(identity: Identity, ca: &Arc<Ca>, word: &str) {
    let (head, heard) = head(ca);
    let (bad, heard_bad) = start(Settings::new(loopback(), identity, Registry::default()));
    bad.connect(head.local_addr(), Some(node(1)));
    let (here, there) = (heard.refused().to_string(), heard_bad.refused().to_string());
    assert!(here.contains(word), "{here}");
    assert!(
        there.contains("refused") || there.contains("closed"),
        "{there}"
    );
    // Nor is it believed when it is called.
    head.connect(bad.local_addr(), None);
    heard.until("second refusal", |events| (events.len() > 1).then_some(()));
    let said: Vec<Event> = heard.events();
    assert!(
        said.iter().all(|event| matches!(event, Event::Refused(_))),
        "{said:?}"
    );
    assert_eq!(head.stats().connections, 0);
    unharmed(ca, &head, &heard);
}

#[test]
fn a_certificate_that_has_expired_is_refused() {
    let ca = Arc::new(Ca::new().unwrap());
    let mut identity = ca.identity(node(2)).unwrap();
    let key = NodeKey::new().unwrap();
    let past = SystemTime::now() - Duration::from_secs(3600);
    identity.chain[0] = ca.issue(node(2), key.public(), past).unwrap();
    identity.key = key.der();
    refused_as(identity, &ca, "expired");
}

#[test]
fn a_certificate_of_another_cluster_is_refused() {
    let ca = Arc::new(Ca::new().unwrap());
    let mut identity = Ca::new().unwrap().identity(node(2)).unwrap();
    // It claims the right authority; the signature says otherwise.
    identity.chain[1] = ca.certificate().clone();
    refused_as(identity, &ca, "authority");
}

#[test]
fn a_certificate_that_signed_itself_is_refused() {
    let ca = Arc::new(Ca::new().unwrap());
    let mut identity = ca.identity(node(2)).unwrap();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let params = rcgen::CertificateParams::new(vec![format!("{}.node.mobula", node(2))]).unwrap();
    identity.chain[0] = params.self_signed(&key).unwrap().der().clone();
    identity.key = key.serialize_der().into();
    refused_as(identity, &ca, "certificate");
}

#[test]
fn whoever_answers_must_be_who_was_called() {
    let ca = Ca::new().unwrap();
    let (one, heard) = start(settings(&ca, 1));
    let (two, _two) = start(settings(&ca, 2));
    one.connect(two.local_addr(), Some(node(3)));
    let wrong = LinkError::WrongNode {
        expected: node(3),
        found: node(2),
    };
    assert_eq!(heard.refused(), wrong);
}

#[test]
fn a_certificate_with_another_nodes_greeting_is_refused() {
    let ca = Ca::new().unwrap();
    let (head, heard) = start(settings(&ca, 1));
    let raw = Raw::new();
    let connection = raw.member(&ca.identity(node(2)).unwrap(), head.local_addr());
    raw.runtime
        .block_on(greet_and_say(&connection, &greeting(&ca, 3), b""));
    connection.close(0u32.into(), b"");
    let wrong = LinkError::WrongNode {
        expected: node(2),
        found: node(3),
    };
    assert_eq!(heard.refused(), wrong);
}

#[test]
fn programs_that_differ_say_in_what() {
    let ca = Ca::new().unwrap();
    let registry =
        |names: &[&str], layout| Registry::new(names.iter().map(|name| (name.to_string(), layout)));
    let of = |number, registry| {
        start(Settings::new(
            loopback(),
            ca.identity(node(number)).unwrap(),
            registry,
        ))
    };
    let (one, heard_one) = of(1, registry(&["a", "b", "c", "d", "e", "f", "same"], 1));
    let theirs = [("same", 1), ("a", 2), ("z", 1)].map(|(name, layout)| (name.to_owned(), layout));
    let theirs = Registry::new(theirs);
    let (two, heard_two) = of(2, theirs);
    one.connect(two.local_addr(), None);
    for heard in [heard_one, heard_two] {
        let LinkError::Registry(diff) = heard.refused() else {
            panic!("{:?}", heard.events());
        };
        assert_eq!((diff.named.len(), diff.more), (5, 2), "{diff}");
        assert!(
            diff.to_string().contains("`a` has other types there"),
            "{diff}"
        );
    }
}

#[test]
fn versions_and_machines_that_differ_are_named_on_both_sides() {
    let ca = Ca::new().unwrap();
    let (one, heard_one) = start(settings(&ca, 1));
    let mut other = settings(&ca, 2);
    other.hello.wire_version = 9;
    let (two, _two) = start(other);
    one.connect(two.local_addr(), None);
    assert_eq!(
        heard_one.refused(),
        LinkError::Version {
            ours: crate::link::hello::WIRE_VERSION,
            theirs: 9
        }
    );
    let mut other = settings(&ca, 3);
    other.hello.platform.arch = "vax".to_owned();
    let (three, heard_three) = start(other);
    one.connect(three.local_addr(), None);
    let why = heard_three.refused();
    assert!(
        matches!(&why, LinkError::Platform { ours, .. } if ours.contains("vax")),
        "{why}"
    );
}
