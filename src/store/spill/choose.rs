//! Which objects make room: a pure choice among those that nobody uses.
//!
//! Oldest use first, until enough bytes are together; then grouped into segments: small ones share one, a large
//! one has its own. Invariant: a choice is of candidates only, none twice. Left out: how candidates are found.

use super::super::stored::Candidate;

/// Small objects are gathered until they are this much.
pub const BATCH: u64 = 8 << 20;
/// The most objects in one segment: it is deleted when the last of them is gone.
const MOST: usize = 8192;

/// The least recently used of the candidates, at least `want` bytes of them if there are.
pub fn oldest(mut candidates: Vec<Candidate>, want: u64) -> Vec<Candidate> {
    // Of equal age the larger goes first: fewer moves.
    candidates.sort_by_key(|c| (std::cmp::Reverse((c.age, c.len)), c.offset));
    let mut bytes = 0u64;
    let enough = candidates
        .iter()
        .position(|c| {
            bytes += c.len;
            bytes >= want
        })
        .map_or(candidates.len(), |last| last + 1);
    candidates.truncate(enough);
    candidates
}

/// The same, in groups that are written as one segment each.
pub fn segments(chosen: Vec<Candidate>) -> Vec<Vec<Candidate>> {
    let (large, small): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|c| c.len >= BATCH);
    let mut groups: Vec<Vec<Candidate>> = Vec::new();
    let (mut group, mut bytes) = (Vec::new(), 0);
    for candidate in small {
        bytes += candidate.len;
        group.push(candidate);
        if bytes >= BATCH || group.len() == MOST {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups.extend(large.into_iter().map(|one| vec![one]));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates(list: &[(u64, u32)]) -> Vec<Candidate> {
        let made = list.iter().enumerate();
        made.map(|(i, &(len, age))| Candidate::for_test(i as u64 * 64, len, age))
            .collect()
    }

    fn offsets(list: &[Candidate]) -> Vec<u64> {
        list.iter().map(|c| c.offset / 64).collect()
    }

    #[test]
    fn the_oldest_go_first_and_no_more_than_needed() {
        let all = candidates(&[(10, 1), (10, 5), (10, 3), (20, 3)]);
        assert_eq!(offsets(&oldest(all.clone(), 15)), [1, 3]);
        assert_eq!(offsets(&oldest(all.clone(), 31)), [1, 3, 2]);
        assert_eq!(offsets(&oldest(all.clone(), 1)), [1]);
        assert_eq!(oldest(all, 1 << 40).len(), 4, "all there is");
        assert!(oldest(Vec::new(), 5).is_empty());
    }

    #[test]
    fn small_ones_share_a_segment() {
        let mut list = vec![(BATCH, 1), (BATCH / 2, 1), (1, 1), (BATCH / 2, 1), (3, 1)];
        list.push((2 * BATCH, 1));
        let groups: Vec<Vec<u64>> = segments(candidates(&list))
            .iter()
            .map(|g| offsets(g))
            .collect();
        assert_eq!(groups, [vec![1, 2, 3], vec![4], vec![0], vec![5]]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None,
            cases: if cfg!(miri) { 4 } else { 200 }, ..ProptestConfig::default() })]

        #[test]
        fn enough_and_each_once(list in prop::collection::vec((0u64..3 * BATCH, any::<u32>()), 0..40), want in 0u64..20 * BATCH) {
            let all = candidates(&list);
            let chosen = oldest(all, want);
            let sum: u64 = chosen.iter().map(|c| c.len).sum();
            prop_assert!(sum >= want || chosen.len() == list.len());
            let youngest = chosen.iter().map(|c| c.age).min().unwrap_or(0);
            let older = list.iter().filter(|(_, age)| *age > youngest).count();
            prop_assert!(older <= chosen.len());
            let mut grouped: Vec<u64> = segments(chosen.clone()).concat().iter().map(|c| c.offset).collect();
            let mut expected: Vec<u64> = chosen.iter().map(|c| c.offset).collect();
            grouped.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(grouped, expected);
        }
    }
}
