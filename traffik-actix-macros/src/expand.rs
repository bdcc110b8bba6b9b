//! What the compiler gets to see. Nothing can go wrong here any more.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Attribute, GenericParam, Path, parse_quote_spanned};

use crate::args::{Call, Limit, Limits};
use crate::errors::Errors;
use crate::handler::{Handler, ends_in};
use crate::value::Value;

/// Attributes that are about the handler as others see it, by the last segment of their path: routes,
/// documentation, and lints, which hold for the original function inside too.
const OUTER: &[&str] = &[
    "get",
    "post",
    "put",
    "delete",
    "patch",
    "head",
    "options",
    "trace",
    "connect",
    "query",
    "route",
    "routes",
    "doc",
    "cfg",
    "allow",
    "warn",
    "deny",
    "forbid",
    "expect",
    "deprecated",
    "must_use",
];

/// Those among them that hold for an original beside the handler as well.
const FOR_BOTH: &[&str] = &["cfg", "allow", "warn", "deny", "forbid"];

/// The item with the attribute moved below others, which then see the function as it was written.
pub(crate) fn below(
    above: Vec<Attribute>,
    arguments: TokenStream,
    handler: Handler,
) -> TokenStream {
    let (siblings, readers): (Vec<_>, Vec<_>) = above
        .into_iter()
        .partition(|attribute| ends_in(attribute, &["throttle"]));
    // What is wrong with them is said when it is their turn.
    let limits = Limits::parse(arguments.clone(), siblings.clone(), &mut Errors::default());
    let krate = limits
        .krate
        .unwrap_or_else(|| parse_quote_spanned!(Span::call_site()=> ::traffik_actix));
    quote! {
        #(#readers)*
        #[#krate::throttle(#arguments)]
        #(#siblings)*
        #handler
    }
}

/// A handler of the same name around the original function, which stays as it was written, or beside it
/// if it has a name of its own. The handler takes nothing but the request and its unread payload, decides,
/// and extracts what the original asks for only if the request is admitted.
///
/// Documentation shows the original.
pub(crate) fn expand(handler: Handler, limits: &Limits) -> TokenStream {
    let documented = handler.to_token_stream();
    let name = handler.name();
    let Handler {
        attributes,
        visibility,
        signature,
        body,
    } = handler;
    let (outer, inner): (Vec<_>, Vec<_>) = attributes
        .into_iter()
        .partition(|attribute| ends_in(attribute, OUTER));

    // If the compiler finds fault with the original function, it points at its name.
    let ident = &signature.ident;
    let krate = match &limits.krate {
        Some(path) => path,
        None => &parse_quote_spanned!(ident.span()=> ::traffik_actix),
    };
    let private = quote_spanned!(ident.span()=> #krate::__private);
    let all_limits = || limits.limits.iter().enumerate();
    let built = all_limits()
        .filter(|(_, limit)| limit.has_rate)
        .map(|(at, limit)| build(krate, &name, at, limit));
    let built = quote!(|| ::std::vec![#(#built),*]);
    let named: Vec<_> = all_limits()
        .filter_map(|(at, limit)| limit.named.as_ref().map(|named| quote!((#at, #named))))
        .collect();
    let limits_of_handler = match named[..] {
        [] => quote!(new(#built)),
        _ => quote!(with_named(#built, &[#(#named),*])),
    };

    let in_flight: Vec<_> = all_limits()
        .filter(|(_, limit)| !limit.in_flight.is_empty())
        .map(|(at, limit)| build_in_flight(krate, &name, at, limit))
        .collect();
    let limits_of_handler = quote!(#private::HandlerLimits::#limits_of_handler);
    let (type_of_limits, limits_of_handler, run) = match in_flight[..] {
        [] => (quote!(HandlerLimits), limits_of_handler, quote!(run)),
        _ => (
            quote!(HandlerInFlight),
            quote!(#private::HandlerInFlight::new(#limits_of_handler, || ::std::vec![#(#in_flight),*])),
            quote!(run_in_flight),
        ),
    };

    let names = all_limits().map(|(at, limit)| check_name(&private, &name, at, limit));
    let (generics, _, where_clause) = signature.generics.split_for_impl();
    let types = signature
        .generics
        .params
        .iter()
        .filter_map(|param| match param {
            GenericParam::Type(param) => Some(&param.ident),
            GenericParam::Const(param) => Some(&param.ident),
            GenericParam::Lifetime(_) => None,
        });
    let name_here = |name| Ident::new(name, Span::mixed_site().located_at(ident.span()));
    // No names that handlers have: a route makes its handler a unit struct, which a pattern of its name would match.
    let (unread, original, all) = (
        name_here("__traffik_unread"),
        // Spanned as the name itself, or its mistakes are said twice.
        Ident::new("__traffik_original", ident.span()),
        name_here("__TRAFFIK_LIMITS"),
    );
    let (inside, beside, path) = match &limits.original {
        None => (
            quote!(#(#inner)* #signature #body),
            TokenStream::new(),
            quote!(#ident),
        ),
        Some(path) => {
            let for_both = outer.iter().filter(|one| ends_in(one, FOR_BOTH));
            let expected = outer.iter().filter(|one| ends_in(one, &["expect"]));
            let text = format!("[`{name}`] without its limits.");
            let mut signature = signature.clone();
            // Its last segment, since the path was checked.
            if let Some(last) = path.segments.last() {
                signature.ident = last.ident.clone();
            }
            let beside = quote! {
                #(#for_both)*
                #(#expected)*
                #[doc = #text]
                #[allow(clippy::unused_async)]
                #(#inner)*
                #visibility #signature #body
            };
            (TokenStream::new(), beside, quote!(#path))
        }
    };
    let outer = outer
        .iter()
        .filter(|one| limits.original.is_none() || !ends_in(one, &["expect"]));
    // A local, since clippy takes a path among the arguments of a call for a call, and the original for a
    // function that need not be async.
    let run = quote_spanned! {ident.span()=>
        let #original = #path::<#(#types),*>;
        #private::#run(&#all, #unread, #original).await
    };
    quote! {
        #[cfg(doc)]
        #documented

        #[cfg(not(doc))]
        #(#outer)*
        // Nothing in a worker is sent, and no request can be.
        #[allow(clippy::future_not_send)]
        #visibility async fn #ident #generics (
            #unread: #private::Unread,
        ) -> #private::HttpResponse #where_clause {
            #inside

            #(#names)*
            static #all: #private::#type_of_limits = #limits_of_handler;

            #run
        }

        #beside
    }
}

/// The expression that builds the limit at position `at`.
fn build(krate: &Path, handler: &str, at: usize, limit: &Limit) -> TokenStream {
    let name = name_of(handler, at, limit);
    let calls = limit
        .calls
        .iter()
        .map(|call| method(krate, call, &limit.options));
    let builder = match &limit.name {
        Some(_) => quote!(#krate::HttpThrottle::builder),
        None => quote!(#krate::__private::throttle_of),
    };
    quote! {
        #builder(#name) #(#calls)* .build()
    }
}

/// The expression that builds how many at a time the limit at position `at` lets in.
fn build_in_flight(krate: &Path, handler: &str, at: usize, limit: &Limit) -> TokenStream {
    let name = name_of(handler, at, limit);
    let name = match limit.added_to_name() {
        "" => name,
        added => {
            let text = format!("{{}}{added}");
            quote!(::std::format!(#text, #name))
        }
    };
    let calls = limit.in_flight.iter().map(|call| method(krate, call, &[]));
    quote! {
        #krate::ConcurrencyLimit::builder(#name) #(#calls)* .build()
    }
}

/// Has the compiler check that the limit at position `at` can be named after its handler, if it is.
fn check_name(private: &TokenStream, handler: &str, at: usize, limit: &Limit) -> TokenStream {
    if limit.named.is_some() || limit.name.is_some() {
        return TokenStream::new();
    }
    let name = name_of(handler, at, limit);
    let added = limit.added_to_name();
    quote!(const _: () = #private::check_name(#name, #added);)
}

/// What the limit at position `at` is called.
fn name_of(handler: &str, at: usize, limit: &Limit) -> TokenStream {
    if let Some(name) = &limit.name {
        return quote!(#name);
    }
    let nth = match at {
        0 => String::new(),
        at => format!("#{}", at + 1),
    };
    quote!(::core::concat!(::core::module_path!(), "::", #handler, #nth))
}

/// A call in a builder's chain; `options` are for the strategy, if this is its call.
fn method(krate: &Path, call: &Call, options: &[Call]) -> TokenStream {
    if let Value::Switch(false) = call.value {
        return TokenStream::new();
    }
    let name = &call.method;
    let argument = argument(krate, &call.value, options);
    quote_spanned!(name.span()=> .#name(#argument))
}

fn argument(krate: &Path, value: &Value, options: &[Call]) -> TokenStream {
    match value {
        Value::Expr(expr) => quote!(#expr),
        Value::Number(number, span) => {
            let mut number = Literal::f64_suffixed(*number);
            number.set_span(*span);
            quote!(#number)
        }
        Value::Duration(duration) => {
            let (secs, nanos) = (duration.as_secs(), duration.subsec_nanos());
            quote!(::core::time::Duration::new(#secs, #nanos))
        }
        Value::Switch(_) => TokenStream::new(),
        Value::Variant(choice, (_, variant), span) => {
            let (of, variant) = (Ident::new(choice.of, *span), Ident::new(variant, *span));
            quote!(#krate::#of::#variant)
        }
        Value::Strategy(strategy, span) => {
            let of = Ident::new(strategy.of, *span);
            let is_for_new =
                |call: &&Call| strategy.new_takes.is_some_and(|key| call.method == key);
            let (first, rest): (Vec<_>, Vec<_>) = options.iter().partition(is_for_new);
            let first = first.iter().map(|call| argument(krate, &call.value, &[]));
            let rest = rest.iter().map(|call| method(krate, call, &[]));
            quote!(#krate::strategy::#of::new(#(#first)*) #(#rest)*)
        }
    }
}
