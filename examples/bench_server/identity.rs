//! What requests say about their client.

use actix_web::HttpRequest;
use traffik_actix::{ClientIp, Identity, Priority};

pub(crate) fn identify(req: &HttpRequest) -> Result<Identity, String> {
    let mut identity = match header(req, "x-client-id") {
        Some(id) => Identity::of(format_args!("client:{id}")),
        None => ClientIp::peer().identity(req),
    };
    if let Some(tier) = header(req, "x-tier") {
        identity = identity.tier(tier.to_owned());
    }
    if let Some(region) = header(req, "x-region") {
        identity = identity.region(region.to_owned());
    }
    if let Some(instance) = header(req, "x-instance") {
        identity = identity.instance(instance.to_owned());
    }
    if let Some(priority) = header(req, "x-priority") {
        identity = identity.priority(parse_priority(priority)?);
    }
    Ok(identity)
}

pub(crate) fn cost(req: &HttpRequest, default: u32) -> Result<u32, String> {
    match header(req, "x-cost") {
        Some(cost) => cost
            .parse()
            .map_err(|_| format!("X-Cost must be a whole number, not {cost:?}")),
        None => Ok(default),
    }
}

fn header<'a>(req: &'a HttpRequest, name: &str) -> Option<&'a str> {
    req.headers().get(name)?.to_str().ok()
}

fn parse_priority(text: &str) -> Result<Priority, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "low" => Ok(Priority::Low),
        "2" | "normal" => Ok(Priority::Normal),
        "3" | "high" => Ok(Priority::High),
        "4" | "critical" => Ok(Priority::Critical),
        _ => Err(format!(
            "X-Priority must be low, normal, high or critical, not {text:?}"
        )),
    }
}
