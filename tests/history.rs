//! What backends decided, replayed: histories of concurrent hits, recorded while servers, networks and
//! processes fail, are held against the model, which is [`Strategy::step`](traffik_core::Strategy).
//!
//! `docs/CORRECTNESS.md` says what is promised, and has the table of a long run:
//! `cargo test -p traffik-tests -- --ignored long_histories --nocapture`.

mod check;
mod clocks;
mod event;
mod explain;
mod faults;
mod kept;
mod leases;
mod nodes;
mod planted;
mod record;
mod runs;
mod sqlite;
mod table;
mod witness;
mod world;
