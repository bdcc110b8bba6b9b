#![no_main]
#[path = "../../tests/fuzz/targets.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::limits(bytes));
