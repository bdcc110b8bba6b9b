//! What the attributes say, and whether it can be so.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, Ident, Lit, LitStr, Meta, Path, Result, Token};

use crate::errors::Errors;
use crate::handler::Handler;
use crate::rehearsal::rehearse;
use crate::suggest;
use crate::table::{About, IN_FLIGHT, KEYS, Key, Kind, STRATEGIES, Strategy};
use crate::value::{Value, check_length, is_name, literal};

/// The limits of one handler, in the order of their attributes.
pub(crate) struct Limits {
    /// Where `traffik-actix` is found, if not where it is by itself.
    pub(crate) krate: Option<Path>,
    /// What the function itself is called, if it is to be reached.
    pub(crate) original: Option<Path>,
    pub(crate) limits: Vec<Limit>,
}

/// One limit, checked.
#[derive(Default)]
pub(crate) struct Limit {
    /// The throttle of this name in the application's `Limits`, which says the rest.
    pub(crate) named: Option<Expr>,
    pub(crate) name: Option<Expr>,
    /// Whether it says how often.
    pub(crate) has_rate: bool,
    pub(crate) calls: Vec<Call>,
    /// Calls of the builder of the built-in strategy.
    pub(crate) options: Vec<Call>,
    /// How many at a time, if it says so: calls of the builder of such a limit.
    pub(crate) in_flight: Vec<Call>,
}

/// A call of the builder's method of this name.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Ident,
    pub(crate) value: Value,
}

/// One `key = value`, not yet judged.
struct Argument {
    key: Ident,
    value: Expr,
}

/// What one attribute says.
struct List {
    span: Span,
    arguments: Vec<Argument>,
    /// Whether all of it could be read.
    is_whole: bool,
}

impl Limits {
    /// Reads the topmost attribute and its siblings below.
    pub(crate) fn parse(
        topmost: TokenStream,
        siblings: Vec<Attribute>,
        errors: &mut Errors,
    ) -> Limits {
        let mut lists = vec![List::parse(Span::call_site(), topmost, errors)];
        for sibling in siblings {
            let span = sibling.path().span();
            let tokens = match sibling.meta {
                Meta::Path(_) => TokenStream::new(),
                Meta::List(list) => list.tokens,
                Meta::NameValue(pair) => {
                    errors.push(Error::new(
                        pair.eq_token.span,
                        "a limit is written `#[throttle(\"100/minute\")]`",
                    ));
                    continue;
                }
            };
            lists.push(List::parse(span, tokens, errors));
        }
        let krate = take_path(&mut lists, &CRATE, errors);
        let original = take_path(&mut lists, &ORIGINAL, errors);
        let limits = lists
            .into_iter()
            .map(|list| Limit::judge(list, errors))
            .collect();
        Limits {
            krate,
            original,
            limits,
        }
    }

    /// Checks that the function is kept where what it says has a meaning.
    pub(crate) fn check_original(&self, handler: &Handler, errors: &mut Errors) {
        let is_associated = match &self.original {
            Some(path) if path.is_ident(&handler.signature.ident) => {
                let message = format!(
                    "`{}` is the handler that is limited: the function itself needs another name",
                    handler.name()
                );
                return errors.push(Error::new_spanned(path, message));
            }
            Some(path) => path.segments.len() > 1,
            None => false,
        };
        // A receiver was complained about already.
        if is_associated || handler.signature.receiver().is_some() {
            return;
        }
        if let Some(span) = handler.find_self() {
            let message = format!(
                "`#[throttle]` keeps the function in another one, where `Self` and the generics of an \
                 `impl` have no meaning: name the type, or keep it beside with \
                 `original = Self::{}_unlimited`",
                handler.name()
            );
            errors.push(Error::new(span, message));
        }
    }

    /// Checks that every limit has a name of its own, given or made of the handler's.
    pub(crate) fn check_names(&self, handler: &Ident, errors: &mut Errors) {
        let mut seen = Vec::new();
        let mut named = Vec::new();
        for limit in &self.limits {
            if let Some(of) = &limit.named {
                if let Some(Lit::Str(name)) = literal(of) {
                    if named.contains(&name.value()) {
                        let message =
                            "this limit is on the handler already, and would count it twice";
                        errors.push(Error::new(name.span(), message));
                    }
                    named.push(name.value());
                }
                continue;
            }
            match limit.name.as_ref().map(literal) {
                Some(Some(Lit::Str(name))) if seen.contains(&name.value()) => {
                    errors.push(Error::new(
                        name.span(),
                        "another limit of this handler has this name: both would share one count",
                    ));
                }
                Some(Some(Lit::Str(name))) => seen.push(name.value()),
                None if !is_name(&handler.unraw().to_string()) => errors.push(Error::new(
                    handler.span(),
                    "a limit is named after its handler, but names are printable ASCII: \
                     add `name = \"..\"`",
                )),
                _ => {}
            }
        }
    }
}

impl List {
    /// Splits a list at its commas. What follows a mistake up to the next comma is left out.
    fn parse(span: Span, tokens: TokenStream, errors: &mut Errors) -> List {
        let mistakes = errors.count();
        let parse = |input: ParseStream<'_>| {
            let mut arguments = Vec::new();
            while !input.is_empty() {
                let parsed = argument(input, arguments.is_empty()).and_then(|argument| {
                    match input.is_empty() || input.peek(Token![,]) {
                        true => Ok(argument),
                        false => Err(input.error("expected `,`")),
                    }
                });
                arguments.extend(errors.keep(parsed));
                while !input.is_empty() && !input.peek(Token![,]) {
                    input.parse::<TokenTree>()?;
                }
                input.parse::<Option<Token![,]>>()?;
            }
            Ok(arguments)
        };
        let arguments = Parser::parse2(parse, tokens);
        List {
            span,
            arguments: errors.keep(arguments).unwrap_or_default(),
            is_whole: errors.count() == mistakes,
        }
    }
}

fn argument(input: ParseStream<'_>, is_first: bool) -> Result<Argument> {
    if input.peek(LitStr) {
        let value: Expr = input.parse()?;
        return match is_first {
            true => Ok(Argument {
                key: Ident::new("rate", value.span()),
                value,
            }),
            false => Err(Error::new_spanned(
                value,
                "only the rate goes without a key, and it comes first: write `key = value`",
            )),
        };
    }
    let key = input.call(Ident::parse_any).map_err(|error| {
        Error::new(
            error.span(),
            "expected `key = value`, or the rate as a text such as `\"100/minute\"`",
        )
    })?;
    let is_followed = input.peek(Token![=]) && !input.peek(Token![==]);
    if is_followed {
        input.parse::<Token![=]>()?;
    }
    if !is_followed || input.is_empty() || input.peek(Token![,]) {
        let message = format!("`{key}` lacks its value: write `{key} = value`");
        return Err(Error::new(key.span(), message));
    }
    let value = input.parse()?;
    Ok(Argument { key, value })
}

/// An argument whose value is a path, which holds for the whole handler.
struct PathKey {
    name: &'static str,
    takes: &'static str,
    suits: fn(&Path) -> bool,
}

const CRATE: PathKey = PathKey {
    name: "crate",
    takes: "the path of `traffik-actix`, such as `crate::reexports::traffik_actix`",
    suits: |_| true,
};

const ORIGINAL: PathKey = PathKey {
    name: "original",
    takes: "a new name for the function itself, such as `index_unlimited`, or \
            `Self::index_unlimited` in an `impl`",
    suits: |path| {
        let names: Vec<&Ident> = path.segments.iter().map(|one| &one.ident).collect();
        let is_plain = path.segments.iter().all(|one| one.arguments.is_none());
        let is_name = match names[..] {
            [name] => name != "Self" && name != "self",
            [of, _] => of == "Self",
            _ => false,
        };
        is_plain && is_name && path.leading_colon.is_none()
    },
};

/// Takes out the argument of this key, which goes once.
fn take_path(lists: &mut [List], key: &PathKey, errors: &mut Errors) -> Option<Path> {
    let mut found = None;
    for argument in lists
        .iter_mut()
        .flat_map(|list| list.arguments.extract_if(.., |one| one.key == key.name))
    {
        match argument.value {
            _ if found.is_some() => errors.push(Error::new(
                argument.key.span(),
                format!(
                    "`{}` is given twice: once holds for all limits of the handler",
                    key.name
                ),
            )),
            Expr::Path(value) if value.qself.is_none() && (key.suits)(&value.path) => {
                found = Some(value.path);
            }
            other => {
                let message = format!("`{}` takes {}", key.name, key.takes);
                errors.push(Error::new_spanned(other, message));
            }
        }
    }
    found
}

/// The argument that names a throttle of the application.
const NAMED: &str = "limit";

/// Whose options may be given.
#[derive(Clone, Copy)]
enum Chosen {
    /// The default strategy's, since none is named.
    Default,
    BuiltIn(&'static Strategy),
    /// Nobody's: the expression says it all.
    Own,
    /// Somebody's whose name is wrong, which is complained about elsewhere.
    Misspelt,
}

impl Chosen {
    fn by(arguments: &[Argument]) -> Chosen {
        let Some(strategy) = arguments.iter().find(|one| one.key == "strategy") else {
            return Chosen::Default;
        };
        match literal(&strategy.value) {
            Some(Lit::Str(name)) => {
                Strategy::named(&name.value()).map_or(Chosen::Misspelt, Chosen::BuiltIn)
            }
            Some(_) => Chosen::Misspelt,
            None => Chosen::Own,
        }
    }

    fn options(self) -> &'static [Key] {
        match self {
            Chosen::BuiltIn(strategy) => strategy.options,
            Chosen::Default | Chosen::Own | Chosen::Misspelt => &[],
        }
    }
}

impl Limit {
    /// What is added to its name where it says how many at a time.
    pub(crate) fn added_to_name(&self) -> &'static str {
        added_to_name(self.has_rate && !self.in_flight.is_empty())
    }

    fn judge(list: List, errors: &mut Errors) -> Limit {
        if list.arguments.iter().any(|one| one.key == NAMED) {
            return Limit::judge_named(list, errors);
        }
        let mistakes = errors.count();
        let chosen = Chosen::by(&list.arguments);
        let says = |what: fn(&Argument) -> bool| list.arguments.iter().any(what);
        let is_in_flight = says(|one| one.key == IN_FLIGHT);
        let mut limit = Limit {
            has_rate: !is_in_flight || says(|one| group(&one.key) == "rate"),
            ..Limit::default()
        };
        let about = match (limit.has_rate, is_in_flight) {
            (true, true) => About::Both,
            (true, false) => About::Rate,
            (false, _) => About::InFlight,
        };
        let mut seen: Vec<Ident> = Vec::new();
        // What cannot be read or is misspelt may have been the rate.
        let mut may_have_rate = !list.is_whole;
        for Argument { key, value } in list.arguments {
            let is_new = errors.keep(unseen(&key, &seen)).is_some();
            seen.push(key.clone());
            let is_known = find_key(KEYS, &key).is_some();
            if is_new && errors.keep(limit.take(key, value, about, chosen)).is_none() {
                may_have_rate |= !is_known;
            }
        }
        may_have_rate |= is_in_flight || seen.iter().any(|key| group(key) == "rate");
        if !may_have_rate {
            errors.push(Error::new(
                list.span,
                "a limit needs a rate: `#[throttle(\"100/minute\")]`, or `rate_by` or \
                 `rate_by_async` with a function that tells it, or `limit` with the name of a throttle of \
                 the application's `Limits`, or else `in_flight` to say how many at a time",
            ));
        }
        if let Chosen::BuiltIn(strategy) = chosen
            && let Some(key) = strategy.new_takes
            && !seen.iter().any(|other| other == key)
        {
            let message = format!("strategy `{}` needs `{key} = ..`", strategy.name);
            errors.push(Error::new(list.span, message));
        }
        if errors.count() == mistakes {
            errors.keep(rehearse(&limit));
        }
        limit
    }

    /// A limit that is found by its name has everything else from there.
    fn judge_named(list: List, errors: &mut Errors) -> Limit {
        let mut limit = Limit::default();
        for Argument { key, value } in list.arguments {
            if key == IN_FLIGHT {
                let message = "`limit` names a throttle of the application's `Limits`, and stands alone: \
                     give `in_flight` an attribute of its own, `#[throttle(in_flight = 10)]`";
                errors.push(Error::new(key.span(), message));
            } else if key != NAMED {
                let message = format!(
                    "`limit` names a throttle of the application's `Limits`, which says everything else: \
                     set `{key}` there"
                );
                errors.push(Error::new(key.span(), message));
            } else if limit.named.is_some() {
                errors.push(Error::new(key.span(), "`limit` is given twice"));
            } else if let Some(Value::Expr(name)) =
                errors.keep(Value::of(&Key::new(NAMED, Kind::Name), value))
            {
                limit.named = Some(name);
            }
        }
        limit
    }

    fn take(&mut self, key: Ident, value: Expr, about: About, chosen: Chosen) -> Result<()> {
        if let Some(known) = find_key(KEYS, &key) {
            suits(known, about).map_err(|message| Error::new(key.span(), message))?;
            match Value::of(known, value)? {
                Value::Expr(name) if known.name == "name" => {
                    if let Some(Lit::Str(text)) = literal(&name) {
                        check_length(text, added_to_name(about == About::Both))?;
                    }
                    self.name = Some(name);
                }
                value => self.call(Call { method: key, value }, known, about),
            }
        } else if about == About::InFlight && is_option(&key) {
            return Err(Error::new(key.span(), about_rates(&key.to_string())));
        } else if let Some(known) = find_key(chosen.options(), &key) {
            let value = Value::of(known, value)?;
            self.options.push(Call { method: key, value });
        } else if let Some(message) = misplaced(&key.to_string(), chosen) {
            return Err(Error::new(key.span(), message));
        }
        Ok(())
    }

    /// Gives it to those whom it is about.
    fn call(&mut self, call: Call, key: &Key, about: About) {
        if about != About::Rate && key.about != About::Rate {
            self.in_flight.push(call.clone());
        }
        if about != About::InFlight && key.about != About::InFlight {
            self.calls.push(call);
        }
    }
}

/// What the name of a limit on how many are in flight has beyond that of its attribute.
fn added_to_name(has_rate: bool) -> &'static str {
    match has_rate {
        // Two policies of one name could not be told apart in `RateLimit`.
        true => "#in_flight",
        false => "",
    }
}

/// Whether a key can be about what its attribute is about.
fn suits(key: &Key, about: About) -> std::result::Result<(), String> {
    let name = key.name;
    match (key.about, about) {
        (About::Rate, About::InFlight) => Err(about_rates(name)),
        (About::InFlight, About::Rate) => Err(format!(
            "`{name}` is about how many at a time: add `in_flight = 10`"
        )),
        (About::Either, About::Both) => Err(format!(
            "`{name}` could be meant for the rate or for `in_flight`: give `in_flight` an attribute of its own, \
             and `{name}` to the one that is meant"
        )),
        _ => Ok(()),
    }
}

fn about_rates(key: &str) -> String {
    format!(
        "`{key}` is about a rate, and `in_flight` alone has none: add one, \
         `#[throttle(\"100/minute\", in_flight = 10)]`, or leave `{key}` out"
    )
}

/// Whether it is an option of any strategy.
fn is_option(key: &Ident) -> bool {
    STRATEGIES
        .iter()
        .any(|strategy| find_key(strategy.options, key).is_some())
}

/// Checks that neither `key` nor one that excludes it was given before.
fn unseen(key: &Ident, seen: &[Ident]) -> Result<()> {
    let Some(other) = seen.iter().find(|other| group(other) == group(key)) else {
        return Ok(());
    };
    let message = match other == key {
        true => format!("`{key}` is given twice"),
        false => format!("`{other}` and `{key}` exclude each other: keep one of them"),
    };
    Err(Error::new(key.span(), message))
}

/// What keys that exclude each other have in common: `rate`, `rate_by` and `rate_by_async`.
fn group(key: &Ident) -> String {
    let key = key.to_string();
    let key = key.strip_suffix("_async").unwrap_or(&key);
    key.strip_suffix("_by").unwrap_or(key).to_owned()
}

/// What is wrong with a key that is neither one of every limit nor an option of the chosen
/// strategy, if that is not already clear from the strategy's own mistake.
fn misplaced(key: &str, chosen: Chosen) -> Option<String> {
    let options = STRATEGIES.iter().flat_map(|strategy| strategy.options);
    let owners: Vec<&str> = STRATEGIES
        .iter()
        .filter(|strategy| strategy.options.iter().any(|option| option.name == key))
        .map(|strategy| strategy.name)
        .collect();
    if key == "on_excess" {
        return Some("unknown argument `on_excess`: `wait_up_to = \"2s\"` delays, and without it excess is denied".into());
    }
    if owners.is_empty() {
        let known = KEYS.iter().chain(options).map(|key| key.name);
        let near = suggest::nearest(key, known.chain([NAMED]));
        return Some(match near {
            Some(near) => format!("unknown argument `{key}`: did you mean `{near}`?"),
            None => {
                let known = KEYS.iter().chain(chosen.options()).map(|key| key.name);
                let known = suggest::one_of(known);
                format!("unknown argument `{key}`: expected {known}")
            }
        });
    }
    let owners = suggest::one_of(owners);
    Some(match chosen {
        Chosen::Misspelt => return None,
        Chosen::Default => format!("`{key}` is an option of {owners}: add `strategy = ..`"),
        Chosen::Own => format!(
            "`{key}` is an option of {owners}: configure a strategy of your own in its expression"
        ),
        Chosen::BuiltIn(strategy) if strategy.options.is_empty() => {
            format!(
                "`{key}` is an option of {owners}: `{}` has none",
                strategy.name
            )
        }
        Chosen::BuiltIn(strategy) => format!(
            "`{key}` is an option of {owners}: those of `{}` are {}",
            strategy.name,
            suggest::all_of(strategy.options.iter().map(|option| option.name)),
        ),
    })
}

fn find_key(keys: &'static [Key], name: &Ident) -> Option<&'static Key> {
    keys.iter().find(|key| name == key.name)
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    #[test]
    fn who_looks_for_the_delay_by_its_other_name_is_told() {
        let message = misplaced("on_excess", Chosen::Default).unwrap();
        assert!(
            message.contains("`wait_up_to = \"2s\"` delays"),
            "{message}"
        );
    }

    /// What is wrong with an attribute.
    fn mistakes(arguments: TokenStream) -> String {
        let mut errors = Errors::default();
        Limits::parse(arguments, Vec::new(), &mut errors);
        let mistakes = errors.finish(()).err();
        mistakes.map_or_else(String::new, |error| error.to_string())
    }

    /// Such a handler compiled, and answered 500 to all.
    #[test]
    fn a_name_that_is_too_long_is_refused() {
        let name = |length| "n".repeat(length);
        for (length, rate, both) in [(246, "", ""), (247, "", "246"), (257, "256", "256")] {
            let name = name(length);
            for (mistake, longest) in [
                (mistakes(quote!("1/s", name = #name)), rate),
                (mistakes(quote!(in_flight = 1, name = #name)), rate),
                (mistakes(quote!(limit = #name)), rate),
                (mistakes(quote!("1/s", name = #name, in_flight = 1)), both),
            ] {
                let expected = format!("a name has at most {longest} bytes");
                match longest {
                    "" => assert_eq!(mistake, ""),
                    _ => assert!(mistake.starts_with(&expected), "{mistake}"),
                }
            }
        }
    }
}
