//! The pages hang together, and say what is so.

mod agreement;
mod links;
mod pages;
mod plots;
mod promises;
