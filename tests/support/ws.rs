//! A client and a server of WebSockets, which the tests of traffik-actix have too.

#[allow(dead_code, reason = "others use the rest")]
#[path = "../../traffik-actix/tests/ws/client.rs"]
pub(crate) mod client;
#[allow(dead_code, reason = "others use the rest")]
#[path = "../../traffik-actix/tests/ws/server.rs"]
pub(crate) mod server;
