//! What requests say about their client.

use actix_web::{HttpRequest, Result};
use traffik_actix::{ClientIp, Identity, Priority};

use crate::refusal::Refusal;

pub(crate) fn identify(req: &HttpRequest, client_ip: &ClientIp) -> Result<Identity> {
    let mut identity = match header(req, "X-Client-ID")? {
        Some(id) => Identity::of(format_args!("client:{id}")),
        None => client_ip.identity(req),
    };
    if let Some(tier) = header(req, "X-Tier")? {
        identity = identity.tier(tier.to_owned());
    }
    if let Some(region) = header(req, "X-Region")? {
        identity = identity.region(region.to_owned());
    }
    if let Some(instance) = header(req, "X-Instance")? {
        identity = identity.instance(instance.to_owned());
    }
    if let Some(priority) = header(req, "X-Priority")? {
        identity = identity.priority(parse_priority(priority)?);
    }
    Ok(identity)
}

pub(crate) fn cost(req: &HttpRequest, default: u32) -> Result<u32> {
    let Some(cost) = header(req, "X-Cost")? else {
        return Ok(default);
    };
    let cost = cost.parse().map_err(|_| {
        Refusal::bad_request(format!(
            "X-Cost must be a whole number from 0 to {}, not {cost:?}",
            u32::MAX
        ))
    });
    Ok(cost?)
}

fn header<'a>(req: &'a HttpRequest, name: &str) -> Result<Option<&'a str>> {
    let Some(value) = req.headers().get(name) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| {
        Refusal::bad_request(format!("{name} must be printable ASCII, not {value:?}"))
    });
    Ok(Some(text?))
}

fn parse_priority(text: &str) -> Result<Priority> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "low" => Ok(Priority::Low),
        "2" | "normal" => Ok(Priority::Normal),
        "3" | "high" => Ok(Priority::High),
        "4" | "critical" => Ok(Priority::Critical),
        _ => Err(Refusal::bad_request(format!(
            "X-Priority must be low, normal, high, critical or a number from 1 to 4, not {text:?}"
        ))
        .into()),
    }
}
