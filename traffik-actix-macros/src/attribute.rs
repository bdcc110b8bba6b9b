//! The attribute from its arguments to what the compiler gets.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::Error;

use crate::args::Limits;
use crate::errors::Errors;
use crate::expand;
use crate::handler::Handler;

/// What becomes of the item, or the errors and the item.
pub(crate) fn apply(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut handler: Handler = match syn::parse2(item.clone()) {
        Ok(handler) => handler,
        Err(error) => return reject(item, error),
    };
    if let Some(readers) = handler.split_at_readers() {
        return expand::below(readers, arguments, handler);
    }
    let mut errors = Errors::default();
    handler.check(&mut errors);
    let siblings = handler.take_siblings();
    let limits = Limits::parse(arguments, siblings, &mut errors);
    limits.check_names(&handler.signature.ident, &mut errors);
    limits.check_original(&handler, &mut errors);
    match errors.finish(limits) {
        Ok(limits) => expand::expand(handler, &limits),
        Err(error) => {
            handler.mend();
            reject(handler, error)
        }
    }
}

/// The error, and the item too, so that whoever uses it is not told that it does not exist.
fn reject(item: impl ToTokens, error: Error) -> TokenStream {
    let error = error.into_compile_error();
    quote!(#item #error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expansion(arguments: TokenStream) -> String {
        let handler = quote!(
            async fn index() {}
        );
        apply(arguments, handler).to_string()
    }

    #[test]
    fn handlers_without_it_do_not_pay_for_what_is_in_flight() {
        let without = expansion(quote!("100/minute", wait_up_to = "1s"));
        assert!(without.contains("HandlerLimits"), "{without}");
        for word in ["InFlight", "in_flight", "ConcurrencyLimit"] {
            assert!(!without.contains(word), "{without}");
            assert!(expansion(quote!("100/minute", in_flight = 1)).contains(word));
        }
    }
}
