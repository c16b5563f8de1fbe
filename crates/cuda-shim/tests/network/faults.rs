//! A GPU that becomes full, or fails, in the middle of the work: at every allocation and at every launch of a pass in turn.

use prefixkv_core::device::{Cuda, Place};
use prefixkv_core::model::WeightFormat;
use prefixkv_core::sequence::Sequence;
use prefixkv_cuda_shim::Shim;
use serde_json::{Value, json};

use crate::{FOLDER, Reader, argmax, cuda, root, shim};

/// The operation that fails.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Allocation,
    Launch,
}

impl Fault {
    const BOTH: [Fault; 2] = [Fault::Allocation, Fault::Launch];

    /// Only call number `call` from now on.
    fn at(self, shim: &Shim, call: usize) {
        shim.fail_allocations(if self == Fault::Allocation { call..call + 1 } else { 0..0 });
        shim.fail_launches(if self == Fault::Launch { call..call + 1 } else { 0..0 });
    }

    fn none(shim: &Shim) {
        shim.fail_allocations(0..0);
        shim.fail_launches(0..0);
    }

    /// In a pass there are more than these: later layers use the working memory of earlier ones again, and launch all their kernels.
    /// A step that finds no room for its entries fails single sequences, which are counted apart.
    fn least(self) -> usize {
        match self {
            Fault::Allocation => 8,
            Fault::Launch => 20,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Fault::Allocation => "out-of-memory",
            Fault::Launch => "device",
        }
    }
}

fn caches() -> [Value; 3] {
    [json!({ "method": "full" }), json!({ "method": "prefixkv", "keep": 0.5 }), json!({ "method": "h2o", "keep": 0.5 })]
}

#[test]
fn a_prompt_that_fails_leaves_the_model_and_other_sequences_alone() {
    let shim = shim();
    let reader = Reader::text(FOLDER, cuda(&shim), 12);
    let weights = shim.allocated();
    for (cache, fault) in caches().iter().flat_map(|cache| Fault::BOTH.map(|fault| (cache, fault))) {
        let mut good = reader.sequence(cache);
        let want = reader.prefill(&mut good);
        let token = argmax(&want);
        let next = reader.model.decode(token, &mut good).expect("decodes");
        drop(good);
        let mut call = 0;
        loop {
            let mut broken = reader.sequence(cache);
            fault.at(&shim, call);
            let read = reader.model.prefill(&reader.prompt, &reader.features, &mut broken, &|| Ok(()));
            Fault::none(&shim);
            let Err(error) = read else { break };
            assert_eq!(error.code(), fault.code(), "{cache}, {fault:?} {call}: {error}");
            // The logits are computed when the cache is complete.
            if !broken.is_sound() {
                let mut good = reader.sequence(cache);
                assert_eq!(reader.prefill(&mut good), want, "{cache}, after {fault:?} {call}");
                let mut rows =
                    reader.model.decode_batch(&[token, token], &mut [&mut broken, &mut good]).expect("one can go on");
                let row = rows.pop().expect("two rows").expect("the good one");
                assert!(crate::worst(&row, &next) <= 1e-4, "{cache}, beside {fault:?} {call}");
                assert_eq!(rows.pop().expect("two rows").expect_err("it was left in the middle").code(), "internal");
            }
            drop(broken);
            assert_eq!((shim.allocated(), reader.model.pool().used()), (weights, 0), "{cache}, {fault:?} {call}");
            call += 1;
        }
        assert!(call > fault.least(), "{cache}: a pass has more than {call} of {fault:?}");
    }
}

#[test]
fn a_step_that_fails_leaves_sequences_that_go_on_or_refuse() {
    let shim = shim();
    let reader = Reader::text(FOLDER, cuda(&shim), 12);
    let weights = shim.allocated();
    let read = |reader: &Reader<Cuda>, cache: &Value| {
        let mut sequence = reader.sequence(cache);
        let token = argmax(&reader.prefill(&mut sequence));
        // After one step, so that the next moves what it has written.
        let token = argmax(&reader.model.decode(token, &mut sequence).expect("decodes"));
        (sequence, token)
    };
    let want = caches().map(|cache| {
        let (mut sequence, token) = read(&reader, &cache);
        reader.model.decode(token, &mut sequence).expect("decodes")
    });
    for fault in Fault::BOTH {
        let (mut call, mut whole, mut single) = (0, 0, 0);
        loop {
            let (mut sequences, tokens): (Vec<Sequence<Cuda>>, Vec<u32>) =
                caches().iter().map(|cache| read(&reader, cache)).unzip();
            let mut members: Vec<&mut Sequence<Cuda>> = sequences.iter_mut().collect();
            fault.at(&shim, call);
            let stepped = reader.model.decode_batch(&tokens, &mut members);
            Fault::none(&shim);
            let mut failed = vec![true; tokens.len()];
            match stepped {
                Err(error) => {
                    assert_eq!(error.code(), fault.code(), "{fault:?} {call}: {error}");
                    whole += 1;
                }
                Ok(rows) => {
                    failed = rows.iter().map(Result::is_err).collect();
                    single += failed.iter().filter(|failed| **failed).count();
                    for error in rows.iter().filter_map(|row| row.as_ref().err()) {
                        assert_eq!(error.code(), fault.code(), "{fault:?} {call}: {error}");
                    }
                }
            }
            for (((sequence, failed), token), want) in sequences.iter_mut().zip(&failed).zip(&tokens).zip(&want) {
                match reader.model.decode(*token, sequence) {
                    // It had not begun, and gives what it would have given.
                    Ok(logits) if *failed => assert!(crate::worst(&logits, want) <= 1e-4, "{fault:?} {call}"),
                    Ok(logits) => assert!(logits.iter().all(|x| x.is_finite()), "{fault:?} {call}"),
                    Err(error) => {
                        assert!(*failed, "{fault:?} {call}: a sequence that was well refuses: {error}");
                        assert!(!sequence.is_sound() && error.code() == "internal", "{fault:?} {call}: {error}");
                    }
                }
            }
            drop(sequences);
            assert_eq!((shim.allocated(), reader.model.pool().used()), (weights, 0), "{fault:?} {call}");
            if failed.iter().all(|failed| !failed) {
                break;
            }
            call += 1;
        }
        // Room for the entries of one sequence concerns it alone, working memory concerns all.
        assert!(whole >= fault.least() && single > 2, "{fault:?}: {whole} whole steps, {single} sequences");
    }
}

#[test]
fn a_prompt_that_finds_the_gpu_full_can_be_read_when_there_is_room() {
    let shim = shim();
    for weights in [WeightFormat::F32, WeightFormat::F16] {
        let mut reader = Reader::text(FOLDER, cuda(&shim), 80);
        reader.model = crate::load(FOLDER, cuda(&shim), weights);
        let held = shim.allocated();
        let (mut refused, mut room) = (0, 1000);
        let logits = loop {
            shim.set_memory((held + room) as u64);
            let mut sequence = reader.sequence(&json!({ "method": "full" }));
            match reader.model.prefill(&reader.prompt, &reader.features, &mut sequence, &|| Ok(())) {
                Ok(logits) => break logits,
                Err(error) => {
                    let text = error.to_string();
                    assert!(error.code() == "out-of-memory" && text.contains("the GPU is full"), "{text}");
                    let details = error.details();
                    assert!(details["needed"].as_u64() > details["available"].as_u64(), "{text}");
                }
            }
            drop(sequence);
            assert_eq!((shim.allocated(), reader.model.pool().used()), (held, 0), "{room} bytes");
            refused += 1;
            room *= 2;
        };
        assert!(refused > 3, "{room} bytes are enough");
        shim.set_memory(1 << 40);
        let mut sequence = reader.sequence(&json!({ "method": "full" }));
        assert_eq!(reader.prefill(&mut sequence), logits, "a narrow fit changes nothing");
    }
}

mod engine {
    use std::time::Duration;

    use prefixkv_core::engine::{CAPACITY, Engine, Ticket};
    use prefixkv_core::wire::{Event, SessionId};

    use super::*;

    fn open(shim: &Shim, batch: usize) -> Engine {
        let source = root().join("tests/golden/fixtures/llava-gqa64").canonicalize().expect("it is there");
        let engine = Engine::open_on(Place::Cuda(cuda(shim)), &json!({ "source": source, "batch": batch }).to_string());
        let engine = engine.expect("a thread");
        assert!(matches!(last(&engine.loading()), Event::Loaded { .. }));
        engine
    }

    /// More tokens than a stream holds, so that a request that nobody reads does not end.
    const ENDLESS: usize = CAPACITY + 40;

    fn generate(engine: &Engine, session: Option<SessionId>, tokens: usize) -> Ticket {
        let text = json!([{ "role": "user", "content": "a b c d" }]);
        let mut request = json!({ "op": "generate", "maxTokens": tokens, "ignoreEos": true, "messages": text });
        if let Some(session) = session {
            request["op"] = "turn".into();
            request["session"] = json!(session);
        }
        engine.submit(&request.to_string(), Vec::new()).expect("a request")
    }

    fn last(ticket: &Ticket) -> Event {
        let events = std::iter::from_fn(|| ticket.wait(Duration::from_secs(600))).flatten();
        events.last().expect("a stream ends with an event")
    }

    fn code(event: Event) -> String {
        match event {
            Event::Error { error } => error.code.to_owned(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the engine has put away what it has answered.
    fn settle(engine: &Engine) {
        let request = engine
            .submit(r#"{"op":"close-session","session":"00000000000000000000000000000999"}"#, Vec::new())
            .expect("a request");
        assert_eq!(code(last(&request)), "option");
    }

    /// Waits until tokens come.
    fn tokens(ticket: &Ticket) {
        while let Some(events) = ticket.wait(Duration::from_secs(600)) {
            if events.iter().any(|event| matches!(event, Event::Token { .. })) {
                return;
            }
        }
        panic!("the stream has ended before a token");
    }

    #[test]
    fn requests_end_with_the_error_of_the_device_and_later_ones_are_answered() {
        for batch in [1, 3] {
            let shim = shim();
            let engine = open(&shim, batch);
            let weights = shim.allocated();
            let Event::Session { session } =
                last(&engine.submit(r#"{"op":"open-session"}"#, Vec::new()).expect("a request"))
            else {
                panic!("no session")
            };
            for fault in Fault::BOTH {
                let running = [generate(&engine, None, ENDLESS), generate(&engine, Some(session), ENDLESS)];
                tokens(&running[0]);
                match fault {
                    Fault::Allocation => shim.fail_allocations(0..usize::MAX),
                    Fault::Launch => shim.fail_launches(0..usize::MAX),
                }
                for ticket in &running {
                    assert_eq!(code(last(ticket)), fault.code());
                }
                // A device that is lost stays so, and says so.
                assert_eq!(code(last(&generate(&engine, None, 3))), fault.code());
                Fault::none(&shim);
                // Requests that had been waiting for others hold nothing.
                assert!(matches!(last(&generate(&engine, None, 3)), Event::Done(_)));
                settle(&engine);
                assert_eq!(shim.allocated(), weights, "{fault:?}");
            }
            assert!(matches!(last(&generate(&engine, Some(session), 3)), Event::Done(_)), "the chat goes on");
            assert!(shim.allocated() > weights, "a chat keeps its cache");
            assert!(matches!(last(&engine.close()), Event::Closed));
            assert_eq!(shim.allocated(), 0);
        }
    }
}
