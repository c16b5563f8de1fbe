use prefixkv_kernels::attention::Rows;
use prefixkv_kernels::rotary::Angles;
use proptest::prelude::*;

use super::*;
use crate::cache::{Format, New, Pool};

const FREQUENCIES: [f32; 2] = [1.0, 0.01];
const HEADS: usize = 2;
const DIM: usize = 4;

fn options(format: Format, scored: bool) -> LaneOptions {
    LaneOptions { head_dim: DIM, codec: format.codec(), folded: false, rotation: Rotation::Stored, scored }
}

fn lane(pool: &Pool, format: Format, scored: bool) -> Lane {
    Lane::new(0..HEADS, options(format, scored), pool.account()).expect("no cap")
}

fn data(position: u32) -> Vec<f32> {
    (0..HEADS * DIM).map(|i| ((position as usize * HEADS * DIM + i) % 251) as f32).collect()
}

fn add(lane: &mut Lane, first: u32, n: usize) {
    let data: Vec<f32> = (first..first + n as u32).flat_map(data).collect();
    let rows = Rows::dense(&data, HEADS * DIM);
    let angles = Angles::new(first..first + n as u32, &FREQUENCIES, 1.0);
    let new = New { keys: rows, values: rows, angles: Some(&angles) };
    if n == 1 {
        lane.append_one(new, first).expect("no cap");
    } else {
        lane.append(new, n, first).expect("no cap");
    }
}

/// The values of the entries by position, which tell whether an entry is where its position says.
fn check(lane: &Lane, positions: &[u32]) {
    assert_eq!(lane.positions(), positions);
    assert_eq!(lane.len(), positions.len());
    let places: Vec<u32> = lane.entries().map(|entry| entry.position).collect();
    for head in 0..HEADS {
        let mut place = 0;
        for run in lane.view(None).runs {
            for slot in 0..run.len {
                let mut value = [0.0; DIM];
                run.read_values(head, slot, DIM, &mut value);
                assert_eq!(value[0], data(places[place])[head * DIM]);
                place += 1;
            }
        }
    }
    let scores = lane.scores();
    assert!(scores.is_empty() || scores.len() == lane.places());
}

#[test]
fn prompts_are_exact_and_tails_small() {
    for format in [Format::F32, Format::F16] {
        let pool = Pool::unlimited();
        let mut lane = lane(&pool, format, false);
        let mut next = 0;
        for n in [600, 1, 1, 17, 1, 5] {
            add(&mut lane, next, n);
            next += n as u32;
        }
        check(&lane, &(0..next).collect::<Vec<_>>());
        assert_eq!(lane.payload(), u64::from(next) * (2 * HEADS * DIM * format.bytes()) as u64);
        for _ in 0..100 {
            add(&mut lane, next, 1);
            next += 1;
            let slack = pool.used() - lane.payload() - lane.metadata();
            assert!(slack < (TAIL_BLOCK * 2 * HEADS * DIM * format.bytes()) as u64 * 3);
        }
        drop(lane);
        assert_eq!(pool.used(), 0);
    }
}

#[test]
fn a_short_lane_grows_in_short_steps() {
    let pool = Pool::unlimited();
    let mut lane = lane(&pool, Format::F32, false);
    add(&mut lane, 0, 40);
    for next in 40..140 {
        add(&mut lane, next, 1);
        let slack = pool.used() - lane.payload() - lane.metadata();
        assert!(slack as f64 <= lane.payload() as f64 / 40.0, "{slack} of {}", lane.payload());
    }
    check(&lane, &(0..140).collect::<Vec<_>>());
}

#[test]
fn a_lane_at_its_limit_has_no_room_to_spare() {
    let pool = Pool::unlimited();
    let mut lane = lane(&pool, Format::F32, false);
    lane.set_limit(100);
    add(&mut lane, 0, 90);
    (90..100).for_each(|next| add(&mut lane, next, 1));
    let at_limit = pool.used();
    assert_eq!(at_limit, lane.payload() + lane.metadata());
    for next in 100..150 {
        let oldest = lane.sorted()[4].place;
        lane.delete(oldest).expect("there");
        add(&mut lane, next, 1);
        assert_eq!(pool.used(), at_limit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_history_leaves_the_right_entries(
        steps in prop::collection::vec((0usize..4, 0usize..40, any::<u64>()), 1..40), scored: bool, half: bool,
    ) {
        let pool = Pool::unlimited();
        let mut lane = lane(&pool, if half { Format::F16 } else { Format::F32 }, scored);
        let (mut held, mut next) = (Vec::<u32>::new(), 0u32);
        for (kind, n, seed) in steps {
            match kind {
                0 if n > 0 => {
                    add(&mut lane, next, n);
                    held.extend(next..next + n as u32);
                    next += n as u32;
                }
                1 | 0 => {
                    add(&mut lane, next, 1);
                    held.push(next);
                    next += 1;
                }
                2 if !held.is_empty() => {
                    let index = (seed % held.len() as u64) as usize;
                    let entry = lane.sorted()[index];
                    assert_eq!(entry.position, held.remove(index));
                    lane.delete(entry.place).expect("there");
                }
                _ => {
                    let keep = |position: u32| (u64::from(position).wrapping_mul(seed | 1) >> 3) & 3 != 0;
                    held.retain(|position| keep(*position));
                    let places: Vec<u32> =
                        lane.sorted().into_iter().filter(|entry| keep(entry.position)).map(|entry| entry.place).collect();
                    lane.retain(&places).expect("all there");
                    assert_eq!(pool.used(), lane.payload() + lane.metadata(), "exact after compaction");
                }
            }
            check(&lane, &held);
        }
        drop(lane);
        assert_eq!(pool.used(), 0);
    }
}

#[test]
fn a_refused_append_leaves_the_lane_whole() {
    let entry = 2 * HEADS * DIM * 4;
    let pool = Pool::with_cap((size_of::<Lane>() + Segment::<Cpu>::metadata_of(10, false) + 15 * entry) as u64);
    let mut lane = lane(&pool, Format::F32, false);
    add(&mut lane, 0, 10);
    let data = vec![1.0; 64 * HEADS * DIM];
    let rows = Rows::dense(&data, HEADS * DIM);
    assert!(lane.append(New { keys: rows, values: rows, angles: None }, 10, 10).is_err());
    check(&lane, &(0..10).collect::<Vec<_>>());
}

#[test]
fn a_place_that_is_not_there_is_refused() {
    let pool = Pool::unlimited();
    let mut lane = lane(&pool, Format::F32, true);
    add(&mut lane, 0, 5);
    assert!(lane.delete(5).is_err());
    assert!(lane.retain(&[1, 1]).is_err());
    check(&lane, &[0, 1, 2, 3, 4]);
}
