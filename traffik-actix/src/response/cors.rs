//! What browsers want to know before scripts of other origins may see anything.

use actix_web::HttpRequest;
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN,
};

use crate::response::headers::HeaderStyle;

/// Whether a browser asks by this request if it may send another one.
pub(crate) fn is_preflight(req: &HttpRequest) -> bool {
    let headers = req.headers();
    req.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Exposes the headers about limits that a response has.
pub(crate) fn expose(headers: &mut HeaderMap) {
    let lines = headers.get_all(ACCESS_CONTROL_EXPOSE_HEADERS);
    let exposed: Vec<String> = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let styles = [HeaderStyle::Both, HeaderStyle::Legacy];
    let names = styles.into_iter().flat_map(HeaderStyle::names);
    let mut missing: Vec<&str> = names
        .filter(|name| headers.contains_key(*name))
        .filter(|name| !exposed.iter().any(|one| one == name))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty()
        && let Ok(list) = HeaderValue::from_str(&missing.join(", "))
    {
        headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, list);
    }
}
