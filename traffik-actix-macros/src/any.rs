//! Whatever may stand between the parentheses, and on whatever it stands: for tests, and for `fuzz/`.

use proc_macro2::TokenStream;
use syn::{File, ItemFn};

/// What a handler looks like.
const HANDLER: &str = "async fn index(id: web::Path<u32>) -> String { id.to_string() }";

/// Takes the arguments from the first line and the item from the rest, which may be missing. Nothing
/// panics, and what stands on a function is made items, whether or not there are mistakes.
pub(crate) fn attribute(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // The parser calls itself for what is in something else, as deep as that is.
    let deep = |text: &&str| {
        text.matches(['(', '[', '{', '<', '!', '-', '*', '&', '|'])
            .count()
    };
    if text.len() > 500 || deep(&text) > 60 {
        return;
    }
    let (arguments, item) = text.split_once('\n').unwrap_or((text, HANDLER));
    let (Ok(arguments), Ok(item)) = (arguments.parse(), item.parse::<TokenStream>()) else {
        return;
    };
    let is_function = syn::parse2::<ItemFn>(item.clone()).is_ok();
    let made = crate::attribute::apply(arguments, item).to_string();
    let parsed = syn::parse_str::<File>(&made);
    assert!(
        !is_function || parsed.is_ok(),
        "{text}\nbecomes\n{made}\n{:?}",
        parsed.err()
    );
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::attribute;

    const KEYS: &[&str] = &[
        "rate",
        "rate_by",
        "rate_by_async",
        "limit",
        "name",
        "strategy",
        "cost",
        "cost_by",
        "cost_after",
        "refund_if",
        "identify",
        "shared",
        "shadow",
        "shadow_of",
        "scope",
        "min_wait",
        "wait_up_to",
        "max_waiters",
        "in_flight",
        "in_flight_wait",
        "on_error",
        "on_error_by",
        "on_denied",
        "headers",
        "header_style",
        "backend",
        "original",
        "crate",
        "burst",
        "max_debt",
        "burst_tolerance",
        "strict",
        "tiers",
        "default_tier",
        "load_threshold",
        "load",
        "windows",
        "windows_by_minute",
        "zone",
        "instance",
        "weight",
        "fairness_window",
        "regions",
        "rate_by_asnyc",
        "r#type",
        "_",
    ];

    const VALUES: &[&str] = &[
        "\"100/minute\"",
        "\"0/0\"",
        "\"gcra\"",
        "\"token_bucket\"",
        "\"route\"",
        "\"500ms\"",
        "\"allow\"",
        "\"\"",
        "0",
        "1",
        "-1",
        "1.5",
        "1e400",
        "18446744073709551616",
        "true",
        "&GAUGE",
        "|req| 1",
        "Self::it",
        "a::b::<C>()",
        "[(\"eu\", 0.5), (\"us\", 0.5)]",
        "[(8, 17, 1.0), (17, 8, 3.0)]",
        "[]",
        "(1, 2)",
        "{ return }",
        "b\"x\"",
        "async |req| { Ok(1) }",
        "if a { b } else { c }",
        "'x'",
        "",
    ];

    proptest! {
        // Whatever is found belongs into the corpus.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_arguments_are_judged(
            pairs in prop::collection::vec((prop::sample::select(KEYS), prop::sample::select(VALUES)), 0..5),
            first in prop::sample::select(VALUES),
            odd in r#"[-a-z0-9_="'(),:!&|.\[\]{}# ]{0,12}"#,
        ) {
            let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            let pairs = pairs.join(", ");
            attribute(format!("{first}, {pairs}").as_bytes());
            attribute(format!("{pairs}{odd}").as_bytes());
            attribute(format!("{pairs}\n#[throttle({first}, {odd})] #[get(\"/\")] async fn index() {{}}").as_bytes());
        }

        #[test]
        fn any_item_is_taken_or_refused(item in r#"(#\[[a-z:_]{1,10}(\([a-z" =]{0,8}\))?\] )?(pub )?(async |const |unsafe )?(fn|struct|impl) [a-z]{0,6}(<T>)?\((&self|mut self, |a: impl X|b: &Self)?\)( -> [A-Za-z<>()&]{0,12})?( \{[a-zS; ]{0,12}\}|;)?"#) {
            attribute(format!("\"1/s\"\n{item}").as_bytes());
        }
    }

    #[test]
    fn what_is_checked_in_is_judged() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/attribute");
        let files: Vec<_> = std::fs::read_dir(folder).expect("a corpus").collect();
        assert!(!files.is_empty());
        for file in files {
            attribute(&std::fs::read(file.expect("a file").path()).expect("a file"));
        }
    }
}
