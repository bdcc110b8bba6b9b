use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Attribute, Error, FnArg, Result, Safety, Signature, Visibility};

use crate::errors::Errors;

/// The function under the attribute. Its body stays unread: whatever the compiler understands, a
/// handler may contain.
pub(crate) struct Handler {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    pub(crate) body: Group,
}

impl Handler {
    /// Takes the other limits off the function: they are decided together with the topmost one.
    pub(crate) fn take_siblings(&mut self) -> Vec<Attribute> {
        self.attributes
            .extract_if(.., |attribute| ends_in(attribute, &["throttle"]))
            .collect()
    }

    /// The name, without `r#`.
    pub(crate) fn name(&self) -> String {
        self.signature.ident.unraw().to_string()
    }

    pub(crate) fn check(&self, errors: &mut Errors) {
        let Signature {
            constness,
            safety,
            abi,
            inputs,
            ..
        } = &self.signature;
        let unsafety = match safety {
            Safety::Unsafe(token) => Some(token.span),
            Safety::Safe(_) | Safety::Default => None,
        };
        for (span, what) in [
            (constness.as_ref().map(Spanned::span), "const"),
            (unsafety, "unsafe"),
            (abi.as_ref().map(Spanned::span), "extern"),
        ] {
            if let Some(span) = span {
                let message = format!("a handler cannot be `{what}`: actix-web could not call it");
                errors.push(Error::new(span, message));
            }
        }
        for input in inputs {
            match input {
                FnArg::Receiver(receiver) => errors.push(Error::new_spanned(
                    receiver,
                    "a handler takes no `self`, which no request brings: make it a free function",
                )),
                FnArg::Typed(argument) => {
                    if let Some(span) = find_impl(argument.ty.to_token_stream()) {
                        errors.push(Error::new(
                            span,
                            "a handler takes no `impl Trait`, which names no type to extract: \
                             use a type parameter, such as `fn handler<T: Trait>(..)`",
                        ));
                    }
                }
            }
        }
    }
}

impl Parse for Handler {
    fn parse(input: ParseStream<'_>) -> Result<Handler> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let start = input.span();
        let no_function = |_| {
            Error::new(
                start,
                "`#[throttle]` goes on a handler: a function with a body",
            )
        };
        Ok(Handler {
            attributes,
            visibility,
            signature: input.parse().map_err(no_function)?,
            body: input
                .step(|cursor| match cursor.token_tree() {
                    Some((TokenTree::Group(body), rest)) => Ok((body, rest)),
                    _ => Err(cursor.error("no body")),
                })
                .map_err(no_function)?,
        })
    }
}

impl ToTokens for Handler {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        for attribute in &self.attributes {
            attribute.to_tokens(tokens);
        }
        self.visibility.to_tokens(tokens);
        self.signature.to_tokens(tokens);
        self.body.to_tokens(tokens);
    }
}

/// Whether the last segment of the attribute's path is one of `names`.
pub(crate) fn ends_in(attribute: &Attribute, names: &[&str]) -> bool {
    let last = attribute.path().segments.last();
    last.is_some_and(|segment| names.iter().any(|name| segment.ident == name))
}

/// The first `impl` of a type. It is a keyword, so it means nothing else in there.
fn find_impl(ty: TokenStream) -> Option<Span> {
    ty.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == "impl" => Some(ident.span()),
        TokenTree::Group(group) => find_impl(group.stream()),
        _ => None,
    })
}
