/// A list of networks: an array, a slice by its iterator, or whatever else gives texts such as
/// `10.0.0.0/8`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no list of networks",
    label = "not a list of texts",
    note = "write a list, also of one: `trust([\"10.0.0.0/8\"])`; texts that are `String`s are lent, \
            `trust(networks.iter().map(String::as_str))`"
)]
pub trait Networks<'a> {
    /// The networks.
    fn networks(self) -> impl Iterator<Item = &'a str>;
}

#[diagnostic::do_not_recommend]
impl<'a, I: IntoIterator<Item = &'a str>> Networks<'a> for I {
    fn networks(self) -> impl Iterator<Item = &'a str> {
        self.into_iter()
    }
}
