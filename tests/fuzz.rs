//! What others send, at random: see `fuzz/README.md`.

mod targets;

use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use traffik_core::strategy::NAMES;

use self::targets::{
    TARGETS, Target, cell, forwarded, limits, memcached_value, rate, redis_reply, strategy,
    websocket, x_forwarded_for,
};
use crate::support::Random;

proptest! {
    // Whatever is found belongs into the corpus.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rates(text in r"\PC{0,24}|[0-9/ .a-zA-Z]{0,16}|[0-9]{1,12} ?/ ?[0-9]{0,6} ?(ms|us|s|sec|second|min|m|h|hour|d|day|week)s?") {
        rate(text.as_bytes());
    }

    #[test]
    fn strategies(name in prop::sample::select(NAMES), options in r"(,[a-z_]{1,20}=[-0-9a-z.:|]{0,20}){0,3}|\PC{0,30}") {
        strategy(format!("{name}{options}").as_bytes());
    }

    #[test]
    fn cells(bytes in prop::collection::vec(any::<u8>(), 0..120), shape in 0x10..0x20_u8) {
        cell(&bytes);
        let mut valid = bytes;
        if let Some(at) = valid.get_mut(9) {
            *at = shape;
        }
        cell(&valid);
    }

    #[test]
    fn forwarded_headers(text in r#"(for|by|proto)?=?"?[-0-9a-zA-Z:.\[\]_"\\;, =]{0,60}|\PC{0,40}"#) {
        forwarded(text.as_bytes());
        x_forwarded_for(text.as_bytes());
    }

    #[test]
    fn replies_of_redis(
        asked in any::<u8>(), now in any::<u64>(), answers in prop::collection::vec((0..4_u8, cells_of_an_answer()), 0..4),
        cut in 0..400_usize, noise in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut reply = vec![asked];
        reply.extend(now.to_be_bytes());
        reply.extend([0; 8]);
        for (outcome, cells) in answers {
            reply.push(outcome);
            for cell in cells {
                reply.extend(u32::try_from(cell.len()).expect("small").to_be_bytes());
                reply.extend(cell);
            }
        }
        redis_reply(&reply);
        reply.truncate(cut);
        redis_reply(&reply);
        redis_reply(&[&[asked], &noise[..]].concat());
    }

    #[test]
    fn values_in_memcached(choice in any::<u8>(), counter in any::<u64>(), other in r"[0-9]{0,22} {0,3}|\PC{0,30}") {
        memcached_value(&[&[choice], counter.to_string().as_bytes()].concat());
        memcached_value(&[&[choice], other.as_bytes()].concat());
    }

    #[test]
    fn frames_of_websockets(frames in prop::collection::vec(frame(), 0..12), cut in 0..2_000_usize) {
        let mut frames = frames.concat();
        websocket(&frames);
        frames.truncate(cut);
        websocket(&frames);
    }

    #[test]
    fn files_of_limits(
        tables in prop::collection::vec(table_of_limits(), 0..5), cut in 0..600_usize, noise in r"\PC{0,40}",
    ) {
        let file = tables.concat();
        limits(file.as_bytes());
        let cut = file.chars().take(cut).collect::<String>();
        limits(cut.as_bytes());
        limits((cut + &noise).as_bytes());
    }
}

/// A table of a file of limits, with keys and values that may be there, seldom where they belong.
fn table_of_limits() -> impl proptest::strategy::Strategy<Value = String> {
    const HEADS: &[&str] = &[
        "throttle.all",
        "throttle.\"a b\"",
        "[rule]",
        "backend.default",
        "backend.b",
        "identity.default",
        "identity.who",
        "proxies",
        "throttle.all.options",
    ];
    const KEYS: &[&str] = &[
        "rate",
        "strategy",
        "burst",
        "cost",
        "throttle",
        "path",
        "methods",
        "host",
        "type",
        "url",
        "secret_env",
        "failover",
        "nodes",
        "from",
        "header",
        "function",
        "tier",
        "tiers",
        "identity",
        "backend",
        "trust",
        "trust_hops",
        "trust_unix",
        "enabled",
        "shadow",
        "on_error",
        "when",
        "namespace",
        "otherwise",
        "max_keys",
        "scope",
        "shared",
        "wait_up_to",
        "min_wait",
        "headers",
        "host_header",
    ];
    const VALUES: &[&str] = &[
        "\"all\"",
        "\"10/minute\"",
        "\"0/0\"",
        "\"token_bucket\"",
        "\"memory\"",
        "\"redis\"",
        "\"ip\"",
        "\"header\"",
        "\"redis://:secret@10.0.0.5\"",
        "\"^/api/\"",
        "\"/(\"",
        "[\"GET\", \"PSOT\"]",
        "[\"10.0.0.0/8\"]",
        "[]",
        "{ free = 1, gold = 5.5 }",
        "{}",
        "0",
        "-1",
        "5",
        "18446744073709551616",
        "1e400",
        "nan",
        "true",
        "1979-05-27",
        "\"\"",
        "\"default\"",
        "\"x-api-key\"",
        "[[[]]]",
    ];
    let lines = (prop::sample::select(KEYS), prop::sample::select(VALUES));
    let lines = prop::collection::vec(
        lines.prop_map(|(key, value)| format!("{key} = {value}\n")),
        0..5,
    );
    let head = prop::sample::select(HEADS);
    (head, any::<bool>(), lines).prop_map(|(head, is_right, lines)| {
        let close = if head.starts_with('[') { "]" } else { "" };
        // Without a rate no throttle is understood, and nothing else is looked at.
        let first = match (is_right, head) {
            (true, head) if head.starts_with("throttle") => "rate = \"10/minute\"\n",
            (true, "[rule]") => "throttle = \"all\"\n",
            (true, "backend.default") => "type = \"memory\"\n",
            (true, "identity.default") => "from = \"ip\"\n",
            _ => "",
        };
        format!("[{head}{close}]\n{first}{}", lines.concat())
    })
}

fn cells_of_an_answer() -> impl proptest::strategy::Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..3)
}

/// A frame of a client, mostly as it should be.
fn frame() -> impl proptest::strategy::Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(32..127_u8, 0..120);
    let opcode = prop::sample::select(&[0, 0, 0, 1, 1, 2, 8, 9, 10, 3, 0x41][..]);
    (any::<bool>(), opcode, payload, 0..20_u8).prop_map(|(is_last, opcode, payload, odd)| {
        let length = u8::try_from(payload.len()).expect("small");
        let mask = if odd == 0 { 0 } else { 0x80 };
        let mut frame = vec![u8::from(is_last) << 7 | opcode, mask | length];
        // The key of a mask that changes nothing.
        frame.extend([0; 4]);
        frame.extend(payload);
        frame
    })
}

/// The inputs that are checked in, each of which was once wrong or is the beginning of something.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("a corpus")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).expect("a file"))
        .collect()
}

#[test]
fn what_is_checked_in_is_read() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name}");
        corpus.iter().for_each(|bytes| target(bytes));
    }
}

/// Changes what is checked in at random for a while: `TRAFFIK_FUZZ_SECONDS=600 cargo test -p traffik-tests
/// --release -- --ignored fuzz`, or what one target reads, as in `TRAFFIK_FUZZ_ONLY=limits`.
#[test]
#[ignore = "takes as long as it is told to"]
fn for_a_while() {
    let seconds = std::env::var("TRAFFIK_FUZZ_SECONDS");
    let seconds = seconds.map_or(10, |seconds| seconds.parse().expect("seconds"));
    std::thread::scope(|scope| {
        let only = std::env::var("TRAFFIK_FUZZ_ONLY").unwrap_or_default();
        let wanted = TARGETS.into_iter().filter(|(name, _)| name.contains(&only));
        for (name, target) in wanted {
            scope.spawn(move || mutate(name, target, Duration::from_secs(seconds)));
        }
    });
}

fn mutate(name: &str, target: Target, time: Duration) {
    let corpus = corpus(name);
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut random =
        Random::new(u64::try_from(seed.expect("after 1970").as_nanos()).expect("soon"));
    let (start, mut inputs) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        for _ in 0..1_000 {
            let input = mutated(&corpus, &mut random);
            let read = catch_unwind(|| target(&input));
            assert!(
                read.is_ok(),
                "{name}: {input:?} = {:?}",
                String::from_utf8_lossy(&input)
            );
            inputs += 1;
        }
    }
    println!("{name}: {inputs} inputs in {:?}", start.elapsed());
}

/// Two inputs joined where one is cut, then a few bytes changed, put in, left out or doubled.
fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut below = |end: usize| usize::try_from(random.below(end.max(1) as u64)).expect("small");
    let (one, other) = (&corpus[below(corpus.len())], &corpus[below(corpus.len())]);
    let mut input = one.clone();
    if below(2) == 0 {
        input.truncate(below(one.len() + 1));
        input.extend_from_slice(&other[below(other.len() + 1)..]);
    }
    const TELLING: &[u8] = b"0123456789/.:,;|=-+ \"\\[]_%smhdxXeE\0\xff\x7f\x80";
    for _ in 0..below(6) {
        let at = below(input.len());
        let byte = match below(3) {
            0 => u8::try_from(below(256)).expect("a byte"),
            _ => TELLING[below(TELLING.len())],
        };
        match below(4) {
            0 if !input.is_empty() => input[at] = byte,
            1 if !input.is_empty() => drop(input.remove(at)),
            2 => {
                let end = (at + below(8)).min(input.len());
                let part = input[at.min(end)..end].to_vec();
                input.extend_from_slice(&part);
            }
            _ => input.insert(at.min(input.len()), byte),
        }
    }
    input
}
