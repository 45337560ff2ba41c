//! Values of every kind, in and out; numbers filled in place; bytes from outside.

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;

use common::{Rng, shared, until};
use mobula::prelude::*;
use mobula::{Error, value};

#[value]
#[derive(Debug, PartialEq, Clone)]
struct Point {
    x: f32,
    label: String,
}

#[value]
#[derive(Debug, PartialEq, Clone)]
enum Shape {
    Dot,
    Circle(Point, f64),
    Poly { points: Vec<Point>, closed: bool },
}

#[value]
#[derive(Debug, PartialEq, Clone)]
struct Unit;

#[value]
#[derive(Debug, PartialEq, Clone)]
struct Wide {
    a: u8,
    b: u128,
    c: u16,
    d: [i128; 40],
}

fn through<T: Value + PartialEq + Debug>(value: T) {
    let r = mobula::put(&value).unwrap();
    assert_eq!(mobula::get(&r).unwrap(), value);
    // Its bytes are enough to make it again.
    let bytes = mobula::view(&r).unwrap().bytes().to_vec();
    let back = mobula::put_archived::<T>(&bytes).unwrap();
    assert_eq!(mobula::get(&back).unwrap(), value);
    assert_eq!(mobula::view(&back).unwrap().to_owned().unwrap(), value);
}

fn points(n: usize) -> Vec<Point> {
    (0..n)
        .map(|i| Point {
            x: i as f32,
            label: format!("point number {i}"),
        })
        .collect()
}

#[test]
fn every_kind_comes_back() {
    shared(|mobula| {
        through(());
        through(true);
        through('é');
        through(u8::MAX);
        through(i128::MIN);
        through(u128::MAX);
        through(f64::NEG_INFINITY);
        through(String::new());
        through("a string that is not inline".to_owned());
        through(Some(Box::new(3u16)));
        through(None::<String>);
        through(Ok::<u32, String>(3));
        through(Err::<u32, String>("no".into()));
        through((1u8, 2u64, 'c', [4u16; 5], "six".to_owned()));
        through(vec![vec!["a".to_owned()], vec![], vec!["b".repeat(1000)]]);
        through([[1u128; 3]; 70]);
        through(
            (0..300)
                .map(|i| (format!("k{i}"), vec![i; 3]))
                .collect::<HashMap<_, _>>(),
        );
        through(
            (0..300)
                .map(|i| (i, format!("{i}")))
                .collect::<BTreeMap<_, _>>(),
        );
        through((0..300).collect::<HashSet<i64>>());
        through((0..300).collect::<BTreeSet<i64>>());
        through((0..300).collect::<VecDeque<u32>>());
        through(Unit);
        through(vec![Unit; 1000]);
        for n in [0, 1, 5, 100, 20_000] {
            through(points(n));
            through(Shape::Poly {
                points: points(n),
                closed: n % 2 == 0,
            });
        }
        through(vec![Shape::Dot, Shape::Circle(points(1)[0].clone(), 1.5)]);
        through(Wide {
            a: 1,
            b: 2,
            c: 3,
            d: [-4; 40],
        });
        through(vec![
            Wide {
                a: 1,
                b: u128::MAX,
                c: 3,
                d: [i128::MIN; 40]
            };
            50
        ]);
        // Not equal to itself, but the same bits.
        let nan = f32::from_bits(0x7fc0_1234);
        assert_eq!(
            mobula::get(mobula::put(&nan).unwrap()).unwrap().to_bits(),
            nan.to_bits()
        );
        until(|| mobula.store().used == 0);
    });
}

#[remote]
fn addresses(
    a: u8,
    b: &Archived<u128>,
    c: u8,
    d: &Archived<Wide>,
    e: &[u64],
    f: &Archived<Vec<u128>>,
) -> Vec<usize> {
    assert_eq!((a, c, e.len(), f.len()), (1, 2, 3, 4));
    assert_eq!(b.to_native(), 7);
    [
        std::ptr::from_ref(b).addr() % 16,
        std::ptr::from_ref(d).addr() % 16,
        e.as_ptr().addr() % 8,
        f.as_ptr().addr() % 16,
    ]
    .into()
}

#[remote]
fn wide(n: u128) -> (u8, u128, Wide) {
    (
        1,
        n,
        Wide {
            a: 1,
            b: n,
            c: 3,
            d: [-1; 40],
        },
    )
}

#[test]
fn everything_is_aligned_where_it_is_read() {
    shared(|_| {
        let big = Wide {
            a: 1,
            b: 2,
            c: 3,
            d: [4; 40],
        };
        let r = mobula::put(&big).unwrap();
        for _ in 0..3 {
            let by_value = addresses::remote(1, 7, 2, &big, vec![1, 2, 3], vec![5u128; 4]);
            assert_eq!(mobula::get(by_value).unwrap(), [0; 4]);
            let by_ref = addresses::remote(
                1,
                mobula::put(&7u128).unwrap(),
                2,
                &r,
                vec![1, 2, 3],
                mobula::put(&vec![5u128; 4]).unwrap(),
            );
            assert_eq!(mobula::get(by_ref).unwrap(), [0; 4]);
        }
        let r = wide::remote(u128::MAX - 1);
        let view = mobula::view(&r).unwrap();
        assert_eq!(std::ptr::from_ref(&view.1).addr() % 16, 0);
        assert_eq!(
            (view.1.to_native(), view.2.b.to_native()),
            (u128::MAX - 1, u128::MAX - 1)
        );
        let one = mobula::put(&5u128).unwrap();
        assert_eq!(
            std::ptr::from_ref(&*mobula::view(&one).unwrap()).addr() % 16,
            0
        );
        let slice = mobula::put_slice(&[1u8; 3]).unwrap();
        assert_eq!(
            mobula::view(&slice).unwrap().as_slice().as_ptr().addr() % 64,
            0
        );
    });
}

macro_rules! numbers {
    ($($t:ty)*) => { $( {
        for n in [0usize, 1, 2, 3, 63, 64, 65, 1000, 100_000] {
            let numbers: Vec<$t> = (0..n).map(|i| i as $t).collect();
            let put = mobula::put_slice(&numbers).unwrap();
            assert_eq!(mobula::view(&put).unwrap().as_slice(), numbers);
            let mut made = mobula::create::<$t>(n).unwrap();
            made.copy_from_slice(&numbers);
            let made = made.seal();
            assert_eq!(mobula::view(&made).unwrap().as_slice(), numbers);
            if n <= 1000 {
                assert_eq!(mobula::get(&put).unwrap(), numbers);
                // Both are what a put Vec is, to the byte that counts.
                let bytes = mobula::view(&made).unwrap().bytes().to_vec();
                assert_eq!(mobula::get(mobula::put_archived::<Vec<$t>>(&bytes).unwrap()).unwrap(), numbers);
            }
        }
    } )* };
}

#[remote]
fn starts_at(v: &[f64]) -> (usize, f64) {
    (v.as_ptr().addr(), v.iter().sum())
}

#[test]
fn numbers_are_put_and_filled_in_place() {
    shared(|mobula| {
        numbers!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);
        let mut draft = mobula::create::<f64>(10_000).unwrap();
        let at = draft.as_ptr().addr();
        // From several threads at once.
        std::thread::scope(|s| {
            for (i, part) in draft.chunks_mut(2500).enumerate() {
                s.spawn(move || part.fill(i as f64));
            }
        });
        assert_eq!(draft[9999], 3.0);
        let sealed = draft.seal();
        assert!(sealed.is_ready());
        assert_eq!(
            mobula::view(&sealed).unwrap().as_slice().as_ptr().addr(),
            at,
            "no copy"
        );
        assert_eq!(
            mobula::get(starts_at::remote(&sealed)).unwrap(),
            (at, 2500.0 * 6.0)
        );
        drop(sealed);
        drop(mobula::create::<u64>(100_000).unwrap()); // never sealed
        until(|| mobula.store().used == 0);
        assert!(matches!(
            mobula::create::<u64>(usize::MAX).unwrap_err(),
            Error::Encode { .. } | Error::StoreFull(_)
        ));
        assert!(matches!(
            mobula::create::<u64>(usize::MAX / 16).unwrap_err(),
            Error::StoreFull(_)
        ));
        assert_eq!(mobula.store().objects, 0);
    });
}

type Sample = (
    u32,
    Vec<String>,
    Option<bool>,
    HashMap<String, u64>,
    Vec<Shape>,
);

fn sample() -> Sample {
    let map = (0..20).map(|i| (format!("key number {i}"), i)).collect();
    let shapes = vec![
        Shape::Dot,
        Shape::Poly {
            points: points(3),
            closed: true,
        },
    ];
    (
        7,
        vec!["a string that is not inline at all".into(); 3],
        Some(true),
        map,
        shapes,
    )
}

fn is_decode(e: &Error) {
    match e {
        Error::Decode { expected, why } => assert!(!expected.is_empty() && !why.is_empty()),
        e => panic!("{e}"),
    }
}

#[test]
fn bytes_from_outside_are_refused_or_sound() {
    shared(|mobula| {
        let whole = mobula::view(&mobula::put(&sample()).unwrap())
            .unwrap()
            .bytes()
            .to_vec();
        assert_eq!(
            mobula::get(mobula::put_archived::<Sample>(&whole).unwrap()).unwrap(),
            sample()
        );
        let (mut refused, mut taken) = (0, 0);
        let mut offer = |bytes: &[u8]| match mobula::put_archived::<Sample>(bytes) {
            Ok(r) => {
                taken += 1;
                drop(mobula::get(r).unwrap());
            }
            Err(e) => {
                refused += 1;
                is_decode(&e);
            }
        };
        for cut in 0..whole.len() {
            offer(&whole[..cut]);
            offer(&whole[cut..]);
        }
        let mut rng = Rng::new(1);
        for _ in 0..3000 {
            let mut bytes = whole.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] = rng.below(256) as u8;
            }
            offer(&bytes);
        }
        for n in [0, 1, 8, 64, 4096] {
            let noise: Vec<u8> = (0..n).map(|_| rng.below(256) as u8).collect();
            offer(&noise);
        }
        assert!(
            refused > 500 && taken > 0,
            "{refused} refused, {taken} taken"
        );
        // Of the wrong type; text that is none; a bool that is none.
        is_decode(&mobula::put_archived::<Vec<String>>(&[0xff; 64]).unwrap_err());
        is_decode(&mobula::put_archived::<bool>(&[2]).unwrap_err());
        is_decode(&mobula::put_archived::<char>(&[0xff; 4]).unwrap_err());
        let text = mobula::view(&mobula::put(&"ab".repeat(50)).unwrap())
            .unwrap()
            .bytes()
            .to_vec();
        let mut bad = text.clone();
        bad.iter_mut().for_each(|b| {
            if *b == b'a' {
                *b = 0xc0
            }
        });
        is_decode(&mobula::put_archived::<String>(&bad).unwrap_err());
        until(|| mobula.store().used == 0);
    });
}

#[value]
#[rkyv(
    serialize_bounds(__S: rkyv::ser::Writer, __S::Error: rkyv::rancor::Source),
    deserialize_bounds(__D::Error: rkyv::rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source))
)]
struct Nested {
    #[rkyv(omit_bounds)]
    next: Option<Box<Nested>>,
    x: u32,
}

#[test]
fn bytes_from_outside_cannot_exhaust_the_stack() {
    shared(|_| {
        let made = (0..100).fold(Nested { next: None, x: 7 }, |inner, x| Nested {
            next: Some(Box::new(inner)),
            x,
        });
        let bytes = mobula::view(&mobula::put(&made).unwrap())
            .unwrap()
            .bytes()
            .to_vec();
        let back = mobula::get(mobula::put_archived::<Nested>(&bytes).unwrap()).unwrap();
        assert_eq!((back.x, back.next.unwrap().x), (99, 98));
        // Each node says "another one just before me", a million times.
        let size = size_of::<Archived<Nested>>();
        let node = &bytes[bytes.len() - size..];
        let crafted = [vec![0; size], node.repeat(1_000_000)].concat();
        is_decode(
            &mobula::put_archived::<Nested>(&crafted)
                .map(drop)
                .unwrap_err(),
        );
    });
}

#[remote]
fn read_refs(v: Vec<ObjectRef<u64>>) -> usize {
    v.len()
}

#[test]
fn bytes_from_outside_hold_no_references() {
    shared(|_| {
        let refs: Vec<_> = (0..5u64).map(|i| mobula::put(&i).unwrap()).collect();
        let put = mobula::put(&refs).unwrap();
        let bytes = mobula::view(&put).unwrap().bytes().to_vec();
        let forged = mobula::put_archived::<Vec<ObjectRef<u64>>>(&bytes).unwrap();
        is_decode(&mobula::get(&forged).unwrap_err());
        is_decode(&mobula::view(&forged).unwrap().to_owned().unwrap_err());
        let e = mobula::get(read_refs::remote(&forged)).unwrap_err();
        assert!(e.to_string().contains("did not travel"), "{e}");
        assert_eq!(mobula::get(read_refs::remote(&put)).unwrap(), 5);
    });
}

#[test]
fn references_in_objects_keep_what_they_refer_to() {
    shared(|mobula| {
        let inner = mobula::put(&vec![1u8; 10_000]).unwrap();
        let outer = mobula::put(&vec![vec![Some(inner.clone())], vec![None]]).unwrap();
        let outermost = mobula::put(&(1u8, outer.clone(), vec![0u8; 3000])).unwrap();
        drop((inner, outer));
        assert!(mobula.store().used > 10_000);
        let (_, outer, _) = mobula::get(&outermost).unwrap();
        drop(outermost);
        let mut lists = mobula::get(outer).unwrap();
        let inner = lists[0][0].take().unwrap();
        drop(lists);
        assert_eq!(mobula::get(&inner).unwrap(), [1; 10_000]);
        drop(inner);
        until(|| mobula.store().used == 0);
        // Ten thousand in one object, and a list of one in another, a hundred thousand long.
        let many: Vec<_> = (0..10_000u64).map(|i| mobula::put(&i).unwrap()).collect();
        let object = mobula::put(&many).unwrap();
        drop(many);
        let back = mobula::get(object).unwrap();
        assert_eq!(mobula::get(&back).unwrap()[9999], 9999);
        let mut link = mobula::put(&Link { next: None }).unwrap();
        for _ in 0..100_000 {
            link = mobula::put(&Link { next: Some(link) }).unwrap();
        }
        drop(link); // frees one after the other, not one inside the other
        until(|| mobula.store().used == 0);
    });
}

#[value]
struct Link {
    next: Option<ObjectRef<Link>>,
}

#[test]
fn a_view_holds_what_it_shows() {
    shared(|mobula| {
        let r = mobula::put(&points(1000)).unwrap();
        let view = mobula::view(&r).unwrap();
        drop(r);
        assert_eq!(view[999].label.as_str(), "point number 999");
        assert!(view.is_shared());
        let words = mobula::view(&mobula::put(&vec!["word".to_owned()]).unwrap()).unwrap();
        assert!(format!("{words:?}").contains("word"));
        assert!(mobula.store().used > 0);
        drop(view);
        assert_eq!(mobula.store().used, 0);
    });
}
