//! TensorBoard's event files, read back by a reader that shares nothing with the writer.

use super::{TURN, arguments};
use mobula::rl::Error;
use mobula::rl::command::run;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

/// The checksum bit by bit.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let odd = crc % 2 == 1;
            crc /= 2;
            if odd {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    let crc = !crc;
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(n);
    *bytes = rest;
    taken
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut n, mut place) = (0, 0);
    loop {
        let byte = take(bytes, 1)[0];
        n |= u64::from(byte & 0x7f) << place;
        place += 7;
        if byte < 0x80 {
            return n;
        }
    }
}

/// The fields of a message: number, and its bytes or those of its varint.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key % 8 {
            0 => varint(&mut bytes).to_le_bytes().to_vec(),
            1 => take(&mut bytes, 8).to_vec(),
            2 => {
                let length = varint(&mut bytes);
                take(&mut bytes, length as usize).to_vec()
            }
            5 => take(&mut bytes, 4).to_vec(),
            kind => panic!("a field of kind {kind}"),
        };
        all.push((key / 8, value));
    }
    all
}

fn of(fields: &[(u64, Vec<u8>)], number: u64) -> Option<&[u8]> {
    let found = fields.iter().find(|(n, _)| *n == number);
    found.map(|(_, value)| value.as_slice())
}

/// Tag, step and number of all scalars of a file.
fn read(path: &Path) -> Vec<(String, u64, f32)> {
    let whole = std::fs::read(path).expect("a file of events");
    let (mut bytes, mut scalars, mut count) = (whole.as_slice(), Vec::new(), 0);
    while !bytes.is_empty() {
        let length = take(&mut bytes, 8);
        let word = |bytes: &mut &[u8]| u32::from_le_bytes(take(bytes, 4).try_into().unwrap());
        assert_eq!(word(&mut bytes), checksum(length), "a length's checksum");
        let length = u64::from_le_bytes(length.try_into().unwrap());
        let data = take(&mut bytes, length as usize);
        assert_eq!(word(&mut bytes), checksum(data), "a record's checksum");
        let event = fields(data);
        let time = f64::from_le_bytes(of(&event, 1).expect("a time").try_into().unwrap());
        assert!(time > 1.7e9, "seconds since 1970: {time}");
        if count == 0 {
            assert_eq!(of(&event, 3), Some(b"brain.Event:2".as_slice()));
        } else {
            let step = u64::from_le_bytes(of(&event, 2).expect("a step").try_into().unwrap());
            for (number, value) in fields(of(&event, 5).expect("a summary")) {
                assert_eq!(number, 1);
                let value = fields(&value);
                let tag = String::from_utf8(of(&value, 1).expect("a tag").to_vec());
                let scalar = of(&value, 2).expect("a number").try_into().unwrap();
                scalars.push((tag.expect("text"), step, f32::from_le_bytes(scalar)));
            }
        }
        count += 1;
    }
    scalars
}

#[test]
fn events_have_what_results_have() -> Result<(), Error> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _mobula = mobula::init()?;
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let dir = dir.join(format!("rl-events-{}", std::process::id()));
    let files = || -> Vec<PathBuf> {
        let all = std::fs::read_dir(&dir).expect("a folder");
        let mut all: Vec<_> = all.map(|entry| entry.expect("an entry").path()).collect();
        all.retain(|path| path.to_string_lossy().contains("events.out.tfevents."));
        all.sort();
        all
    };
    let mut told = arguments(
        "--quiet --alg DQN --env CartPole-v1 --stop-iterations 3 --checkpoint-freq 3 --num-workers 1 \
         --config {\"hidden\":[8],\"learning_starts\":128,\"updates\":2}",
    );
    told.out = Some(dir.clone());
    run(&told)?;
    run(&told)?; // another run in the same place leaves nothing of the first
    let first = files();
    assert_eq!(first.len(), 1, "{first:?}");
    let results = std::fs::read_to_string(dir.join("result.jsonl")).expect("results");
    let mut want = Vec::new();
    for line in results.lines() {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let step = row["steps"].as_u64().expect("steps");
        let mut add = |tag: String, value: &serde_json::Value| {
            want.extend(value.as_f64().map(|x| (tag, step, x as f32)));
        };
        add("episode/return".to_owned(), &row["episode_return_mean"]);
        add("episode/length".to_owned(), &row["episode_length_mean"]);
        for (name, value) in row["metrics"].as_object().expect("metrics") {
            add(format!("train/{name}"), value);
        }
    }
    let (mut speeds, mut rest) = (Vec::new(), Vec::new());
    for scalar in read(&first[0]) {
        match scalar.0.as_str() {
            "time/steps_per_second" => speeds.push(scalar),
            _ => rest.push(scalar),
        }
    }
    let order = |all: &mut Vec<(String, u64, f32)>| {
        all.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    };
    order(&mut want);
    order(&mut rest);
    assert_eq!(rest, want);
    assert!(want.iter().any(|(tag, ..)| tag == "train/loss"));
    assert_eq!(speeds.iter().map(|s| s.1).collect::<Vec<_>>(), [256, 384]);
    assert!(speeds.iter().all(|s| s.2 > 0.0 && s.2.is_finite()));

    // One that goes on has a file of its own beside it, later by name.
    let mut on = arguments("--quiet --stop-iterations 4");
    (on.restore, on.out) = (Some(dir.join("checkpoint-000003")), Some(dir.clone()));
    run(&on)?;
    let all = files();
    assert_eq!((all.len(), &all[0]), (2, &first[0]));
    assert!(read(&all[1]).iter().all(|(_, step, _)| *step == 512));
    std::fs::remove_dir_all(&dir).expect("removed");
    Ok(())
}
