//! The pages hang together, and say what is so.

mod links;
mod pages;
mod plots;
mod promises;
