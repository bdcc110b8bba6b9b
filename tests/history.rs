//! What backends decided, replayed: histories of concurrent hits, recorded while servers, networks and
//! processes fail, are held against the model, which is [`Strategy::step`](traffik_core::Strategy).
//!
//! `docs/CORRECTNESS.md` says what is promised, and has the table of a long run:
//! `cargo test -p traffik-tests --release history -- --ignored --nocapture --test-threads 1`.

mod check;
mod event;
mod explain;
mod faults;
mod nodes;
mod planted;
mod record;
mod runs;
mod table;
mod witness;
mod world;
