//! A step that is described before it begins. That it gives the bits of single launches, whole models show.

use prefixkv_cuda_shim::{Order, Shim};
use prefixkv_kernels::attention::AttentionParams;
use prefixkv_kernels::codec::{KvCodec, Run};
use prefixkv_kernels::cuda::{
    AppendItem, Buffer, Error, Lane, MoveItem, New, Planner, Queries, Rows, SliceMut, Step, StepLane,
};
use prefixkv_kernels::rotary;

const HEADS: usize = 2;
const DIM: usize = 8;
const CAPACITY: usize = 5;

fn refusal<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Argument(text)) => text,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was taken"),
    }
}

fn moves(rows: SliceMut<'_, u8>) -> MoveItem<'_> {
    MoveItem { rows, capacity: CAPACITY, heads: HEADS, row: DIM * 4, moves: &[(4, 0)] }
}

fn segment(shim: &Shim) -> Buffer<f32> {
    Buffer::from_slice(shim, &vec![0.5; HEADS * CAPACITY * DIM]).expect("room")
}

#[test]
fn memory_that_a_step_does_not_hold_is_refused_and_what_it_holds_stays() {
    let shim = Shim::new(Order::FirstToLast, 8);
    let params = AttentionParams::new(2 * HEADS, HEADS, DIM);
    let [mut keys, mut values, other] = [(); 3].map(|()| segment(&shim));
    let held = [keys.held(), values.held()].to_vec();

    let mut planner = Planner::new(1);
    let text = refusal(planner.moves(&[(moves(keys.all_mut().bytes()), other.held())]));
    assert!(text.contains("which are in no memory that a step holds"), "{text}");
    planner.moves(&[(moves(keys.all_mut().bytes()), held[0].clone())]).expect("held");

    // Keys and values of one item come from one segment: these are of two.
    let item = AppendItem {
        first_head: 0,
        heads: HEADS,
        first_row: 0,
        n: 1,
        codec: KvCodec::F32,
        keys: keys.all_mut().bytes(),
        values: values.all_mut().bytes(),
        capacity: CAPACITY,
        at: 4,
    };
    let text = refusal(planner.layer(&params, Some(&[(item, held[0].clone())])));
    assert!(text.contains("which are in no memory that a step holds"), "{text}");

    planner.layer(&params, None).expect("nothing is stored");
    let lane = |held: &[_], row, first_head| {
        let run = Run::of_plain(keys.all(), values.all(), CAPACITY, CAPACITY);
        StepLane { lane: Lane::new(HEADS, vec![run]), held: held.to_vec(), row, first_head, gathers: true }
    };
    for (found, wanted) in [
        (lane(&held[..1], 0, 0), "no memory that a step holds"),
        (lane(&held, 1, 0), "row 1 of 1, heads 0+2 of 2"),
        (lane(&held, 0, 1), "row 0 of 1, heads 1+2 of 2"),
    ] {
        let text = refusal(planner.attend(&shim, &[found]));
        assert!(text.contains(wanted), "{text}");
    }
    planner.attend(&shim, &[lane(&held, 0, 0)]).expect("it fits");
    let angles = rotary::Angles::new(0..1, &[0.5; DIM / 2], 1.0);
    let step = planner.send(&shim, &[angles]).expect("room");

    let fused = Buffer::from_slice(&shim, &[0.25; 4 * HEADS * DIM]).expect("room");
    let rows = Rows { data: fused.all(), offset: 0, stride: 4 * HEADS * DIM };
    let new = New { keys: rows, values: rows, rows: 1, heads: HEADS, angles: step.angles().first() };
    let mut out = Buffer::<f32>::new(&shim, 2 * HEADS * DIM).expect("room");
    let queries = Queries { rows, heads: 2 * HEADS, out: out.all_mut() };
    assert_eq!(refusal(step.append(0, new, queries)), "layer 0 of a step stores nothing");
    let mut queries = Buffer::from_slice(&shim, &[1.0; 2 * HEADS * DIM]).expect("room");
    assert_eq!(refusal(step.decode(7, &mut queries, out.all_mut())), "layer 7 of a step of 1");
    let mut short = Buffer::from_slice(&shim, &[1.0; DIM]).expect("room");
    assert!(refusal(step.decode(0, &mut short, out.all_mut())).starts_with("8 queries and 32 results"));

    // The owners go, the entries do not.
    drop((keys, values, held));
    step.decode(0, &mut queries, out.all_mut()).expect("it runs");
    assert_eq!(out.read().expect("read"), vec![0.5; 2 * HEADS * DIM]);
    let sums = Step::sums(&[&step, &step]).expect("read");
    assert_eq!((sums.len(), &sums[0]), (2, &sums[1]));
    assert!(sums[0].iter().all(|sum| (sum - 0.2).abs() < 1e-6), "{sums:?}");
    let with = shim.allocated();
    drop(step);
    assert!(shim.allocated() < with, "both segments go with the step");
}
