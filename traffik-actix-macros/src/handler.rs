use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, Result, ReturnType, Safety, Signature, Token, Type, TypeParamBound,
    Visibility,
};

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
    /// Takes the other limits off the function: they are decided together with the topmost one. The compiler
    /// has resolved each `cfg_attr` before it gets here.
    pub(crate) fn take_siblings(&mut self) -> Vec<Attribute> {
        self.attributes
            .extract_if(.., |attribute| ends_in(attribute, &["throttle"]))
            .collect()
    }

    /// Splits the attributes below the last one that has to read the function as it was written, since
    /// it describes it to others. They include `#[throttle]` itself, if there is such a one.
    pub(crate) fn split_at_readers(&mut self) -> Option<Vec<Attribute>> {
        let last = self.attributes.iter().rposition(is_reader)?;
        let below = self.attributes.split_off(last + 1);
        let above = std::mem::replace(&mut self.attributes, below);
        Some(above)
    }

    /// Where `Self` is said of what is around the function.
    pub(crate) fn find_self(&self) -> Option<Span> {
        let signature = self.signature.to_token_stream();
        find_self(signature, false).or_else(|| find_self(self.body.stream(), true))
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
        let mistakes = errors.count();
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
        if errors.count() == mistakes && self.is_surely_not_async() {
            let message = format!(
                "a handler is async: write `async fn {}`",
                self.signature.ident
            );
            errors.push(Error::new(self.signature.fn_token.span, message));
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

impl Handler {
    /// Whether it is not `async` and what it returns is no future, as far as a name tells.
    fn is_surely_not_async(&self) -> bool {
        self.signature.asyncness.is_none()
            && match &self.signature.output {
                ReturnType::Default => true,
                ReturnType::Type(_, ty) => is_surely_no_future(ty),
            }
    }

    /// Makes a handler of what is none only for want of `async`: one error is enough.
    pub(crate) fn mend(&mut self) {
        if self.is_surely_not_async() && self.signature.constness.is_none() {
            self.signature.asyncness = Some(Token![async](self.signature.fn_token.span));
        }
    }
}

/// Whether a type is one that handlers like to return and no future.
fn is_surely_no_future(ty: &Type) -> bool {
    const NO_FUTURES: &[&str] = &[
        "String",
        "HttpResponse",
        "Result",
        "Option",
        "Json",
        "Html",
        "Bytes",
        "NamedFile",
        "Redirect",
    ];
    match ty {
        Type::Reference(_) | Type::Tuple(_) | Type::Array(_) | Type::Never(_) => true,
        Type::Path(path) => {
            let last = path.path.segments.last();
            last.is_some_and(|last| NO_FUTURES.iter().any(|name| last.ident == name))
        }
        Type::ImplTrait(of) => of.bounds.iter().all(|bound| match bound {
            TypeParamBound::Trait(bound) => bound
                .path
                .segments
                .last()
                .is_some_and(|last| last.ident == "Responder" || last.ident == "MessageBody"),
            _ => true,
        }),
        _ => false,
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
                "`#[throttle]` goes on a handler, an `async fn` with a body: to limit several, wrap \
                 their scope, `.wrap(throttle)`",
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

/// Attributes that describe a handler by its signature, and put what they make of it beside it: those of
/// utoipa, apistos and paperclip, by the last segment of their path.
const READERS: &[&str] = &["path", "api_operation", "api_v2_operation"];

fn is_reader(attribute: &Attribute) -> bool {
    ends_in(attribute, READERS)
}

/// The first `Self` that is not that of an item in a body.
fn find_self(tokens: TokenStream, has_items: bool) -> Option<Span> {
    const ITEMS: [&str; 5] = ["impl", "trait", "struct", "enum", "union"];
    let mut is_in_item = false;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if has_items && ITEMS.iter().any(|item| ident == item) => {
                is_in_item = true;
            }
            TokenTree::Ident(ident) if ident == "Self" && !is_in_item => return Some(ident.span()),
            TokenTree::Group(group) if is_in_item => {
                is_in_item = group.delimiter() != Delimiter::Brace;
            }
            TokenTree::Group(group) => {
                if let Some(span) = find_self(group.stream(), has_items) {
                    return Some(span);
                }
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => is_in_item = false,
            _ => {}
        }
    }
    None
}

/// The first `impl` of a type. It is a keyword, so it means nothing else in there.
fn find_impl(ty: TokenStream) -> Option<Span> {
    ty.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == "impl" => Some(ident.span()),
        TokenTree::Group(group) => find_impl(group.stream()),
        _ => None,
    })
}
