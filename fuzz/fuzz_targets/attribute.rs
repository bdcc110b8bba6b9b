// A macro cannot be called by a program, so its files are read here.
#![no_main]
#[path = "../../traffik-actix-macros/src/any.rs"]
mod any;
#[path = "../../traffik-actix-macros/src/args.rs"]
mod args;
#[path = "../../traffik-actix-macros/src/attribute.rs"]
mod attribute;
#[path = "../../traffik-actix-macros/src/errors.rs"]
mod errors;
#[path = "../../traffik-actix-macros/src/expand.rs"]
mod expand;
#[path = "../../traffik-actix-macros/src/handler.rs"]
mod handler;
#[path = "../../traffik-actix-macros/src/rehearsal.rs"]
mod rehearsal;
#[path = "../../traffik-actix-macros/src/suggest.rs"]
mod suggest;
#[path = "../../traffik-actix-macros/src/table.rs"]
mod table;
#[path = "../../traffik-actix-macros/src/value.rs"]
mod value;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| any::attribute(bytes));
